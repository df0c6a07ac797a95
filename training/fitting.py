"""The only training loop: it can be watched, interrupted and resumed, and it stops rather than go wrong."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from types import FrameType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.linalg import LinAlgError  # type: ignore[attr-defined]
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from training.draws import Draws
from training.methods.base import Method, by_parts
from training.methods.stacking import stack, unstack
from training.settings import FitSettings

SMALLEST_BATCH = 20
"""A remainder of fewer rows joins the batch before it: a mixture of so few rows means nothing."""

SECONDS_BETWEEN_CHECKPOINTS = 60.0

CHECKPOINT_KEYS = {"fit", "step", "failures", "weights", "average", "optimizer", "schedule", "draws", "stopping"}
WATCHED = ("least", "waited", "first", "first_losses", "best", "best_losses")


class FitError(Exception):
    """A fit can't start or go on; the text says what happened and at which step."""


class FitInterrupted(Exception):
    """A fit was asked to stop, and has left a checkpoint if it was given a place for one."""


@dataclass(frozen=True)
class Progress:
    """Where a fit stands: the step just taken, and each term of the loss, its mean over batch and members.

    `held_out` is the loss of held-out rows, its mean over members, if they were looked at behind this step.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    terms: dict[str, float]
    held_out: float | None = None


Observer = Callable[[Progress], None]

Failures = dict[int, FitError]
"""What went wrong, by the index of the member it went wrong for."""


M = TypeVar("M", bound=Method)


@dataclass(frozen=True)
class Member(Generic[M]):
    """One of the models that are fitted together.

    Attributes:
        method: The model, untrained.
        rows: Indices (N,) of its training rows in the table; every member has as many.
        seed: The seed of its batches, noise and dropout.
        held_out: Indices (H,) of rows that tell when to stop, if the fit is to be stopped; every member has as many.
    """

    method: M
    rows: Tensor
    seed: int
    held_out: Tensor | None = None


@dataclass(frozen=True)
class Stopping:
    """When a fit ends before its last epoch: once the loss of rows that are held out has not fallen for a while.

    The weights are then those with the least loss of held-out rows.

    Attributes:
        every: Steps between two looks at the held-out rows.
        patience: Looks without a lower loss after which a member is done; the fit ends with its last member.
        least: By how much, in nats per row, a loss has to be lower to be so.
        errors: By how many standard errors of that difference the loss has to be lower in the end than it was at first;
            if it isn't, the weights stay what they were at first. With few held-out rows a fit that is worse than its
            start may look better than it.
    """

    every: int
    patience: int
    least: float = 1e-3
    errors: float = 0.0


def fit(
    members: Sequence[Member[M]],
    x: Tensor,
    settings: FitSettings,
    *,
    stopping: Stopping | None = None,
    observer: Observer | None = None,
    look: Callable[[M, Progress], None] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    deadline: float = math.inf,
) -> Failures:
    """Trains models together, stacked along a leading axis, then freezes the density of each over all its rows.

    A member gives the same result alone and among others, but for rounding. One whose loss is not finite is left as
    it is, and the others go on. The first SIGINT or SIGTERM ends the fit after the step under way and leaves a
    checkpoint; a resumed fit gives the same result as one that was never interrupted.

    Arguments:
        members: What to train; the models are changed in place.
        x: A table of raw rows (R, M), from which each member takes its own.
        settings: What to do.
        stopping: When to end before the last epoch; every member then has held-out rows.
        observer: Called after each step.
        look: Called after each step with the stacked models as they are then, which it leaves as they are.
        checkpoint: Where the fit is kept when it is interrupted, now and then before, and when all steps are done, so
            that what comes after may fail without losing it; whoever has used the models removes it. If all members
            have failed, none stays.
        resume: Whether to go on from `checkpoint`.
        deadline: When to stop as a signal would do it, by `time.monotonic`; a new fit takes a step all the same.

    Returns:
        What went wrong for single members: a loss that is not finite, or a covariance that is singular.

    Raises:
        FitError: There are too few rows, or the checkpoint can't be written or belongs to another fit.
        FitInterrupted: A signal asked the fit to stop, or the deadline has come.
    """
    with deferred_interrupt() as interrupted:
        run = Run(members, x, settings, stopping)
        if resume:
            run.load(checkpoint)
            if time.monotonic() >= deadline and not run.done:
                raise FitInterrupted(f"stopped at step {run.step} of {run.steps}")
        saved = time.monotonic()
        while not run.done:
            progress = run.advance()
            if observer:
                observer(progress)
            if look:
                look(run.method, progress)
            due = run.done or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS
            ended = interrupted.is_set() or (time.monotonic() >= deadline and not run.done)
            if checkpoint and (due or ended):
                run.save(checkpoint)
                saved = time.monotonic()
            if ended:
                raise FitInterrupted(f"stopped after step {run.step} of {run.steps}")
        failures = run.finish()
        if checkpoint and len(failures) == len(members):
            checkpoint.unlink(missing_ok=True)  # nothing is left to go on with
        return failures


def unfinished(members: Sequence[Member[M]], x: Tensor, settings: FitSettings, checkpoint: Path) -> int:
    """Gives models the weights that a fit has come to so far, in their frozen dtype, and returns its step.

    Nothing is averaged, and no density is computed.

    Arguments:
        members: The models of the fit, which are changed in place.
        x: The table of the fit.
        settings: Those of the fit.
        checkpoint: Where the fit was kept.

    Raises:
        FitError: There is no checkpoint, it can't be read, or it belongs to another fit.
    """
    run = Run(members, x, settings)
    run.load(checkpoint)
    unstack(run.method, [member.method for member in members])
    for member in members:
        member.method.to(member.method.frozen_dtype)
    return run.step


@contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """Turns the first SIGINT or SIGTERM into an event, so that no step is left half done; the second acts at once."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted  # signals reach the main thread only
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def note(_: int, __: FrameType | None) -> None:
        interrupted.set()
        restore()

    for number in previous:
        signal.signal(number, note)
    try:
        yield interrupted
    finally:
        restore()


def batches(rows: int, size: int) -> list[slice]:
    """Cuts `rows` shuffled rows into batches of `size`; the last takes the remainder, or a small one in addition."""
    starts = list(range(0, rows, size))
    if len(starts) > 1 and rows - starts[-1] < SMALLEST_BATCH:
        starts.pop()
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], rows], strict=True)]


class Run(Generic[M]):
    """A fit under way: the stacked models, their optimiser, and all that must be kept to go on with it later."""

    def __init__(
        self, members: Sequence[Member[M]], x: Tensor, settings: FitSettings, stopping: Stopping | None = None
    ) -> None:
        rows = len(members[0].rows)
        if rows < SMALLEST_BATCH:
            raise FitError(f"{rows} training rows, expected at least {SMALLEST_BATCH}")
        if settings.batch_size < SMALLEST_BATCH:
            raise FitError(f"batch_size is {settings.batch_size}, expected at least {SMALLEST_BATCH}")
        self.members = members
        self.method = stack([member.method for member in members])
        self.x = x
        self.rows = torch.stack([member.rows for member in members])
        self.settings = settings
        self.batches = batches(rows, settings.batch_size)
        self.steps = settings.epochs * len(self.batches)
        self.step = 0
        self.failures: Failures = {}
        self.draws = Draws([member.seed for member in members])
        self.parameters = list(self.method.parameters())
        self.weights = flattened(self.parameters)
        self.optimizer = torch.optim.Adam([self.weights], lr=settings.learning_rate, fused=True)
        self.schedule: LRScheduler | None = None
        if settings.schedule == "cosine":
            self.schedule = CosineAnnealingLR(self.optimizer, T_max=self.steps)
        self.average_from = self.steps - round(settings.averaging * self.steps)
        self.average = self.weights.detach().clone()
        self.order = torch.empty(0, dtype=torch.int64)
        self.order_of: int | None = None
        self.watch = Watch(members, x, stopping) if stopping else None
        if self.watch:
            self.watch.look(self.method, self.weights)

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do: all steps are taken, or all members have failed or come to rest."""
        at_rest = self.watch.at_rest if self.watch else set()
        return self.step >= self.steps or len(self.failures.keys() | at_rest) == len(self.members)

    def batch(self) -> Tensor:
        """Returns each member's rows (S, N, M) for the step to come, rows last in memory, as layers want them."""
        epoch, position = divmod(self.step, len(self.batches))
        wanted, rows = (epoch if self.settings.reshuffle else 0), self.rows.shape[1]
        if self.order_of != wanted:
            self.order = self.rows.gather(1, torch.stack([permutation(m.seed, wanted, rows) for m in self.members]))
            self.order_of = wanted
        order = self.order[:, self.batches[position]]
        x = self.x.index_select(0, order.flatten())  # several times as fast as self.x[order]
        return x.view(*order.shape, -1).mT.contiguous().mT

    def advance(self) -> Progress:
        """Takes one optimiser step and tells its losses."""
        losses = self.method.losses(self.batch(), self.draws)
        means = torch.stack([term.mean(dim=-1) for term in losses.values()])
        gradients = torch.autograd.grad(means.sum(), self.parameters)
        progress = self.progress(dict(zip(losses, means.tolist(), strict=True)))
        gradient = torch.cat([own.flatten(1) for own in gradients], dim=1)
        if self.settings.gradient_norm is not None:
            gradient.mul_((self.settings.gradient_norm / gradient.norm(dim=1, keepdim=True)).clamp_max_(1.0))
        self.weights.grad = gradient
        self.optimizer.step()
        if self.schedule:
            self.schedule.step()
        self.step += 1
        if self.step > self.average_from:
            self.average.lerp_(self.weights.detach(), 1 / (self.step - self.average_from))
        if self.watch and self.step % self.watch.stopping.every == 0:
            return replace(progress, held_out=float(self.watch.look(self.method, self.weights).mean()))
        return progress

    @property
    def where(self) -> str:
        """Names the step to come, for messages."""
        return f"step {self.step + 1} of {self.steps} (epoch {self.step // len(self.batches) + 1})"

    def progress(self, losses: dict[str, list[float]]) -> Progress:
        """Reads each member's losses of the step to come, and notes whose are not finite."""
        for name, values in losses.items():
            for member, value in enumerate(values):
                if not math.isfinite(value) and member not in self.failures:
                    text = f"{self.where}: the {name} is {value}, expected a finite number"
                    self.failures[member] = FitError(text + self.method.advice(name))
        alive = [member for member in range(len(self.members)) if member not in self.failures]
        return Progress(
            step=self.step + 1,
            steps=self.steps,
            epoch=self.step // len(self.batches) + 1,
            epochs=self.settings.epochs,
            terms={name: fmean([values[member] for member in alive] or [math.nan]) for name, values in losses.items()},
        )

    def finish(self) -> Failures:
        """Hands the weights back to the members, freezes their densities and checks that all rows have a score."""
        with torch.no_grad():
            if self.watch:
                self.weights.copy_(self.watch.chosen())
            elif self.settings.averaging > 0:
                self.weights.copy_(self.average)
        unstack(self.method, [member.method for member in self.members])
        for index, member in enumerate(self.members):
            if index not in self.failures:
                try:
                    self.freeze(member)
                except FitError as error:
                    self.failures[index] = error
        return self.failures

    def freeze(self, member: Member[M]) -> None:
        """Freezes a member: computes its density over all its rows, also held-out ones, and scores them.

        Raises:
            FitError: A covariance is singular, or a row has no finite score.
        """
        x = self.x[member.rows if member.held_out is None else torch.cat([member.rows, member.held_out])]
        try:
            member.method.to(member.method.frozen_dtype).fit_density(x)
        except LinAlgError as error:
            raise FitError(
                f"after step {self.steps}: a covariance over all training rows is singular ({error})"
            ) from error
        with torch.no_grad():
            scores = by_parts(member.method.score, x, rows_at_once=member.method.rows_at_once)
        if not scores.isfinite().all():
            count = int((~scores.isfinite()).sum())
            raise FitError(f"after step {self.steps}: {count} of {len(scores)} training rows have no finite score")

    def identity(self) -> dict[str, Any]:
        """Returns what a checkpoint must have in common with the fit that goes on from it."""
        first = self.members[0]
        return {
            "method": type(first.method).__name__,
            "draws": self.draws.kind,
            **self.settings.to_json(),
            "seed": [member.seed for member in self.members],
            "rows": len(first.rows),
            "stopping": repr(self.watch.stopping) if self.watch else None,
        }

    def save(self, path: Path) -> None:
        """Writes the checkpoint, whole or not at all.

        Raises:
            FitError: The disk is full, or the folder can't be written.
        """
        state = {
            "fit": self.identity(),
            "step": self.step,
            "failures": {member: str(error) for member, error in self.failures.items()},
            "weights": self.weights.detach(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule else None,
            "draws": self.draws.state(),
            "stopping": self.watch.state() if self.watch else None,
        }
        part = path.with_suffix(".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, part)
            part.replace(path)
        except (OSError, RuntimeError) as error:  # torch raises the latter on a full disk
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise FitError(f"after step {self.step}: the checkpoint {path} can't be written ({error})") from error

    def load(self, path: Path | None) -> None:
        """Goes back to where the checkpoint was written.

        Raises:
            FitError: There is no checkpoint, it can't be read, or it belongs to another fit.
        """
        if path is None or not path.exists():
            raise FitError(f"there is no checkpoint to resume at {path}")
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True)
            missing = CHECKPOINT_KEYS - state.keys()
        except Exception as error:  # what torch raises on a damaged file has no common base but this
            raise FitError(f"{path} is not a checkpoint ({type(error).__name__}); delete it to start anew") from error
        if missing:
            raise FitError(f"{path} is not a checkpoint ({min(missing)} is missing); delete it to start anew")
        for name, value in self.identity().items():
            found = state["fit"].get(name, "unset")
            if found != value:
                raise FitError(f"the checkpoint {path} is of a fit with {name} {found}, asked for is {value}")
        self.step = state["step"]
        self.failures = {member: FitError(text) for member, text in state["failures"].items()}
        with torch.no_grad():
            self.weights.copy_(state["weights"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        self.draws.restore(state["draws"])
        if self.watch:
            self.watch.restore(state["stopping"])


class Watch(Generic[M]):
    """Looks now and then what rows cost that no member is trained on, and keeps each member's best weights."""

    def __init__(self, members: Sequence[Member[M]], x: Tensor, stopping: Stopping) -> None:
        rows = [member.held_out for member in members if member.held_out is not None]
        if len(rows) < len(members) or not len(rows[0]):
            raise FitError("there are no held-out rows, expected some to tell when to stop")
        self.stopping = stopping
        self.seeds = [member.seed for member in members]
        self.x = torch.stack([x[own] for own in rows]).mT.contiguous().mT
        self.least = torch.full((len(members),), math.inf)
        self.waited = torch.zeros(len(members), dtype=torch.int64)
        self.first = self.best = torch.empty(0)
        self.first_losses = self.best_losses = torch.empty(0)

    @property
    def at_rest(self) -> set[int]:
        """The members whose loss has not fallen for as long as the patience lasts."""
        return set(torch.nonzero(self.waited >= self.stopping.patience).flatten().tolist())

    @torch.no_grad()
    def look(self, method: M, weights: Tensor) -> Tensor:
        """Compares the present weights (S, P) with the best of each member, and returns their losses (S,).

        The noise is the same every time.
        """
        losses = torch.stack(list(method.losses(self.x, Draws(self.seeds)).values())).sum(dim=0)
        found = losses.mean(dim=-1).to(self.least.dtype)
        lower = found < self.least - self.stopping.least
        if not len(self.first):
            self.first = self.best = weights.detach().clone()
            self.first_losses = self.best_losses = losses
        self.best = torch.where(lower[:, None], weights.detach(), self.best)
        self.best_losses = torch.where(lower[:, None], losses, self.best_losses)
        self.least = torch.where(lower, found, self.least)
        self.waited = torch.where(lower, 0, self.waited + 1)
        return found

    def chosen(self) -> Tensor:
        """Returns each member's best weights (S, P), or its first ones where those are not better by enough."""
        gains = self.first_losses - self.best_losses
        enough = self.stopping.errors * gains.std(dim=-1) / math.sqrt(gains.shape[-1])
        return torch.where((gains.mean(dim=-1) > enough)[:, None], self.best, self.first)

    def state(self) -> dict[str, Tensor]:
        """Returns what `restore` takes to go on from here."""
        return {name: getattr(self, name) for name in WATCHED}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Goes back to where `state` was taken."""
        for name in WATCHED:
            setattr(self, name, state[name])


def permutation(seed: int, epoch: int, rows: int) -> Tensor:
    """Returns the order (N,) in which an epoch of a member takes its rows."""
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def flattened(parameters: Sequence[nn.Parameter]) -> nn.Parameter:
    """Moves stacked parameters (S, ...) into one (S, P), of which they are views from then on.

    An optimiser then takes one step in place of one for each of them.
    """
    flat = nn.Parameter(torch.cat([parameter.detach().flatten(1) for parameter in parameters], dim=1))
    widths = [parameter[0].numel() for parameter in parameters]
    for parameter, part in zip(parameters, torch.split(flat.detach(), widths, dim=1), strict=True):
        parameter.data = part.view(parameter.shape)
    return flat
