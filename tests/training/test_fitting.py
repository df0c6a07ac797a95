"""The training loop: reproducible, resumable, and never silently wrong."""

import os
import re
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.conftest import fit_alone, small_job, small_rows
from training.fitting import (
    FitError,
    FitInterrupted,
    Member,
    Progress,
    Run,
    Stopping,
    fit,
    flattened,
)
from training.jobs import build
from training.methods.mixture_autoencoder import MixtureAutoencoder
from training.settings import Settings, named

SETTINGS = small_job(epochs=6).settings


@pytest.fixture(scope="module")
def x() -> Tensor:
    return small_rows()


def member(x: Tensor, settings: Settings = SETTINGS, seed: int = 0) -> Member[MixtureAutoencoder]:
    return Member(build("RaDOGAGA", x, settings, seed), torch.arange(len(x)), seed)


def same(first: MixtureAutoencoder, second: MixtureAutoencoder) -> bool:
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
    assert same(fit_alone(x, SETTINGS), fit_alone(x, SETTINGS))
    assert not same(fit_alone(x, SETTINGS), fit_alone(x, SETTINGS, 1))


def test_it_neither_reads_nor_moves_the_global_random_state(x: Tensor) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = fit_alone(x, SETTINGS)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert same(first, fit_alone(x, SETTINGS))


@pytest.mark.parametrize("recipe", ["faithful", "robust"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 12, 17])
def test_a_resumed_fit_equals_an_uninterrupted_one(
    x: Tensor, tmp_path: Path, recipe: str, number: int, step: int
) -> None:
    settings = named("thyroid", "RaDOGAGA", "log", recipe, overrides={"batch_size": 100, "epochs": 6})
    checkpoint = tmp_path / "deep" / "fit.pt"
    with pytest.raises(FitInterrupted, match=f"stopped after step {step} of 36"):
        fit([member(x, settings)], x, settings, observer=InterruptAt(step, number), checkpoint=checkpoint)
    assert checkpoint.exists()
    resumed = member(x, settings)
    seen = InterruptAt(0)
    fit([resumed], x, settings, observer=seen, checkpoint=checkpoint, resume=True)
    assert seen.seen == 36
    assert same(resumed.method, fit_alone(x, settings))
    once_more = member(x, settings)
    fit(
        [once_more],
        x,
        settings,
        observer=lambda _: pytest.fail("no step was left"),
        checkpoint=checkpoint,
        resume=True,
    )
    assert same(resumed.method, once_more.method)


def test_a_signal_without_a_checkpoint_still_ends_the_fit(x: Tensor) -> None:
    with pytest.raises(FitInterrupted):
        fit([member(x)], x, SETTINGS, observer=InterruptAt(2))


def test_signal_handlers_are_put_back(x: Tensor) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    fit_alone(x, SETTINGS)
    with pytest.raises(FitInterrupted):
        fit([member(x)], x, SETTINGS, observer=InterruptAt(2))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_it_runs_in_another_thread_too(x: Tensor) -> None:
    results: list[MixtureAutoencoder] = []
    thread = threading.Thread(target=lambda: results.append(fit_alone(x, SETTINGS)))
    thread.start()
    thread.join()
    assert same(results[0], fit_alone(x, SETTINGS))


def test_a_checkpoint_is_written_now_and_then(x: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.fitting.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    checkpoint = tmp_path / "fit.pt"
    seen: list[bool] = []
    fit(
        [member(x)],
        x,
        SETTINGS,
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
        fit([member(x)], x, SETTINGS, checkpoint=checkpoint)


def test_a_checkpoint_from_before_a_setting_existed(x: Tensor, tmp_path: Path) -> None:
    checkpoint = tmp_path / "fit.pt"
    fit([member(x)], x, SETTINGS, checkpoint=checkpoint)
    state = torch.load(checkpoint, weights_only=True)
    del state["fit"]["gradient_norm"]
    torch.save(state, checkpoint)
    with pytest.raises(FitError, match=r"is of a fit with gradient_norm unset, asked for is 10000.0"):
        fit([member(x)], x, SETTINGS, checkpoint=checkpoint, resume=True)


def test_batches_too_small_for_a_mixture(x: Tensor) -> None:
    settings = replace(SETTINGS, batch_size=19)
    with pytest.raises(FitError, match="batch_size is 19, expected at least 20"):
        fit([member(x, settings, 0)], x, settings)


@pytest.mark.parametrize(
    ("settings", "seed", "message"),
    [
        (replace(SETTINGS, lambda1=7), 0, "is of a fit with lambda1 100, asked for is 7"),
        (replace(SETTINGS, epochs=7), 0, "is of a fit with epochs 6, asked for is 7"),
        (SETTINGS, 3, "is of a fit with seed [0], asked for is [3]"),
    ],
)
def test_the_checkpoint_of_another_fit_is_refused(
    x: Tensor, tmp_path: Path, settings: Settings, seed: int, message: str
) -> None:
    checkpoint = tmp_path / "fit.pt"
    with pytest.raises(FitInterrupted):
        fit([member(x)], x, SETTINGS, observer=InterruptAt(2), checkpoint=checkpoint)
    with pytest.raises(FitError, match=re.escape(message)):
        fit([member(x, settings, seed)], x, settings, checkpoint=checkpoint, resume=True)
    with pytest.raises(FitError, match="is of a fit with rows 600, asked for is 500"):
        fit([member(x[:500])], x[:500], SETTINGS, checkpoint=checkpoint, resume=True)


def test_a_checkpoint_that_is_missing_or_damaged(x: Tensor, tmp_path: Path) -> None:
    checkpoint = tmp_path / "fit.pt"
    with pytest.raises(FitError, match="there is no checkpoint to resume at"):
        fit([member(x)], x, SETTINGS, checkpoint=checkpoint, resume=True)
    checkpoint.write_bytes(b"damaged")
    with pytest.raises(FitError, match=r"is not a checkpoint \(\w+Error\); delete it to start anew"):
        fit([member(x)], x, SETTINGS, checkpoint=checkpoint, resume=True)
    torch.save({"fit": {}}, checkpoint)
    with pytest.raises(FitError, match=r"is not a checkpoint \(average is missing\); delete it to start anew"):
        fit([member(x)], x, SETTINGS, checkpoint=checkpoint, resume=True)


def test_a_value_that_is_no_number_stops_the_fit_with_step_and_term(x: Tensor) -> None:
    broken = x.clone()
    broken[7, 2] = float("nan")
    with pytest.raises(
        FitError, match=r"step \d of 36 \(epoch 1\): the rate is nan, .* variance_floor 0.0001 is too small"
    ):
        fit_alone(broken, SETTINGS)


def test_a_loss_that_overflows_stops_the_fit(x: Tensor) -> None:
    settings = replace(SETTINGS, lambda1=3e38, h="identity")
    with pytest.raises(FitError, match=r"step 1 of 36 \(epoch 1\): the distortion is inf, expected a finite number"):
        fit_alone(x, settings)


SPLITS = [torch.arange(400) + 20 * number for number in range(5)]


def members(settings: Settings, x: Tensor, numbers: Sequence[int]) -> list[Member[MixtureAutoencoder]]:
    return [Member(build("RaDOGAGA", x[SPLITS[i]], settings, i), SPLITS[i], i) for i in numbers]


@pytest.mark.parametrize("recipe", ["faithful", "robust"])
def test_a_member_of_a_stack_ends_as_it_would_alone(x: Tensor, recipe: str) -> None:
    """Each has its own rows, start, batches, noise and dropout; what differs is how products are rounded."""
    settings = named("thyroid", "RaDOGAGA", "log", recipe, overrides={"batch_size": 100, "epochs": 6})
    together = members(settings, x, range(5))
    assert fit(together, x, settings) == {}
    for number, stacked in enumerate(together):
        (alone,) = members(settings, x, [number])
        fit([alone], x, settings)
        with torch.no_grad():
            assert torch.allclose(stacked.method.score(x), alone.method.score(x), rtol=1e-3, atol=1e-3)
            assert not torch.allclose(stacked.method.score(x), together[number - 1].method.score(x), rtol=1e-1)


def test_a_member_that_fails_leaves_the_others_as_they_are(x: Tensor) -> None:
    broken = torch.cat([x, torch.full((1, 6), float("nan"))])
    sound, other = members(SETTINGS, x, [0, 1])
    failing = Member(other.method, torch.cat([other.rows[1:], torch.tensor([len(x)])]), 1)
    failures = fit([sound, failing], broken, SETTINGS)
    assert list(failures) == [1]
    assert re.match(r"step [1-4] of 24 \(epoch 1\): the rate is nan", str(failures[1]))
    (alone,) = members(SETTINGS, x, [0])
    fit([alone], x, SETTINGS)
    assert torch.allclose(sound.method.score(x), alone.method.score(x), rtol=1e-3, atol=1e-3)


def test_a_stack_is_interrupted_and_resumed_with_its_failures(x: Tensor, tmp_path: Path) -> None:
    broken = torch.cat([x, torch.full((1, 6), float("nan"))])
    checkpoint = tmp_path / "fit.pt"

    def pair() -> list[Member[MixtureAutoencoder]]:
        sound, failing = members(SETTINGS, x, [0, 1])
        return [sound, Member(failing.method, torch.cat([failing.rows[1:], torch.tensor([len(x)])]), 1)]

    with pytest.raises(FitInterrupted):
        fit(pair(), broken, SETTINGS, observer=InterruptAt(15), checkpoint=checkpoint)
    resumed, uninterrupted = pair(), pair()
    failures = fit(resumed, broken, SETTINGS, checkpoint=checkpoint, resume=True)
    assert {member: str(error) for member, error in failures.items()} == {
        member: str(error) for member, error in fit(uninterrupted, broken, SETTINGS).items()
    }
    assert list(failures) == [1]
    assert same(resumed[0].method, uninterrupted[0].method)


def test_a_checkpoint_stays_unless_nothing_is_left_to_go_on_with(x: Tensor, tmp_path: Path) -> None:
    broken = torch.cat([x, torch.full((1, 6), float("nan"))])
    checkpoint = tmp_path / "fit.pt"
    sound, failing = members(SETTINGS, x, [0, 1])
    failing = Member(failing.method, torch.cat([failing.rows[1:], torch.tensor([len(x)])]), 1)
    assert list(fit([sound, failing], broken, SETTINGS, checkpoint=checkpoint)) == [1]
    assert checkpoint.exists()
    assert list(fit([failing], broken, SETTINGS, checkpoint=checkpoint)) == [0]
    assert not checkpoint.exists()


def test_each_members_gradients_are_clipped_by_their_own_norm(x: Tensor) -> None:
    def gradients(norm: float | None) -> Tensor:
        settings = replace(SETTINGS, gradient_norm=norm)
        run = Run(members(settings, x, [0, 1]), x, settings)
        run.advance()
        assert run.weights.grad is not None
        return run.weights.grad

    whole = gradients(None)
    norms = whole.norm(dim=1)
    bound = norms.mean().item()  # between the two
    assert torch.allclose(gradients(bound).norm(dim=1), norms.clamp_max(bound))
    assert torch.allclose(gradients(bound), whole * (bound / norms).clamp_max(1.0)[:, None], rtol=1e-5, atol=1e-7)


def test_parameters_are_views_of_one() -> None:
    first, second = torch.nn.Parameter(torch.ones(2, 3, 2)), torch.nn.Parameter(torch.zeros(2, 1))
    flat = flattened([first, second])
    assert flat.tolist() == [[1.0] * 6 + [0.0]] * 2
    with torch.no_grad():
        flat[1] = torch.arange(7.0)
    assert first[1].tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    assert second.tolist() == [[0.0], [6.0]]


def test_weights_are_averaged_over_the_last_steps(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    advance = Run.advance

    def watch(run: Run[MixtureAutoencoder]) -> Progress:
        progress = advance(run)
        seen.append(run.parameters[0].detach().clone())
        return progress

    monkeypatch.setattr(Run, "advance", watch)
    method = fit_alone(x, replace(SETTINGS, averaging=0.25))
    first = next(iter(method.parameters())).float()
    assert torch.allclose(first, torch.stack(seen[-9:]).mean(dim=0)[0], atol=1e-6)  # a quarter of 36 steps
    assert not torch.allclose(first, seen[-1][0], atol=1e-6)


def test_a_fitted_model_computes_in_float64(x: Tensor) -> None:
    method = fit_alone(x, SETTINGS)
    assert all(parameter.dtype == torch.float64 for parameter in method.parameters())
    assert method.score(x[:5]).dtype == torch.float64


class TestStopping:
    """A fit that looks at held-out rows ends with the best weights it has seen."""

    settings = replace(SETTINGS, epochs=200)

    def held(self, x: Tensor, seed: int = 0) -> Member[MixtureAutoencoder]:
        rows = torch.arange(len(x) - 100)
        return Member(build("RaDOGAGA", x[rows], self.settings, seed), rows, seed, torch.arange(len(x) - 100, len(x)))

    def test_it_ends_once_nothing_gets_better(self, x: Tensor) -> None:
        steps: list[int] = []
        stopping = Stopping(every=5, patience=2, least=1e9)
        assert not fit([self.held(x)], x, self.settings, stopping=stopping, observer=lambda p: steps.append(p.step))
        assert steps == list(range(1, 11))

    def test_the_weights_are_those_with_the_least_held_out_loss(self, x: Tensor) -> None:
        seen: list[float] = []

        def observe(progress: Progress) -> None:
            if progress.held_out is not None:
                seen.append(progress.held_out)

        run = Run([self.held(x)], x, self.settings, Stopping(every=4, patience=5))
        while not run.done:
            observe(run.advance())
        assert run.watch is not None
        first = float(run.watch.least)
        run.finish()
        again = Run([self.held(x)], x, self.settings, Stopping(every=4, patience=5))
        again.weights.data.copy_(run.weights.data)
        assert again.watch is not None
        assert float(again.watch.look(again.method, again.weights)) == pytest.approx(first, rel=1e-6)
        assert first <= min(seen) + 1e-3

    def test_a_start_is_kept_unless_the_fit_is_clearly_better(self, x: Tensor) -> None:
        for errors, kept in ((2.0, False), (1e9, True)):
            member = self.held(x)
            before = [parameter.detach().clone() for parameter in member.method.parameters()]
            assert not fit([member], x, self.settings, stopping=Stopping(every=4, patience=5, errors=errors))
            after = [parameter.detach().float() for parameter in member.method.parameters()]
            assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True)) == kept

    def test_the_density_is_fitted_on_held_out_rows_too(self, x: Tensor) -> None:
        member = self.held(x)
        assert not fit([member], x, self.settings, stopping=Stopping(every=4, patience=1))
        frozen = member.method.density.means.clone()
        member.method.fit_density(x)
        assert torch.equal(member.method.density.means, frozen)

    def test_a_member_at_rest_waits_for_the_others(self, x: Tensor) -> None:
        run = Run([self.held(x, 0), self.held(x, 1)], x, self.settings, Stopping(every=1, patience=3))
        assert run.watch is not None
        run.watch.waited = torch.tensor([3, 0])
        assert not run.done
        run.watch.waited = torch.tensor([3, 3])
        assert run.done

    def test_a_resumed_fit_equals_an_uninterrupted_one(self, x: Tensor, tmp_path: Path) -> None:
        stopping, checkpoint = Stopping(every=5, patience=3), tmp_path / "fit.pt"
        whole = self.held(x)
        assert not fit([whole], x, self.settings, stopping=stopping)
        with pytest.raises(FitInterrupted, match="stopped after step 12"):
            fit([self.held(x)], x, self.settings, stopping=stopping, observer=InterruptAt(12), checkpoint=checkpoint)
        resumed = self.held(x)
        assert not fit([resumed], x, self.settings, stopping=stopping, checkpoint=checkpoint, resume=True)
        assert same(whole.method, resumed.method)
        with pytest.raises(FitError, match="is of a fit with stopping"):
            fit([self.held(x)], x, self.settings, checkpoint=checkpoint, resume=True)
