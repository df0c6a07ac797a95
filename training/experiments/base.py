"""What every experiment offers: to say how much of it is done, to do the rest, and to write its part of the page."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from training.experiments.records import missing, read_records
from training.experiments.results import ResultsError, lines_file
from training.experiments.sweep import Runner, sweep
from training.jobs import Job


@dataclass(frozen=True)
class Request:
    """What is asked of an experiment; those without datasets, recipes or seeds pay no heed to them.

    Attributes:
        datasets: The names of the datasets.
        recipes: The names of the recipes; None asks for the experiment's own.
        seeds: The seeds.
        workers: The number of processes.
        docs: The folder of results.md.
        deadline: When fits of images stop, by `time.monotonic`; they go on with the next request.
    """

    datasets: Sequence[str]
    recipes: Sequence[str] | None
    seeds: Sequence[int]
    workers: int
    docs: Path
    deadline: float = math.inf


class Experiment(ABC):
    """An experiment, which keeps its results as JSON lines in docs/results/ and never does a run twice.

    Attributes:
        name: Its name on the command line and in the lines.
        summary: What it regenerates, in a few words.
        only_by_name: Whether it is run only if it is asked for: it takes hours, or data that can't be downloaded.
    """

    name: str
    summary: str
    only_by_name: bool = False

    @abstractmethod
    def state(self, request: Request) -> str:
        """Says how much of what is asked for is done, such as 20/40."""

    @abstractmethod
    def reproduce(self, request: Request, console: Console) -> None:
        """Does what is missing of what is asked for."""

    @abstractmethod
    def render(self, docs: Path) -> str:
        """Writes its part of the page in Markdown, from the lines alone, and draws its figures if it has any."""


class Sweep(Experiment):
    """An experiment whose runs are fits by name."""

    @abstractmethod
    def jobs(self, request: Request) -> list[Job]:
        """Lists the runs that are asked for."""

    @property
    @abstractmethod
    def runner(self) -> Runner:
        """What does a group of them; importable by its name."""

    def state(self, request: Request) -> str:
        wanted = self.jobs(request)
        left = missing(self.name, wanted, read_records(lines_file(request.docs, self.name)))
        return f"{len(wanted) - len(left)}/{len(wanted)}"

    def reproduce(self, request: Request, console: Console) -> None:
        wanted = self.jobs(request)
        if not wanted:
            recipes = ", ".join(request.recipes or ())
            raise ResultsError(f"{self.name} has no run with recipes {recipes} on {', '.join(request.datasets)}")
        sweep(self.name, wanted, self.runner, lines_file(request.docs, self.name), console, request.workers)
