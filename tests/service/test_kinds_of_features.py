"""Manifests of format 3: more kinds of features, values that may be missing, p-values, models without labels."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from service.errors import StartError
from service.manifest import read_manifest, schema
from tests.manifests import Change, assert_refused, drop, rewrite, set_at
from tests.server import ROOT
from tests.service import kinds

AMOUNT, AGE, MEMBER, CITY, CARD, AT = (
    [feature["name"] for feature in kinds.FEATURES].index(name)
    for name in ("amount", "age", "member", "city", "card", "at")
)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return kinds.make(tmp_path / "models")


def test_every_kind_of_feature_has_its_columns(made: Path) -> None:
    manifest = read_manifest(made)
    assert manifest.columns == tuple(kinds.COLUMNS)
    assert manifest.width == len(kinds.COLUMNS)
    assert manifest.ignored == ["id", "label"]
    assert manifest.provenance.metrics is None
    assert manifest.calibration.rule == "false_positive_rate"


def test_the_schema_has_what_the_reader_has(made: Path) -> None:
    jsonschema.validate(json.loads((made / "manifest.json").read_text()), json.loads(schema()))


def test_what_format_3_adds_may_be_left_out(made: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        del manifest["ignored"], manifest["p_values"]

    rewrite(made, change)
    manifest = read_manifest(made)
    assert (manifest.ignored, manifest.p_values) == ([], None)


P = "p_values"

BROKEN = [
    (set_at("features", AMOUNT, "missing", to=True), "features.0.numeric.missing is True"),
    (set_at("features", AGE, "missing", "fill", to=1e39), "features.1.numeric.missing.fill is 1e+39"),
    (set_at("features", AGE, "missing", to={"fill": 0.0}), "features.1.numeric.missing.indicator is missing"),
    (set_at("features", MEMBER, "missing", to={"fill": 0.0}), "features.3.boolean.missing is {'fill': 0.0}"),
    (set_at("features", CITY, "other", to="yes"), "features.5.categorical.other is 'yes'"),
    (set_at("features", CARD, "categories", to=[]), "features.6.categorical.categories is []"),
    (set_at("features", AT, "parts", to=[]), "features.8.timestamp.parts is []"),
    (set_at("features", AT, "parts", to=["month"]), "features.8.timestamp.parts.0 is 'month'"),
    (
        set_at("features", AT, "parts", to=["day_of_week", "time_of_day"]),
        "features.8.timestamp.parts is ['day_of_week', 'time_of_day']: Value error, expected some of time_of_day,",
    ),
    (set_at("features", AT, "parts", to=["day_of_week"] * 2), "features.8.timestamp.parts is ['day_of_week', 'day"),
    (set_at("features", AMOUNT, "name", to="city=Bern"), "'city=Bern' is there 2 times"),
    (set_at("features", AMOUNT, "name", to="age=<missing>"), "'age=<missing>' is there 2 times"),
    (set_at("features", CITY, "categories", to=["<other>", "x"]), "'city=<other>' is there 2 times"),
    (set_at("ignored", to=["id", "id"]), "ignored is ['id', 'id']: Value error, 'id' is there 2 times"),
    (set_at("ignored", to=["id", "city"]), "ignored.1 is 'city', which is a feature's name"),
    (set_at("ignored", to=[""]), "ignored.0 is ''"),
    (set_at(P, "scores", to=[]), "p_values.scores is []"),
    (set_at(P, "scores", to=[1.0, 1.0, 2.0, 3.0]), "scores has 1.0 behind 1.0, expected rising scores"),
    (set_at(P, "scores", to=[0.0]), "above has 4 entries, expected 1 as scores has"),
    (set_at(P, "scores", 0, to=float("nan")), "p_values.scores.0 is nan"),
    (set_at(P, "scores", to=[*map(float, range(4097))]), "p_values.scores is [0.0, 1.0"),
    (set_at(P, "above", to=[10, 5, 5, 1]), "above has 10 behind 9, expected falling numbers of 9 rows"),
    (set_at(P, "above", to=[9, 5, 6, 1]), "above has 6 behind 5, expected falling numbers of 9 rows"),
    (set_at(P, "above", to=[9, 5, 1, -1]), "p_values.above.3 is -1"),
    (set_at(P, "above", to=[9, 5, 1, 0.5]), "p_values.above.3 is 0.5"),
    (set_at(P, "rows", to=0), "p_values.rows is 0"),
    (set_at("calibration", "rule", to="quantile"), "calibration is {'rule': 'quantile', "),
    (set_at("calibration", "false_positive_rate", to=1.0), "calibration.false_positive_rate is 1.0"),
    (set_at("calibration", "flagged", to=10), "flagged 10 is above rows 9"),
    (set_at("calibration", "contamination", to=0.1), "calibration.contamination is unknown"),
    (set_at("calibration", "rule", to="contamination"), "calibration.contamination is missing"),
    (set_at("provenance", "metrics", to={}), "provenance.metrics.shipped_threshold is missing"),
    (drop("sha256"), "sha256 is missing, format_version 3 has it"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_a_broken_manifest_is_refused_with_field_and_value(made: Path, change: Change, message: str) -> None:
    assert_refused(made, change, message)


def test_a_rate_may_flag_none(made: Path) -> None:
    rewrite(made, set_at("calibration", "flagged", to=0))
    assert read_manifest(made).calibration.flagged == 0


FIRST = {"kind": "boolean", "name": "member"}

NEW = [
    (set_at("ignored", to=[]), "ignored is there"),
    (set_at("density", "centres", to=3), "density.centres is there"),
    (set_at("p_values", to=kinds.P_VALUES), "p_values is there"),
    (set_at("features", 0, to=FIRST), "features.0.kind is 'boolean'"),
    (set_at("features", 0, to={**FIRST, "kind": "timestamp", "parts": ["day_of_week"]}), "features.0.kind is 'timesta"),
    (set_at("features", 0, "missing", to=None), "features.0.missing is there"),
    (set_at("features", 0, to={"kind": "categorical", "name": "c", "categories": ["x"], "other": False}), "0.other is"),
    (
        set_at(
            "calibration", to={"rule": "false_positive_rate", "false_positive_rate": 0.1, "rows": 1887, "flagged": 1}
        ),
        "calibration.rule is 'false_positive_rate'",
    ),
    (
        lambda manifest: manifest["provenance"].pop("metrics"),
        "provenance.metrics is missing, format_version 2 has them",
    ),
]


@pytest.mark.parametrize(("change", "message"), NEW, ids=[message for _, message in NEW])
def test_older_formats_have_none_of_it(
    folder: Path, change_manifest: Callable[[Change], None], change: Change, message: str
) -> None:
    change_manifest(change)
    with pytest.raises(StartError) as caught:
        read_manifest(folder)
    assert message in str(caught.value)
    assert "format_version 2" in str(caught.value)


def test_a_shipped_manifest_may_call_itself_newer(folder: Path, change_manifest: Callable[[Change], None]) -> None:
    change_manifest(set_at("format_version", to=3))
    assert read_manifest(folder).provenance.metrics is not None


def test_the_readme_names_every_kind_of_feature() -> None:
    text = (ROOT / "models" / "README.md").read_text()
    assert all(f"| {kind} |" in text for kind in ("numeric", "boolean", "categorical", "timestamp"))
