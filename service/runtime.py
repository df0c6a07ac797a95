"""onnxruntime: which execution provider the sessions get, and whether it is the one that was asked for."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.errors import StartError
from service.settings import Provider

logger = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

WANTED: dict[Provider, list[str]] = {
    "cpu": [CPU],
    "cuda": [CUDA, CPU],
    "tensorrt": [TENSORRT, CUDA, CPU],
}
"""What a session is given to choose from; the first is the one that is meant."""

SILENT = 4
"""Of onnxruntime's log levels the one that only fatal errors pass."""

DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")


def installed_distributions() -> dict[str, str]:
    """Returns the installed distributions of onnxruntime with their versions."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class Node(Protocol):
    """An input or output of a graph, as onnxruntime describes it."""

    name: str
    type: str
    shape: list[int | str]


class Session(Protocol):
    """What the service uses of `onnxruntime.InferenceSession`, which has no types of its own."""

    def run(
        self,
        output_names: list[str],
        input_feed: dict[str, NDArray[np.float32]],
        run_options: Any = None,  # noqa: ANN401 - onnxruntime's
    ) -> list[NDArray[np.float32]]:
        """Returns the named outputs."""

    def io_binding(self) -> Any:  # noqa: ANN401 - onnxruntime's
        """Returns what inputs and outputs are bound to."""

    def run_with_iobinding(self, iobinding: Any, run_options: Any = None) -> None:  # noqa: ANN401 - onnxruntime's
        """Takes what is bound through the graph."""

    def get_providers(self) -> list[str]:
        """Returns the execution providers, the preferred one first."""

    def get_inputs(self) -> list[Node]:
        """Returns the inputs."""

    def get_outputs(self) -> list[Node]:
        """Returns the outputs."""


@dataclass(frozen=True)
class Runtime:
    """Makes sessions, all with the same options and the same provider.

    Attributes:
        provider: The provider that is asked for.
        threads: Threads inside one inference.
        cuda_graphs: Whether sessions are made so that runs can be recorded as CUDA graphs.
    """

    provider: Provider = "auto"
    threads: int = 1
    cuda_graphs: bool = False

    def prepare(self) -> None:
        """Checks the installation, and loads the GPU's libraries where they come with it.

        Raises:
            StartError: Both distributions of onnxruntime are installed, so that each overwrote parts of the other;
                or the demanded provider is not part of the installed one; or CUDA graphs are wanted of another.
        """
        found = installed_distributions()
        if len(found) > 1:
            names = " and ".join(f"{name} {number}" for name, number in found.items())
            raise StartError(f"{names} are installed together and break each other; uninstall both, then install one")
        available = onnxruntime.get_available_providers()
        if self.cuda_graphs and self.provider != "cuda":
            raise StartError(f"RADOGAGA_CUDA_GRAPHS is true, which needs RADOGAGA_PROVIDER=cuda, not '{self.provider}'")
        if self.provider != "auto" and WANTED[self.provider][0] not in available:
            raise StartError(
                f"RADOGAGA_PROVIDER is '{self.provider}', but the installed onnxruntime has only"
                f" {', '.join(available)}; install the [gpu] extra in place of [cpu]"
            )
        if CUDA in available and self.provider != "cpu":
            onnxruntime.preload_dlls()
            if self.provider == "auto":  # without a GPU it would complain once per session, though all is well
                onnxruntime.set_default_logger_severity(SILENT)

    def wanted(self) -> list[str | tuple[str, dict[str, str]]]:
        """Returns the providers to give to a session, best first, with their options where they have any."""
        if self.cuda_graphs:
            return [(CUDA, {"enable_cuda_graph": "1"}), CPU]
        if self.provider != "auto":
            return [*WANTED[self.provider]]
        return [*WANTED["cuda" if CUDA in onnxruntime.get_available_providers() else "cpu"]]

    def fell_back(self, got: Iterable[str]) -> bool:
        """Tells whether some of the providers that sessions got are not the one that is meant here.

        Only with `auto` this can be, for otherwise the start fails.
        """
        return any(name != self.wanted()[0] for name in got) and not self.cuda_graphs

    def session(self, graph: bytes) -> Session:
        """Returns a session for a serialised graph.

        Raises:
            StartError: The graph is not one onnxruntime can load, or the session did not get the demanded provider.
        """
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.load_model_format", "ONNX")
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # it would keep the memory of the largest batch ever seen
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            session: Session = onnxruntime.InferenceSession(graph, options, providers=self.wanted())
        except Exception as error:  # onnxruntime's exceptions have no common base but this
            raise StartError(f"onnxruntime can't load it ({error})") from error
        got = session.get_providers()
        if self.provider != "auto" and got[0] != WANTED[self.provider][0]:
            raise StartError(
                f"RADOGAGA_PROVIDER is '{self.provider}', but the session got {got[0]}:"
                " is there a GPU, and is its driver recent enough?"
            )
        return session
