"""Which execution provider is asked for, which one comes, and what is refused; GPUs are played by stand-ins."""

import os
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest

from service import runtime
from service.errors import StartError
from service.runtime import CPU, CUDA, TENSORRT, Runtime
from service.settings import Provider
from tests.server import MODELS


class StandInSession:
    """Gets the first of the wanted providers that this machine is said to have."""

    present: tuple[str, ...] = (CPU,)

    def __init__(self, _: bytes, __: object, providers: list[str]) -> None:
        self.providers = [provider for provider in providers if provider in self.present]

    def get_providers(self) -> list[str]:
        return self.providers


@pytest.fixture
def gpu_build(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Plays onnxruntime's GPU build; `present` says what a session really gets."""
    calls = SimpleNamespace(preloaded=0, severity=None)

    def preload_dlls() -> None:
        calls.preloaded += 1

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])

    def set_severity(level: int) -> None:
        calls.severity = level

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload_dlls)
    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", set_severity)
    monkeypatch.setattr(onnxruntime, "InferenceSession", StandInSession)
    return calls


def graph() -> bytes:
    return Path(MODELS / "thyroid" / "1" / "scorer.onnx").read_bytes()


@pytest.mark.parametrize("provider", ["auto", "cpu"])
def test_the_cpu_is_used_where_there_is_nothing_else(provider: Provider) -> None:
    made = Runtime(provider)
    made.prepare()
    assert made.session(graph()).get_providers() == [CPU]


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_demanded_gpu_that_the_build_does_not_have_stops_the_start(provider: Provider) -> None:
    message = f"RADOGAGA_PROVIDER is '{provider}', but the installed onnxruntime has only .*CPUExecutionProvider"
    with pytest.raises(StartError, match=message):
        Runtime(provider).prepare()


@pytest.mark.parametrize(
    ("provider", "present", "got"),
    [
        ("auto", (CUDA, CPU), CUDA),
        ("auto", (CPU,), CPU),
        ("cpu", (CUDA, CPU), CPU),
        ("cuda", (CUDA, CPU), CUDA),
        ("tensorrt", (TENSORRT, CUDA, CPU), TENSORRT),
    ],
)
def test_what_the_gpu_build_gives(
    gpu_build: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    provider: Provider,
    present: tuple[str, ...],
    got: str,
) -> None:
    monkeypatch.setattr(StandInSession, "present", present)
    made = Runtime(provider)
    made.prepare()
    assert made.session(b"").get_providers()[0] == got
    assert gpu_build.preloaded == (provider != "cpu")
    assert gpu_build.severity == (4 if provider == "auto" else None)


@pytest.mark.usefixtures("gpu_build")
@pytest.mark.parametrize(
    ("provider", "present", "got"), [("cuda", (CPU,), CPU), ("tensorrt", (CUDA, CPU), CUDA), ("tensorrt", (CPU,), CPU)]
)
def test_a_silent_fallback_stops_the_start(
    monkeypatch: pytest.MonkeyPatch,
    provider: Provider,
    present: tuple[str, ...],
    got: str,
) -> None:
    monkeypatch.setattr(StandInSession, "present", present)
    with pytest.raises(StartError, match=f"RADOGAGA_PROVIDER is '{provider}', but the session got {got}"):
        Runtime(provider).session(b"")


def test_both_distributions_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"}
    monkeypatch.setattr(runtime, "installed_distributions", lambda: both)
    with pytest.raises(StartError, match="onnxruntime 1.31.1 and onnxruntime-gpu 1.31.1 are installed together"):
        Runtime("cpu").prepare()


def test_the_installed_distribution_is_found() -> None:
    assert len(runtime.installed_distributions()) == 1


def test_telemetry_is_off() -> None:
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
