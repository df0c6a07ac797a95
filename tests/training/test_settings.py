"""The paper's tables by name."""

from dataclasses import fields

import pytest

from training.settings import LAMBDAS, NETWORKS, RECIPES, H, Settings, Size, named


@pytest.mark.parametrize(
    ("dataset", "size", "h", "hidden", "latent", "components", "lambdas"),
    [
        ("kddcup99", "table2", "identity", (60, 30), 8, 4, (100, 1000)),
        ("kddcup99", "table2", "log", (60, 30), 8, 4, (10, 100)),
        ("thyroid", "table2", "log", (30, 24), 6, 2, (100, 1000)),
        ("arrhythmia", "table2", "identity", (10,), 4, 2, (1000, 100)),
        ("kddcup-rev", "table2", "log", (60, 30), 8, 2, (100, 100)),
        ("thyroid", "table3", "identity", (12, 4), 1, 2, (1000, 10000)),
        ("arrhythmia", "table3", "log", (10,), 2, 2, (1000, 100)),
        ("kddcup-rev", "table3", "log", (60, 30), 1, 2, (100, 1000)),
    ],
)
def test_the_papers_settings(
    dataset: str, size: Size, h: H, hidden: tuple[int, ...], latent: int, components: int, lambdas: tuple[float, float]
) -> None:
    settings = named(dataset, h, "faithful", size)
    assert (settings.hidden, settings.latent, settings.components) == (hidden, latent, components)
    assert (settings.lambda1, settings.lambda2) == lambdas


def test_the_faithful_recipe_is_what_the_paper_builds_on() -> None:
    settings = named("kddcup99", "log", "faithful")
    assert (settings.batch_size, settings.epochs, settings.learning_rate) == (1024, 200, 1e-4)
    assert (settings.schedule, settings.gradient_norm, settings.reshuffle) == ("constant", None, False)
    assert (settings.estimation, settings.dropout, settings.variance_floor) == (10, 0.5, 1e-6)
    assert settings.scaling == "feature"


def test_every_recipe_has_every_dataset_in_both_sizes() -> None:
    for recipe in RECIPES:
        for size in NETWORKS:
            for dataset in LAMBDAS[size]:
                assert isinstance(named(dataset, "log", recipe, size), Settings)


def test_settings_survive_json() -> None:
    settings = named("thyroid", "log")
    values = settings.to_json()
    assert set(values) == {field.name for field in fields(Settings)}
    assert Settings.from_json(values) == settings


def test_overrides_come_last_and_must_exist() -> None:
    assert named("thyroid", "log", overrides={"epochs": 7}).epochs == 7
    with pytest.raises(TypeError, match="unexpected keyword argument 'epoch'"):
        named("thyroid", "log", overrides={"epoch": 7})
