"""Runs that are not fits by name: they are done once, and a changed setting is another run."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from training.experiments.base import Request
from training.experiments.records import Metrics, read_records
from training.experiments.results import lines_file
from training.experiments.runs import Listed, Run, metrics_by_seed


class Counting(Listed):
    name = "counting"
    summary = "counts"

    def __init__(self, width: int) -> None:
        self.width = width
        self.done: list[list[int]] = []

    def runs(self, request: Request) -> list[Run]:
        return [
            Run("RaDOGAGA", h, "robust", "toy", seed, {"width": self.width})
            for seed in request.seeds
            for h in ("identity", "log")
        ]

    def do(self, runs: Sequence[Run], _: Path, console: Console) -> list[Metrics]:
        console.print("working")
        self.done.append([run.seed for run in runs])
        return [{"residual": run.seed + 0.5} for run in runs]

    def render(self, docs: Path) -> str:
        raise NotImplementedError


def request(docs: Path, *seeds: int) -> Request:
    return Request((), None, seeds, 1, docs)


def test_seeds_of_a_setting_are_done_together_and_never_twice(tmp_path: Path) -> None:
    experiment, console = Counting(3), Console(quiet=True)
    assert experiment.state(request(tmp_path, 0, 1)) == "0/4"
    experiment.reproduce(request(tmp_path, 0, 1), console)
    assert experiment.done == [[0, 1], [0, 1]]
    assert experiment.state(request(tmp_path, 0, 1, 2)) == "4/6"
    experiment.reproduce(request(tmp_path, 0, 1, 2), console)
    assert experiment.done[2:] == [[2], [2]]
    experiment.reproduce(request(tmp_path, 0, 1, 2), console)
    assert len(experiment.done) == 4


def test_lines_are_found_by_setting_and_seed(tmp_path: Path) -> None:
    Counting(3).reproduce(request(tmp_path, 1, 0), Console(quiet=True))
    records = read_records(lines_file(tmp_path, "counting"))
    wanted = Counting(3).runs(request(tmp_path, 5))[1]
    assert metrics_by_seed(records, wanted) == {0: {"residual": 0.5}, 1: {"residual": 1.5}}
    assert [record["h"] for record in records] == ["identity", "identity", "log", "log"]
    assert metrics_by_seed(records, Counting(4).runs(request(tmp_path, 0))[0]) == {}
    assert Counting(4).state(request(tmp_path, 0)) == "0/2"
