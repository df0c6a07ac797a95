"""The training loop: reproducible, resumable, and never silently wrong."""

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.conftest import small_job, small_table
from training.fitting import SMALLEST_BATCH, FitError, FitInterrupted, Progress, Run, batches, build, fit
from training.methods.radogaga import RaDOGAGA
from training.settings import Settings, named

SETTINGS = small_job(epochs=6).settings


@pytest.fixture(scope="module")
def x() -> Tensor:
    table = small_table()
    return torch.from_numpy(table.x[~table.y])


def fitted(x: Tensor, settings: Settings = SETTINGS, seed: int = 0) -> RaDOGAGA:
    method = build(x, settings, seed)
    fit(method, x, settings, seed)
    return method


def same(first: RaDOGAGA, second: RaDOGAGA) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return all(torch.equal(one[name], other[name]) for name in one)


class InterruptAt:
    """An observer that sends this process a signal at one step."""

    def __init__(self, step: int, number: int = signal.SIGINT) -> None:
        self.step, self.number, self.seen = step, number, 0

    def __call__(self, progress: Progress) -> None:
        self.seen = progress.step
        if progress.step == self.step:
            os.kill(os.getpid(), self.number)


def test_the_same_seed_gives_the_same_bits(x: Tensor) -> None:
    assert same(fitted(x), fitted(x))
    assert not same(fitted(x), fitted(x, seed=1))


def test_it_neither_reads_nor_moves_the_global_random_state(x: Tensor) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = fitted(x)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert same(first, fitted(x))


@pytest.mark.parametrize("recipe", ["faithful", "robust"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 12, 17])
def test_a_resumed_fit_equals_an_uninterrupted_one(
    x: Tensor, tmp_path: Path, recipe: str, number: int, step: int
) -> None:
    settings = named("thyroid", "log", recipe, overrides={"batch_size": 100, "epochs": 6})
    checkpoint = tmp_path / "deep" / "fit.pt"
    method = build(x, settings, 0)
    with pytest.raises(FitInterrupted, match=f"stopped after step {step} of 36"):
        fit(method, x, settings, 0, observer=InterruptAt(step, number), checkpoint=checkpoint)
    assert checkpoint.exists()
    resumed = build(x, settings, 0)
    seen = InterruptAt(0)
    fit(resumed, x, settings, 0, observer=seen, checkpoint=checkpoint, resume=True)
    assert seen.seen == 36
    assert same(resumed, fitted(x, settings))
    once_more = build(x, settings, 0)
    fit(
        once_more,
        x,
        settings,
        0,
        observer=lambda _: pytest.fail("no step was left"),
        checkpoint=checkpoint,
        resume=True,
    )
    assert same(resumed, once_more)


def test_a_signal_without_a_checkpoint_still_ends_the_fit(x: Tensor) -> None:
    with pytest.raises(FitInterrupted):
        fit(build(x, SETTINGS, 0), x, SETTINGS, 0, observer=InterruptAt(2))


def test_signal_handlers_are_put_back(x: Tensor) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    fitted(x)
    with pytest.raises(FitInterrupted):
        fit(build(x, SETTINGS, 0), x, SETTINGS, 0, observer=InterruptAt(2))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_it_runs_in_another_thread_too(x: Tensor) -> None:
    results: list[RaDOGAGA] = []
    thread = threading.Thread(target=lambda: results.append(fitted(x)))
    thread.start()
    thread.join()
    assert same(results[0], fitted(x))


def test_a_checkpoint_is_written_now_and_then(x: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.fitting.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    checkpoint = tmp_path / "fit.pt"
    seen: list[bool] = []
    fit(
        build(x, SETTINGS, 0),
        x,
        SETTINGS,
        0,
        observer=lambda _: seen.append(checkpoint.exists()),
        checkpoint=checkpoint,
    )
    assert seen == [False, *[True] * 35]
    assert torch.load(checkpoint, weights_only=True)["step"] == 36


def test_a_checkpoint_that_can_not_be_written(x: Tensor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    checkpoint = tmp_path / "file" / "fit.pt"
    with pytest.raises(
        FitError, match=r"after step 36: the checkpoint .* can't be written \(.*(Not a directory|File exists)"
    ):
        fit(build(x, SETTINGS, 0), x, SETTINGS, 0, checkpoint=checkpoint)


def test_a_checkpoint_from_before_a_setting_existed(x: Tensor, tmp_path: Path) -> None:
    checkpoint = tmp_path / "fit.pt"
    fit(build(x, SETTINGS, 0), x, SETTINGS, 0, checkpoint=checkpoint)
    state = torch.load(checkpoint, weights_only=True)
    del state["settings"]["gradient_norm"]
    torch.save(state, checkpoint)
    with pytest.raises(FitError, match=r"is of a fit with gradient_norm unset, asked for is 10000.0"):
        fit(build(x, SETTINGS, 0), x, SETTINGS, 0, checkpoint=checkpoint, resume=True)


def test_batches_too_small_for_a_mixture(x: Tensor) -> None:
    settings = replace(SETTINGS, batch_size=19)
    with pytest.raises(FitError, match="batch_size is 19, expected at least 20"):
        fit(build(x, settings, 0), x, settings, 0)


@pytest.mark.parametrize(
    ("settings", "seed", "message"),
    [
        (replace(SETTINGS, lambda1=7), 0, "is of a fit with lambda1 100, asked for is 7"),
        (replace(SETTINGS, epochs=7), 0, "is of a fit with epochs 6, asked for is 7"),
        (SETTINGS, 3, "is of a fit with seed 0, asked for is 3"),
    ],
)
def test_the_checkpoint_of_another_fit_is_refused(
    x: Tensor, tmp_path: Path, settings: Settings, seed: int, message: str
) -> None:
    checkpoint = tmp_path / "fit.pt"
    with pytest.raises(FitInterrupted):
        fit(build(x, SETTINGS, 0), x, SETTINGS, 0, observer=InterruptAt(2), checkpoint=checkpoint)
    with pytest.raises(FitError, match=message):
        fit(build(x, settings, seed), x, settings, seed, checkpoint=checkpoint, resume=True)
    with pytest.raises(FitError, match="is of a fit with rows 600, asked for is 500"):
        fit(build(x[:500], SETTINGS, 0), x[:500], SETTINGS, 0, checkpoint=checkpoint, resume=True)


def test_a_checkpoint_that_is_missing_or_damaged(x: Tensor, tmp_path: Path) -> None:
    checkpoint = tmp_path / "fit.pt"
    with pytest.raises(FitError, match="there is no checkpoint to resume at"):
        fit(build(x, SETTINGS, 0), x, SETTINGS, 0, checkpoint=checkpoint, resume=True)
    checkpoint.write_bytes(b"damaged")
    with pytest.raises(FitError, match=r"is not a checkpoint \(\w+Error\); delete it to start anew"):
        fit(build(x, SETTINGS, 0), x, SETTINGS, 0, checkpoint=checkpoint, resume=True)
    torch.save({"settings": {}}, checkpoint)
    with pytest.raises(FitError, match=r"is not a checkpoint \(method is missing\); delete it to start anew"):
        fit(build(x, SETTINGS, 0), x, SETTINGS, 0, checkpoint=checkpoint, resume=True)


def test_a_value_that_is_no_number_stops_the_fit_with_step_and_term(x: Tensor) -> None:
    broken = x.clone()
    broken[7, 2] = float("nan")
    method = build(x, SETTINGS, 0)
    with pytest.raises(FitError, match=r"step \d of 36 \(epoch 1\): .*(rate|singular)"):
        fit(method, broken, SETTINGS, 0)


def test_a_loss_that_overflows_stops_the_fit(x: Tensor) -> None:
    settings = replace(SETTINGS, lambda1=3e38, h="identity")
    with pytest.raises(FitError, match=r"step 1 of 36 \(epoch 1\): the distortion is inf, expected a finite number"):
        fit(build(x, settings, 0), x, settings, 0)


def test_a_singular_covariance_stops_the_fit(x: Tensor) -> None:
    flat = torch.ones_like(x)
    settings = replace(SETTINGS, variance_floor=0.0)
    message = r"step 1 of 36 \(epoch 1\): a covariance of the mixture is singular, variance_floor 0.0 is too small"
    with pytest.raises(FitError, match=message):
        fit(build(flat, settings, 0), flat, settings, 0)


def test_a_singular_covariance_at_the_end_stops_the_fit(x: Tensor) -> None:
    settings = replace(SETTINGS, variance_floor=0.0)
    run = Run(build(x, settings, 0), x, settings, 0)
    run.x = torch.ones_like(x)
    run.step = run.steps
    with pytest.raises(FitError, match="after step 36: a covariance over all training rows is singular"):
        run.finish()


def test_training_rows_without_a_score_stop_the_fit(x: Tensor) -> None:
    run = Run(build(x, SETTINGS, 0), x, SETTINGS, 0)
    run.step = run.steps
    run.method.scaler.width.fill_(1e-38)
    with pytest.raises(FitError, match=r"after step 36: (600 of 600 training rows have no finite score|a covariance)"):
        run.finish()


def test_too_few_rows(x: Tensor) -> None:
    with pytest.raises(FitError, match="19 training rows, expected at least 20"):
        fit(build(x, SETTINGS, 0), x[:19], SETTINGS, 0)


@pytest.mark.parametrize(
    ("rows", "size", "lengths"),
    [(100, 50, [50, 50]), (119, 50, [50, 69]), (120, 50, [50, 50, 20]), (30, 50, [30]), (50, 50, [50]), (51, 50, [51])],
)
def test_no_batch_is_too_small(rows: int, size: int, lengths: list[int]) -> None:
    cut = batches(rows, size)
    assert [part.stop - part.start for part in cut] == lengths
    assert all(length >= SMALLEST_BATCH for length in lengths)
    assert [cut[0].start, cut[-1].stop] == [0, rows]


@pytest.mark.parametrize("reshuffle", [False, True])
def test_every_epoch_sees_every_row_once(x: Tensor, reshuffle: bool) -> None:
    run = Run(build(x, SETTINGS, 0), x, replace(SETTINGS, reshuffle=reshuffle), 0)
    epochs = []
    for epoch in range(2):
        parts = []
        for position in range(len(run.batches)):
            run.step = epoch * len(run.batches) + position
            parts.append(run.batch())
        epochs.append(torch.cat(parts))
    assert torch.equal(epochs[0], epochs[1]) == (not reshuffle)
    for rows in epochs:
        assert not torch.equal(rows, x)
        assert torch.equal(rows.sort(dim=0).values, x.sort(dim=0).values)


def test_the_cosine_schedule_falls_to_zero(x: Tensor) -> None:
    run = Run(build(x, SETTINGS, 0), x, SETTINGS, 0)
    rates = []
    while run.step < run.steps:
        rates.append(run.optimizer.param_groups[0]["lr"])
        run.advance()
    assert rates[0] == SETTINGS.learning_rate
    assert rates == sorted(rates, reverse=True)
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0)


def test_gradients_are_clipped_to_the_norm(x: Tensor) -> None:
    run = Run(build(x, SETTINGS, 0), x, replace(SETTINGS, gradient_norm=1e-3), 0)
    run.advance()
    norms = [parameter.grad.norm() for parameter in run.method.parameters() if parameter.grad is not None]
    assert torch.stack(norms).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_progress_tells_the_terms_of_the_loss(x: Tensor) -> None:
    seen: list[Progress] = []
    fit(build(x, SETTINGS, 0), x, SETTINGS, 0, observer=seen.append)
    assert [progress.step for progress in seen] == list(range(1, 37))
    assert (seen[0].epoch, seen[-1].epoch, seen[-1].epochs) == (1, 6, 6)
    run = Run(build(x, SETTINGS, 0), x, SETTINGS, 0)
    torch.manual_seed(0)
    losses = run.method.losses(run.batch())
    assert seen[0].distortion == pytest.approx(losses.distortion.mean().item(), rel=1e-5)
    assert seen[0].rate == pytest.approx(losses.rate.mean().item(), rel=0.1)
