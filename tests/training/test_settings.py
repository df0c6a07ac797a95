"""The paper's tables by name."""

import json
from dataclasses import fields
from typing import cast

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
    settings = named(dataset, "RaDOGAGA", h, "faithful", size)
    assert (settings.hidden, settings.latent, settings.components) == (hidden, latent, components)
    assert (settings.lambda1, settings.lambda2) == lambdas


TABLES = """
table2  kddcup99    100 1000   10 100
table2  thyroid     100 10000  100 1000
table2  arrhythmia  1000 100   1000 100
table2  kddcup-rev  1000 100   100 100
table3  kddcup99    100 100    100 1000
table3  thyroid     1000 10000 100 10000
table3  arrhythmia  1000 100   1000 100
table3  kddcup-rev  100 100    100 1000
"""
"""lambda1 and lambda2 for h(d) = d, and for h(d) = log d."""


@pytest.mark.parametrize("line", TABLES.strip().splitlines())
def test_the_papers_lambdas(line: str) -> None:
    size, dataset, *lambdas = line.split()
    d, log = LAMBDAS[cast("Size", size)][dataset].values()
    assert [*d, *log] == [float(value) for value in lambdas]


@pytest.mark.parametrize(
    ("dataset", "batch_size", "epochs"),
    [("kddcup99", 1024, 200), ("thyroid", 1024, 20000), ("arrhythmia", 128, 10000), ("kddcup-rev", 1024, 400)],
)
def test_dagmms_batches_and_epochs(dataset: str, batch_size: int, epochs: int) -> None:
    settings = named(dataset, "RaDOGAGA", "log", "faithful")
    assert (settings.batch_size, settings.epochs) == (batch_size, epochs)


def test_the_faithful_recipe_is_what_the_paper_builds_on() -> None:
    settings = named("kddcup99", "RaDOGAGA", "log", "faithful")
    assert (settings.batch_size, settings.epochs, settings.learning_rate) == (1024, 200, 1e-4)
    assert (settings.schedule, settings.gradient_norm, settings.reshuffle) == ("constant", None, False)
    assert (settings.estimation, settings.dropout, settings.variance_floor) == (10, 0.5, 1e-6)
    assert settings.scaling == "feature"


def test_every_recipe_has_every_dataset_in_both_sizes() -> None:
    for recipe in RECIPES:
        for size in NETWORKS:
            for dataset in LAMBDAS[size]:
                assert isinstance(named(dataset, "RaDOGAGA", "log", recipe, size), Settings)


def test_settings_become_json() -> None:
    settings = named("thyroid", "RaDOGAGA", "log")
    values = settings.to_json()
    assert set(values) == {field.name for field in fields(Settings)}
    assert json.loads(json.dumps(values)) == values
    assert (values["hidden"], values["h"]) == ([30, 24], "log")


def test_overrides_come_last_and_must_exist() -> None:
    assert named("thyroid", "RaDOGAGA", "log", overrides={"epochs": 7}).epochs == 7
    with pytest.raises(TypeError, match="unexpected keyword argument 'epoch'"):
        named("thyroid", "RaDOGAGA", "log", overrides={"epoch": 7})


def test_scaling_and_the_place_of_the_rate_belong_to_method_and_h() -> None:
    assert named("arrhythmia", "RaDOGAGA", "log", "robust").rate_at == "noisy"
    assert named("arrhythmia", "RaDOGAGA", "log", "faithful").rate_at == "z"
    assert named("arrhythmia", "RaDOGAGA", "identity", "ensemble").rate_at == "z"
    assert named("thyroid", "RaDOGAGA", "log", "robust").scaling == "table"
    assert named("thyroid", "RaDOGAGA", "identity", "ensemble").scaling == "feature"
    assert named("arrhythmia", "DAGMM", "identity", "ensemble").scaling == "table"
    assert named("arrhythmia", "DAGMM", "identity", "faithful").scaling == "feature"
    assert named("kddcup99", "RaDOGAGA", "log", "robust").scaling == "feature"


def test_dagmm_has_the_lambdas_of_appendix_e_everywhere() -> None:
    for size in NETWORKS:
        for dataset in LAMBDAS[size]:
            settings = named(dataset, "DAGMM", "identity", "faithful", size)
            assert (settings.lambda1, settings.lambda2) == (0.1, 0.005)


def test_an_ensemble_is_ten_members_of_another_recipe() -> None:
    for dataset in LAMBDAS["table2"]:
        ensemble = named(dataset, "RaDOGAGA", "log", "ensemble").to_json()
        assert ensemble == {**named(dataset, "RaDOGAGA", "log", "robust").to_json(), "members": 10}
