"""A graph in its session: rows in, results out.

On a GPU one row alone takes a shorter way (IO binding): its values and its result have a place in the GPU's memory that
is bound to the session once, so that no run has to make one. And as nothing about such a run ever changes, its kernels
may be recorded once and replayed together (a CUDA graph), which costs one launch in place of one for every node. On a
CPU the same was measured to gain nothing; there many rows go through the graph in pieces instead, because what it makes
of a row on the way takes kilobytes, which are then still in the caches at the next node.
"""

import threading
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.runtime import CUDA, Node, Session

Matrix = NDArray[np.float32]

RECORDED = "gpu_graph_id"
"""onnxruntime's name for the recording that a run takes or makes; NONE for runs that are not to be recorded."""

NONE, FIRST = "-1", "1"

PIECE = 512
"""Rows that go through a graph at once on a CPU: a few MB of intermediate results."""


class BoundRow:
    """The places of one row and of its result, bound to a session.

    Arguments:
        session: The graph.
        input_name: The name of its input (N, M).
        output_name: The name of its output (N, *).
        options: What each run is given, if anything.

    Attributes:
        free: Held while a row is in its place.
    """

    def __init__(self, session: Session, input_name: str, output_name: str, options: Any) -> None:  # noqa: ANN401
        device = "cuda" if session.get_providers()[0] == CUDA else "cpu"
        shape_in, shape_out = (of_one_row(nodes[0]) for nodes in (session.get_inputs(), session.get_outputs()))
        self._row = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape_in, np.float32), device, 0)
        self._result = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape_out, np.float32, device, 0)
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(input_name, self._row)
        self._binding.bind_ortvalue_output(output_name, self._result)
        self._run, self._options = session.run_with_iobinding, options
        self.free = threading.Lock()

    def run(self, row: Matrix) -> Matrix | None:
        """Returns the result (1, *) of a row (1, M), or None if another thread has the places."""
        if not self.free.acquire(blocking=False):
            return None
        try:
            self._row.update_inplace(row)
            self._run(self._binding, self._options)
            result: Matrix = self._result.numpy()
            return result.copy()  # the next row's result takes its place
        finally:
            self.free.release()


class Graph:
    """A session whose graph has one input and one output.

    Arguments:
        session: The graph.
        input_name: The name of its input (N, M).
        output_name: The name of its output (N, *).
        recorded: Whether runs of one row are recorded as a CUDA graph, which the session must have been made for.
    """

    def __init__(self, session: Session, input_name: str, output_name: str, recorded: bool = False) -> None:
        self.session = session
        self._input, self._outputs = input_name, [output_name]
        # For a run without options onnxruntime makes some, which takes as long as several nodes of the graph.
        self._options = run_options(NONE) if recorded else onnxruntime.RunOptions()
        # The session's own `run` looks at its arguments first, which takes a tenth of the time of a row; and should a
        # provider fail, it would go on with another one, silently.
        self._run = getattr(session, "_sess", session).run
        self._bound: BoundRow | None = None
        if self.provider == CUDA:
            self._bound = BoundRow(session, input_name, output_name, run_options(FIRST) if recorded else None)

    @property
    def provider(self) -> str:
        """The execution provider that the session really got."""
        return str(self.session.get_providers()[0])

    def run(self, rows: Matrix) -> Matrix:
        """Returns the results (N, *) of rows (N, M); each row's is the same whatever the others are."""
        if self._bound is not None and len(rows) == 1:
            found = self._bound.run(rows)
            if found is not None:
                return found
        if len(rows) > PIECE and self._bound is None:
            return np.concatenate([self._run_once(rows[i : i + PIECE]) for i in range(0, len(rows), PIECE)])
        return self._run_once(rows)

    def _run_once(self, rows: Matrix) -> Matrix:
        results: list[Matrix] = self._run(self._outputs, {self._input: rows}, self._options)
        return results[0]


def of_one_row(node: Node) -> list[int]:
    """Returns the shape that an input or output has for one row."""
    return [1, *(int(size) for size in node.shape[1:])]


def run_options(recording: str) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """Returns the options of runs that take or make a recording."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry(RECORDED, recording)
    return options
