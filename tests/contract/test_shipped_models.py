"""The models in the repository are what `models/README.md` says they are."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests import server
from training.evaluation import evaluate_folder

MODELS = Path(__file__).parents[2] / "models"
FOLDERS = [MODELS / shipped for shipped in server.FOLDERS]
WIDTHS = {"thyroid": 6, "arrhythmia": 274, "kddcup99": 121, "kddcup-rev": 121, "digits": 64}

MOST_BYTES = {"digits": 400_000}
"""Of a folder, in bytes."""


def provenance(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())["provenance"]
    return found


def name(folder: Path) -> str:
    return folder.parent.name


def label(folder: Path) -> str:
    return f"{folder.parent.name}-{folder.name}"


def section(folder: Path) -> str:
    """What the README says of a folder's version."""
    title = "Digits" if name(folder) == "digits" else f"Version {folder.name}"
    _, found, rest = (MODELS / "README.md").read_text().partition(f"## {title}\n")
    assert found
    return rest.partition("\n## ")[0]


@pytest.mark.parametrize("folder", FOLDERS, ids=label)
def test_each_dataset_has_a_small_version_of_seed_0(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.iterdir()) < MOST_BYTES.get(name(folder), 1_000_000)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["version"], manifest["provenance"]["seed"], manifest["provenance"]["protocol"]) == (
        int(folder.name),
        0,
        "A",
    )
    columns = sum(len(feature.get("categories", [""])) for feature in manifest["features"])
    assert columns == WIDTHS[name(folder)]
    assert manifest["calibration"]["rule"] == "contamination"


@pytest.mark.parametrize("folder", FOLDERS, ids=label)
def test_the_readme_tells_the_manifests_figures(folder: Path) -> None:
    shipped, percentile = (provenance(folder)["metrics"][key] for key in ("shipped_threshold", "test_percentile"))
    figures = [percentile["f1"], shipped["f1"], shipped["precision"], shipped["recall"]]
    figures += [shipped["auroc"], shipped["average_precision"]]
    row = f"| {name(folder)} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |"
    assert row in section(folder)


@pytest.mark.parametrize("folder", FOLDERS, ids=label)
def test_the_readme_has_the_command_of_each(folder: Path) -> None:
    commands = re.findall(r"^python -m training fit (\S+)(.*)$", section(folder), re.MULTILINE)
    assert name(folder) in [dataset for dataset, _ in commands]
    recipes = {dataset: "".join(re.findall(r"--recipe (\S+)", options)) or "robust" for dataset, options in commands}
    recipes |= {"digits": "images"}
    assert provenance(folder)["recipe"] == recipes[name(folder)]


@pytest.mark.parametrize(
    "folder",
    [pytest.param(folder, marks=[] if name(folder) == "digits" else pytest.mark.data) for folder in FOLDERS],
    ids=label,
)
def test_the_figures_can_be_measured_again(folder: Path) -> None:
    evaluation = evaluate_folder(folder)
    for key, measured in (
        ("shipped_threshold", evaluation.shipped_threshold),
        ("test_percentile", evaluation.test_percentile),
    ):
        assert provenance(folder)["metrics"][key] == pytest.approx(measured, abs=1e-3, rel=1e-3)
