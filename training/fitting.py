"""The only training loop: it can be watched, interrupted and resumed, and it stops rather than go wrong."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from training.methods.base import Losses, Method
from training.methods.radogaga import RaDOGAGA
from training.preprocessing import MinMax
from training.settings import Settings

SMALLEST_BATCH = 20
"""A remainder of fewer rows joins the batch before it: a mixture of so few rows means nothing."""

SECONDS_BETWEEN_CHECKPOINTS = 60.0

CHECKPOINT_KEYS = {"settings", "seed", "rows", "step", "method", "optimizer", "schedule", "rng"}

SCALERS = {"feature": MinMax.per_feature, "table": MinMax.whole_table}


class FitError(Exception):
    """A fit can't start or go on; the text says what happened and at which step."""


class FitInterrupted(Exception):
    """A fit was asked to stop, and has left a checkpoint if it was given a place for one."""


@dataclass(frozen=True)
class Progress:
    """Where a fit stands: the step just taken, and the means over its batch of the three terms of the loss."""

    step: int
    steps: int
    epoch: int
    epochs: int
    rate: float
    distortion: float
    perturbation: float


Observer = Callable[[Progress], None]


def build(x: Tensor, settings: Settings, seed: int) -> RaDOGAGA:
    """Creates an untrained model for the training rows `x` (N, M), its weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RaDOGAGA(SCALERS[settings.scaling](x), settings)


def fit(
    method: Method,
    x: Tensor,
    settings: Settings,
    seed: int,
    *,
    observer: Observer | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> None:
    """Trains `method` on rows of shape (N, M), then freezes its density over all of them.

    The first SIGINT or SIGTERM ends the fit after the step under way and leaves a checkpoint; a resumed fit
    gives the same result as one that was never interrupted.

    Arguments:
        method: The model, as `build` made it from the same rows, settings and seed.
        x: Raw training rows, normal ones only.
        settings: What to do.
        seed: The seed of batches, noise and dropout.
        observer: Called after each step.
        checkpoint: Where the fit is kept when it is interrupted, now and then before, and when all steps are done, so
            that what comes after may fail without losing it; whoever has used the model removes it.
        resume: Whether to go on from `checkpoint`.

    Raises:
        FitError: There are too few rows, the checkpoint can't be written or belongs to another fit, a loss is not
            finite, or a covariance is singular.
        FitInterrupted: A signal asked the fit to stop.
    """
    with torch.random.fork_rng(devices=[]), deferred_interrupt() as interrupted:
        torch.manual_seed(seed)
        run = Run(method, x, settings, seed)
        if resume:
            run.load(checkpoint)
        saved = time.monotonic()
        while run.step < run.steps:
            progress = run.advance()
            if observer:
                observer(progress)
            due = run.step == run.steps or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS
            if checkpoint and (due or interrupted.is_set()):
                run.save(checkpoint)
                saved = time.monotonic()
            if interrupted.is_set():
                raise FitInterrupted(f"stopped after step {run.step} of {run.steps}")
        run.finish()


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


class Run:
    """A fit under way: the model, its optimiser, and all that must be kept to go on with it later."""

    def __init__(self, method: Method, x: Tensor, settings: Settings, seed: int) -> None:
        if len(x) < SMALLEST_BATCH:
            raise FitError(f"{len(x)} training rows, expected at least {SMALLEST_BATCH}")
        if settings.batch_size < SMALLEST_BATCH:
            raise FitError(f"batch_size is {settings.batch_size}, expected at least {SMALLEST_BATCH}")
        self.method = method.train()
        self.x = x
        self.settings = settings
        self.seed = seed
        self.batches = batches(len(x), settings.batch_size)
        self.steps = settings.epochs * len(self.batches)
        self.step = 0
        self.optimizer = torch.optim.Adam(method.parameters(), lr=settings.learning_rate, fused=True)
        self.schedule: LRScheduler | None = None
        if settings.schedule == "cosine":
            self.schedule = CosineAnnealingLR(self.optimizer, T_max=self.steps)
        self.order = torch.empty(0, dtype=torch.int64)
        self.order_of: int | None = None

    def batch(self) -> Tensor:
        """Returns the rows of the step to come."""
        epoch, position = divmod(self.step, len(self.batches))
        wanted = epoch if self.settings.reshuffle else 0
        if self.order_of != wanted:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + wanted)
            self.order, self.order_of = torch.randperm(len(self.x), generator=generator), wanted
        return self.x[self.order[self.batches[position]]]

    def advance(self) -> Progress:
        """Takes one optimiser step and tells its losses."""
        try:
            losses = self.method.losses(self.batch())
        except LinAlgError as error:
            raise FitError(
                f"{self.where}: a covariance of the mixture is singular, variance_floor"
                f" {self.settings.variance_floor} is too small for this table ({error})"
            ) from error
        progress = self.progress(losses)
        self.optimizer.zero_grad()
        losses.total.backward()  # type: ignore[no-untyped-call]
        if self.settings.gradient_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.method.parameters(), self.settings.gradient_norm)
        self.optimizer.step()
        if self.schedule:
            self.schedule.step()
        self.step += 1
        return progress

    @property
    def where(self) -> str:
        """Names the step to come, for messages."""
        return f"step {self.step + 1} of {self.steps} (epoch {self.step // len(self.batches) + 1})"

    def progress(self, losses: Losses) -> Progress:
        """Reads the losses of the step to come, and refuses those that are not finite."""
        rate, distortion, perturbation = torch.stack([term.detach().double().mean() for term in losses]).tolist()
        for name, value in zip(Losses._fields, (rate, distortion, perturbation), strict=True):
            if not abs(value) < float("inf"):
                raise FitError(f"{self.where}: the {name} is {value}, expected a finite number")
        return Progress(
            step=self.step + 1,
            steps=self.steps,
            epoch=self.step // len(self.batches) + 1,
            epochs=self.settings.epochs,
            rate=rate,
            distortion=distortion,
            perturbation=perturbation,
        )

    def finish(self) -> None:
        """Freezes the density and checks that all training rows have a score."""
        try:
            self.method.fit_density(self.x)
        except LinAlgError as error:
            raise FitError(
                f"after step {self.steps}: a covariance over all training rows is singular ({error})"
            ) from error
        with torch.no_grad():
            scores = self.method.score(self.x)
        if not scores.isfinite().all():
            count = int((~scores.isfinite()).sum())
            raise FitError(f"after step {self.steps}: {count} of {len(scores)} training rows have no finite score")

    def save(self, path: Path) -> None:
        """Writes the checkpoint, whole or not at all.

        Raises:
            FitError: The disk is full, or the folder can't be written.
        """
        state = {
            "settings": self.settings.to_json(),
            "seed": self.seed,
            "rows": len(self.x),
            "step": self.step,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule else None,
            "rng": torch.get_rng_state(),
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
        mine = {**self.settings.to_json(), "seed": self.seed, "rows": len(self.x)}
        theirs = {**state["settings"], "seed": state["seed"], "rows": state["rows"]}
        for name, value in mine.items():
            if name not in theirs or theirs[name] != value:
                found = theirs.get(name, "unset")
                raise FitError(f"the checkpoint {path} is of a fit with {name} {found}, asked for is {value}")
        self.step = state["step"]
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["rng"])
