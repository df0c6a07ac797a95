"""Sweeps: many runs, those of one setting trained together, on several processes, to be interrupted and resumed."""

import hashlib
import json
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, Queue
from threading import Event

import torch
from rich.console import Console

from training.experiments.records import Metrics, append_record, missing, read_records, record_of
from training.fitting import Observer, Progress
from training.jobs import Job
from training.memory import keep_freed_memory
from training.progress import swept, throttled

Runner = Callable[[Sequence[Job], Observer, Path], list[Metrics]]
"""Does runs of one setting together, keeping its checkpoint at the path, and returns what each found."""

Done = tuple[list[Metrics], float]
"""What the runs of a group found, and the CPU seconds they took together."""

MEMBERS_AT_ONCE = {"kddcup99": 4, "kddcup-rev": 4}
"""How many models of a large table are stacked: few, for more would save little and take memory."""

MEMBERS_OF_SMALL_TABLES = 20
"""How many are stacked otherwise: many, so that they share a step's fixed costs."""

SECONDS_PER_EPOCH = {"thyroid": 2.5e-3, "arrhythmia": 1e-3, "kddcup99": 1.2, "kddcup-rev": 0.3}
"""What an epoch of one member takes, roughly, by which runs are weighed against each other."""

SECONDS_BETWEEN_REPORTS = 1.0


@dataclass(frozen=True)
class Group:
    """Runs that differ by their seeds alone and are trained together."""

    experiment: str
    jobs: list[Job]

    @property
    def label(self) -> str:
        """Names the group for people."""
        first, last = self.jobs[0], self.jobs[-1]
        seeds = f"seed {first.seed}" + (f" to {last.seed}" if len(self.jobs) > 1 else "")
        overrides = "".join(f" {name} {value}" for name, value in first.overrides.items())
        return f"{first.dataset} {first.method} {first.h} {first.recipe}{overrides} {seeds}"

    @property
    def name(self) -> str:
        """Tells the group from every other."""
        seeds = [job.seed for job in self.jobs]
        text = json.dumps([self.experiment, self.label, seeds, self.jobs[0].settings.to_json()])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def checkpoint(self, folder: Path) -> Path:
        """Returns where its unfinished fit is kept."""
        return folder / f"{self.name}.pt"

    @property
    def weight(self) -> float:
        """How long it takes beside other groups, roughly."""
        settings, dataset = self.jobs[0].settings, self.jobs[0].dataset
        return len(self.jobs) * settings.members * settings.epochs * SECONDS_PER_EPOCH.get(dataset, 1.0)


def grouped(experiment: str, jobs: Sequence[Job]) -> list[Group]:
    """Puts runs that differ by their seeds alone into groups of as many as are best trained together."""
    groups: list[Group] = []
    latest: dict[str, Group] = {}
    for job in jobs:
        most = MEMBERS_AT_ONCE.get(job.dataset, MEMBERS_OF_SMALL_TABLES)
        setting = json.dumps([job.dataset, job.method, job.recipe, job.protocol, job.settings.to_json()])
        if setting not in latest or (len(latest[setting].jobs) + 1) * job.settings.members > most:
            latest[setting] = Group(experiment, [])
            groups.append(latest[setting])
        latest[setting].jobs.append(job)
    return groups


def sweep(
    experiment: str, wanted: Sequence[Job], runner: Runner, path: Path, console: Console, workers: int = 1
) -> None:
    """Does what is not in the file yet, adding a line for each run when its group is done.

    Arguments:
        experiment: The name of the experiment.
        wanted: The runs.
        runner: Does a group of runs; with several workers it has to be importable by its name.
        path: The file of JSON lines; checkpoints of unfinished groups are kept in a folder beside it.
        console: Where to show how it goes on.
        workers: The number of processes; with 1 it all happens in this one.

    Raises:
        ResultsError: A line of the file can't be read.
        FitInterrupted: A signal asked the sweep to stop.
    """
    groups = grouped(experiment, missing(experiment, wanted, read_records(path)))
    folder = path.parent / ".unfinished"
    with swept(experiment, {group.name: group.weight for group in groups}, console) as report:

        def keep(group: Group, done: Done) -> None:
            found, seconds = done
            for job, metrics in zip(group.jobs, found, strict=True):
                append_record(path, record_of(experiment, job, job.settings.to_json(), metrics, seconds / len(found)))
            for left in (group.checkpoint(folder), group.checkpoint(folder).with_suffix(".seconds")):
                left.unlink(missing_ok=True)
            f1 = [metrics["f1"] for metrics in found if "f1" in metrics]
            worth = f": F1 {sum(f1) / len(f1):.4f}" if f1 else ""
            console.print(f"{group.label}{worth}, {seconds:.0f} s", highlight=False, markup=False, soft_wrap=True)

        do = in_turn if workers == 1 else partial(in_parallel, workers=workers)
        do(groups, runner, folder, report, keep)


Report = Callable[[str, float], None]
"""Takes a group's name and the share of it that is done."""

Keep = Callable[[Group, Done], None]
"""Takes a group and what it found, once it is done."""


def work_on(group: Group, runner: Runner, folder: Path, observer: Observer) -> Done:
    """Does a group of runs in this process; its CPU time counts what it took before it was interrupted."""
    checkpoint = group.checkpoint(folder)
    clock = checkpoint.with_suffix(".seconds")
    before = float(clock.read_text()) if checkpoint.exists() and clock.exists() else 0.0
    started = time.process_time()
    try:
        found = runner(group.jobs, observer, checkpoint)
    except BaseException:
        if checkpoint.exists():
            clock.write_text(str(before + time.process_time() - started))
        raise
    return found, before + time.process_time() - started


def in_turn(groups: Sequence[Group], runner: Runner, folder: Path, report: Report, keep: Keep) -> None:
    """Does one group after the other."""
    for group in groups:

        def observe(progress: Progress, name: str = group.name) -> None:
            report(name, progress.step / progress.steps)

        keep(group, work_on(group, runner, folder, throttled(observe, SECONDS_BETWEEN_REPORTS)))


def in_parallel(
    groups: Sequence[Group], runner: Runner, folder: Path, report: Report, keep: Keep, workers: int
) -> None:
    """Does groups in processes of their own, so many at a time."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(workers, context, prepare_worker) as pool:
        reports, stop = manager.Queue(), manager.Event()
        futures = {pool.submit(work_in_process, group, runner, folder, reports, stop): group for group in groups}
        try:
            while futures:
                for future in wait(futures, timeout=0.5, return_when=FIRST_COMPLETED).done:
                    keep(futures[future], future.result())
                    del futures[future]
                for name, share in drained(reports):
                    report(name, share)
        except BaseException:  # a signal, or a group that failed: the others keep what they have, done or not
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            for future, group in futures.items():
                if not future.cancelled() and future.exception() is None:
                    keep(group, future.result())
            raise


def prepare_worker() -> None:
    """Sets a process up as the command line does; Ctrl-C, which reaches all processes, is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    keep_freed_memory()


def work_in_process(
    group: Group, runner: Runner, folder: Path, reports: "Queue[tuple[str, float]]", stop: Event
) -> Done:
    """Does a group of runs in a worker, until it is done or asked to stop."""

    def observe(progress: Progress) -> None:
        reports.put((group.name, progress.step / progress.steps))
        if stop.is_set():
            signal.raise_signal(signal.SIGTERM)  # which the fit takes as the request to leave a checkpoint and end

    return work_on(group, runner, folder, throttled(observe, SECONDS_BETWEEN_REPORTS))


def drained(queue: "Queue[tuple[str, float]]") -> list[tuple[str, float]]:
    """Takes all that a queue holds."""
    taken = []
    while True:
        try:
            taken.append(queue.get_nowait())
        except Empty:
            return taken
