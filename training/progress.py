"""How a fit is watched: a bar on a terminal, a line every few seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from training import fitting
from training.fitting import Observer

SECONDS_BETWEEN_UPDATES = 0.2
SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_SWEEP_LINES = 60.0


@contextmanager
def watched(label: str, console: Console) -> Iterator[Observer]:
    """Yields an observer that shows how a fit goes on.

    Arguments:
        label: What is being fitted.
        console: Where to show it; whether it is a terminal decides how.
    """
    if console.is_terminal:
        columns = (
            BarColumn(bar_width=10),
            TextColumn("{task.percentage:>3.0f}% ETA"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[state]}"),
        )  # what matters fits 80 columns
        console.print(label, highlight=False, markup=False)
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(label, total=None, state="")

            def show(progress: fitting.Progress) -> None:
                bar.update(task, total=progress.steps, completed=progress.step, state=terms(progress))

            yield throttled(show, SECONDS_BETWEEN_UPDATES)
    else:
        first: tuple[float, int] | None = None  # when the first step was seen, and which

        def write(progress: fitting.Progress) -> None:
            nonlocal first
            now, left = time.monotonic(), "?"
            if first is None:
                first = (now, progress.step)
            elif progress.step > first[1]:
                seconds_per_step = (now - first[0]) / (progress.step - first[1])
                left = f"{seconds_per_step * (progress.steps - progress.step):.0f} s"
            console.print(f"{label}  {describe(progress)}  ETA {left}", soft_wrap=True, highlight=False, markup=False)

        yield throttled(write, SECONDS_BETWEEN_LINES)


@contextmanager
def counted(label: str, console: Console) -> Iterator[Callable[[int], None]]:
    """Yields a function that is told how many rows are done and shows it, now and then.

    Arguments:
        label: What is being done.
        console: Where to show it; on a terminal the line is gone in the end.
    """
    due = time.monotonic() + SECONDS_BETWEEN_LINES
    with Progress(
        TextColumn("{task.description}"), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(label, total=None)

        def show(rows: int) -> None:
            nonlocal due
            bar.update(task, description=f"{label}: {rows:,} rows")
            if not console.is_terminal and time.monotonic() >= due:
                due = time.monotonic() + SECONDS_BETWEEN_LINES
                console.print(f"{label}: {rows:,} rows", soft_wrap=True, highlight=False, markup=False)

        yield show


@contextmanager
def swept(label: str, weights: dict[str, float], console: Console) -> Iterator[Callable[[str, float], None]]:
    """Yields a function that takes a part's name and the share of it that is done, and shows how the whole goes on.

    Arguments:
        label: What is being done.
        weights: How long each part takes beside the others, in any unit.
        console: Where to show it; a bar on a terminal, a line now and then elsewhere.
    """
    done = dict.fromkeys(weights, 0.0)
    total = sum(weights.values())
    started = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[state]}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=total, state="")
        due = started + SECONDS_BETWEEN_SWEEP_LINES

        def report(part: str, share: float) -> None:
            nonlocal due
            done[part] = share
            completed = sum(weights[name] * share for name, share in done.items())
            now = time.monotonic()
            left = (now - started) * (total - completed) / completed if completed else float("nan")
            state = f"{completed / total:.1%}, ETA {timedelta(seconds=round(left)) if left == left else '?'}"
            bar.update(task, completed=completed, state=state)
            if not console.is_terminal and now >= due:
                due = now + SECONDS_BETWEEN_SWEEP_LINES
                console.print(f"{label} {state}", soft_wrap=True, highlight=False, markup=False)

        yield report


def describe(progress: fitting.Progress) -> str:
    """Says in one line where a fit stands."""
    return f"epoch {progress.epoch}/{progress.epochs}  {terms(progress)}"


def terms(progress: fitting.Progress) -> str:
    """Names the terms of the loss."""
    return "  ".join(f"{name} {value:.4g}" for name, value in progress.terms.items())


def throttled(show: Observer, seconds: float) -> Observer:
    """Returns an observer that passes the first step on, the last, and between them one every so many seconds."""
    due = 0.0

    def observe(progress: fitting.Progress) -> None:
        nonlocal due
        now = time.monotonic()
        if now >= due or progress.step == progress.steps:
            due = now + seconds
            show(progress)

    return observe


def standard_output() -> Console:
    """Returns a console on standard output."""
    return Console(file=sys.stdout)
