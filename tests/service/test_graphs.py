"""One row alone may go through a graph by a way of its own, and comes out as it does among others."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from service.errors import StartError
from service.graphs import PIECE, BoundRow, Graph, Matrix
from service.runtime import CPU, CUDA, Runtime
from tests.server import MODELS

SCORER = MODELS / "thyroid" / "2" / "scorer.onnx"
WIDTH = 6


@pytest.fixture(scope="module", params=["free", "bound"])
def graph(request: pytest.FixtureRequest) -> Graph:
    """A graph as it runs on a CPU, and with the bound row that it has on a GPU only."""
    session = Runtime("cpu").session(SCORER.read_bytes())
    made = Graph(session, "x", "score")
    assert made._bound is None
    if request.param == "bound":
        made._bound = BoundRow(session, "x", "score", None)
    return made


@pytest.fixture
def bound(graph: Graph) -> BoundRow:
    graph._bound = graph._bound or BoundRow(graph.session, "x", "score", None)
    return graph._bound


def rows(count: int) -> Matrix:
    return np.random.default_rng(0).random((count, WIDTH), dtype=np.float32)


def test_one_row_has_the_bits_it_has_among_others(graph: Graph) -> None:
    x = rows(32)
    together = graph.run(x)
    alone = [graph.run(x[i : i + 1]) for i in range(len(x))]
    assert np.concatenate(alone).tobytes() == together.tobytes()  # and no later row overwrote an earlier one's result


@pytest.mark.parametrize("count", [2, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 5])
def test_pieces_have_the_bits_of_the_whole(graph: Graph, count: int) -> None:
    x = rows(count)
    (whole,) = graph.session.run(["score"], {"x": x})
    result = graph.run(x)
    assert result.shape == whole.shape
    assert result.tobytes() == whole.tobytes()


def test_a_cpu_is_given_pieces_and_a_gpu_the_whole(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    run = graph._run

    def note(outputs: list[str], feed: dict[str, Matrix], options: object) -> list[Matrix]:
        given.append(len(feed["x"]))
        return run(outputs, feed, options)

    monkeypatch.setattr(graph, "_run", note)
    graph.run(rows(2 * PIECE + 7))
    assert given == ([PIECE, PIECE, 7] if graph._bound is None else [2 * PIECE + 7])


def test_threads_do_not_share_the_place_of_the_row(graph: Graph) -> None:
    x = rows(200)
    expected = graph.run(x)
    with ThreadPoolExecutor(4) as pool:
        scores = list(pool.map(lambda i: graph.run(x[i : i + 1])[0], range(len(x))))
    assert np.asarray(scores).tobytes() == expected.tobytes()


def test_a_row_whose_place_is_taken_goes_the_way_of_many(graph: Graph, bound: BoundRow) -> None:
    x = rows(1)
    expected = graph.run(x)
    with bound.free:
        assert bound.run(x) is None
        assert graph.run(x).tobytes() == expected.tobytes()
    result = bound.run(x)
    assert result is not None
    assert result.tobytes() == expected.tobytes()


def test_the_place_is_free_again_after_an_error(graph: Graph, bound: BoundRow, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("of onnxruntime")

    x = rows(1)
    expected = graph.run(x)
    with monkeypatch.context() as patched:
        patched.setattr(bound, "_run", fail)
        with pytest.raises(RuntimeError, match="of onnxruntime"):
            graph.run(x)
    assert not bound.free.locked()
    assert graph.run(x).tobytes() == expected.tobytes()


@pytest.mark.parametrize("provider", ["auto", "cpu", "tensorrt"])
def test_cuda_graphs_need_cuda(provider: str) -> None:
    message = f"RADOGAGA_CUDA_GRAPHS is true, which needs RADOGAGA_PROVIDER=cuda, not '{provider}'"
    with pytest.raises(StartError, match=message):
        Runtime(provider, cuda_graphs=True).prepare()  # type: ignore[arg-type]


class StandInValue:
    """Plays onnxruntime's value on a GPU."""

    def __init__(self, values: np.ndarray, device: str) -> None:
        self.values, self.device = values, device

    @classmethod
    def ortvalue_from_numpy(cls, values: np.ndarray, device: str, _: int) -> "StandInValue":
        return cls(values, device)

    @classmethod
    def ortvalue_from_shape_and_type(cls, shape: list[int], dtype: type, device: str, _: int) -> "StandInValue":
        return cls(np.zeros(shape, dtype), device)

    def update_inplace(self, values: np.ndarray) -> None:
        self.values[:] = values

    def numpy(self) -> np.ndarray:
        return self.values


class StandInSession:
    """Plays a session on a GPU that sums each row, and notes which recording a run was given."""

    def __init__(self, _: bytes, __: object, providers: list[object]) -> None:
        self.providers, self.bound, self.runs = providers, SimpleNamespace(), list[tuple[str, str | None]]()

    def get_providers(self) -> list[str]:
        return [CUDA, CPU]

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="x", shape=["N", WIDTH])]

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="score", shape=["N"])]

    def io_binding(self) -> SimpleNamespace:
        def bind(name: str, value: StandInValue) -> None:
            setattr(self.bound, name, value)

        return SimpleNamespace(bind_ortvalue_input=bind, bind_ortvalue_output=bind)

    def run_with_iobinding(self, _: object, options: onnxruntime.RunOptions | None) -> None:
        self.runs.append(("bound", recording(options)))
        self.bound.score.values[:] = self.bound.x.values.sum(axis=1)

    def run(self, _: list[str], feed: dict[str, Matrix], options: onnxruntime.RunOptions | None) -> list[Matrix]:
        self.runs.append(("free", recording(options)))
        return [feed["x"].sum(axis=1)]


def recording(options: onnxruntime.RunOptions | None) -> str | None:
    """Returns which recording a run was given: "" for options that say nothing of it, None for no options."""
    if options is None:
        return None
    try:
        return str(options.get_run_config_entry("gpu_graph_id"))
    except RuntimeError:  # onnxruntime's word for an entry that is not there
        return ""


@pytest.mark.parametrize(("recorded", "alone", "many"), [(False, None, ""), (True, "1", "-1")])
def test_on_a_gpu_the_place_is_there_and_only_its_runs_are_recorded(
    monkeypatch: pytest.MonkeyPatch, recorded: bool, alone: str | None, many: str | None
) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", StandInSession)
    monkeypatch.setattr(onnxruntime, "OrtValue", StandInValue)
    session: Any = Runtime("cuda", cuda_graphs=recorded).session(b"")
    wanted = [(CUDA, {"enable_cuda_graph": "1"}), CPU] if recorded else [CUDA, CPU]
    assert session.providers == wanted
    graph = Graph(session, "x", "score", recorded)
    assert session.bound.x.device == session.bound.score.device == "cuda"
    x = rows(3)
    assert graph.run(x[:1]).tolist() == x[:1].sum(axis=1).tolist()
    assert graph.run(x).tolist() == x.sum(axis=1).tolist()
    assert session.runs == [("bound", alone), ("free", many)]
