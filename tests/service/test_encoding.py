"""Raw values become rows as `models/README.md` says, by a second way: value by value and in words."""

import calendar
import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.encoding import NO_INSTANT, Categories, Encoder, ValueColumns, instants_of
from service.graphs import Matrix
from service.manifest import CategoricalFeature, Feature, Manifest, read_manifest
from tests.server import MODELS
from tests.service import kinds


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(kinds.make(tmp_path_factory.mktemp("models")))


def encode(manifest: Manifest, records: list[dict[str, Any]]) -> Matrix:
    names = [feature.name for feature in manifest.features]
    columns = {name: [record[name] for record in records] for name in names}
    return Encoder.of(manifest).rows(ValueColumns(columns, len(records)))


def slowly(feature: Feature, value: Any) -> list[float]:  # noqa: ANN401 - whatever a record holds
    """Encodes one value, for which there is a column."""
    indicator = [float(value is None)]
    match feature.kind:
        case "numeric":
            if feature.missing is None:
                return [value]
            return [feature.missing.fill if value is None else value, *(indicator if feature.missing.indicator else [])]
        case "boolean":
            return [1.0 if value else 0.0, *(indicator if feature.missing else [])]
        case "categorical":
            text = None if value is None else str(value)
            columns = [float(text == category) for category in feature.categories]
            other = [float(text is not None and text not in feature.categories)] if feature.other else []
            return columns + other + (indicator if feature.missing else [])
        case "timestamp":
            waves = [0.0] * 2 * len(feature.parts)
            if value is not None:
                moment = datetime.fromisoformat(value)
                moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
                angles = [2 * math.pi * share_of(part, moment) for part in feature.parts]
                waves = [wave(angle) for angle in angles for wave in (math.sin, math.cos)]
            return waves + (indicator if feature.missing else [])


def share_of(part: str, moment: datetime) -> float:
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    match part:
        case "time_of_day":
            return (moment - midnight) / timedelta(days=1)
        case "day_of_week":
            return (moment - midnight + timedelta(days=calendar.weekday(*moment.timetuple()[:3]))) / timedelta(days=7)
        case _:
            return (moment - midnight.replace(month=1, day=1)) / timedelta(days=366)


def test_every_kind_of_feature_is_encoded_as_it_is_written(manifest: Manifest) -> None:
    rows = encode(manifest, kinds.RECORDS)
    assert rows.dtype == np.float32
    for record, row in zip(kinds.RECORDS, rows, strict=True):
        expected = [value for feature in manifest.features for value in slowly(feature, record[feature.name])]
        np.testing.assert_allclose(row, np.array(expected, dtype=np.float32), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("text", "day", "week", "year"),
    [
        ("1970-01-01", 0, 3, 0),
        ("1969-12-31T23:59:59.999999", 86399.999999 / 86400, 3 - 1e-6 / 86400, 365 - 1e-6 / 86400),
        ("1969-12-29", 0, 0, 362),
        ("2024-12-31T12:00:00+00:00", 0.5, 1.5, 365.5),
        ("2026-01-05T00:30:00+01:00", 23.5 / 24, 6 + 23.5 / 24, 3 + 23.5 / 24),
        ("0001-01-01T00:00:00", 0, 0, 0),
        ("9999-12-31T23:00:00-23:59", 22.983333 / 24, 5 + 22.983333 / 24, 22.983333 / 24),
        ("20260105T063000Z", 6.5 / 24, 6.5 / 24, 4 + 6.5 / 24),
    ],
)
def test_the_parts_of_a_moment(text: str, day: float, week: float, year: float, manifest: Manifest) -> None:
    first = kinds.COLUMNS.index("at=sin(time_of_day)")
    row = encode(manifest, [{**kinds.RECORDS[0], "at": text}])[0, first : first + 6]
    shares = [day, week / 7, year / 366]
    expected = [wave(2 * math.pi * share) for share in shares for wave in (math.sin, math.cos)]
    np.testing.assert_allclose(row, expected, atol=1e-6)


@pytest.mark.parametrize(
    "text", ["", "noon", "2026-13-01", "2026-02-30", "2026-01-01T25:00", "10000-01-01", 7, True, b"2026", [1]]
)
def test_what_is_no_moment(text: object) -> None:
    assert instants_of([text])[0] == NO_INSTANT


def test_what_is_no_moment_and_what_is_missing_differ() -> None:
    assert np.isnat(instants_of([None])[0])
    assert instants_of([]).shape == (0,)


def test_rows_without_rows(manifest: Manifest) -> None:
    assert encode(manifest, []).shape == (0, len(kinds.COLUMNS))


def test_a_row_is_the_same_alone_and_among_others(manifest: Manifest) -> None:
    together = encode(manifest, kinds.RECORDS * 50)
    for i, record in enumerate(kinds.RECORDS):
        assert encode(manifest, [record]).tobytes() == together[i].tobytes()


@pytest.mark.parametrize("name", ["amount", "member", "card", "branch", "opened"])
def test_a_row_is_not_finite_where_a_value_may_not_be_missing(name: str, manifest: Manifest) -> None:
    records = [kinds.RECORDS[0], {**kinds.RECORDS[1], name: None}]
    rows = encode(manifest, records)
    found = Encoder.of(manifest).first_wrong(rows)
    assert found is not None
    assert (found[0], found[1].name) == (1, name)
    assert np.isfinite(rows[0]).all()


def test_numbers_go_by_way_of_float64(manifest: Manifest) -> None:
    values: list[float] = [2**53 + 1, 16_777_217, 0.1, -0.0, 3.4028235677973362e38, 1e-46, 2**63, -(10**38)]
    rows = encode(manifest, [{**kinds.RECORDS[0], "amount": value} for value in values])
    assert rows[:, 0].tobytes() == np.array([float(value) for value in values]).astype(np.float32).tobytes()


@pytest.mark.parametrize("value", [3.5e38, 10**39, -(10**400), math.inf])
def test_numbers_beyond_float32_are_none(value: float, manifest: Manifest) -> None:
    rows = encode(manifest, [{**kinds.RECORDS[0], "age": value}])
    assert not np.isfinite(rows[0, 1])


def feature_of(*categories: str, **more: bool) -> CategoricalFeature:
    return CategoricalFeature(kind="categorical", name="x", categories=list(categories), **more)


def places(feature: CategoricalFeature, *values: object) -> list[int]:
    return [Categories(feature, 10).place(value) for value in values]


def test_numbers_are_categories_if_all_categories_are_numbers() -> None:
    feature = feature_of("0", "1.0", "1", "2.50", "-3")
    assert places(feature, 0, 1, 1.0, "1.0", "1", 2.5, -3, -3.0, 4, "4") == [10, 12, 12, 11, 12, 13, 14, 14, -1, -1]
    assert places(feature, False, True) == [10, 12]
    assert places(feature_of("01", "2"), 1, "01") == [-2, 10]
    assert places(feature_of("1", "x"), 1, 1.5, True) == [-2, -2, -2]
    assert places(feature_of("1", " 2"), 1) == places(feature_of("1", "1_0"), 1) == places(feature_of("nan"), 1) == [-2]


def test_integers_that_no_float_has_are_categories() -> None:
    feature = feature_of("9007199254740993", "123456789012345679", "5", other=True)
    assert places(feature, 9007199254740993, 123456789012345679, 5.0) == [10, 11, 12]
    assert places(feature, 9007199254740992, 123456789012345680, 9007199254740992.0) == [13, 13, 13]


def test_booleans_are_the_words_if_these_are_categories() -> None:
    assert places(feature_of("true", "false"), True, False, 1) == [10, 11, -2]
    assert places(feature_of("maybe", "true"), False, True) == [-1, 11]


@pytest.mark.parametrize("value", [[], {}, b"x", object()])
def test_what_is_no_category(value: object) -> None:
    assert places(feature_of("x", other=True, missing=True), value) == [-2]


def test_other_and_missing_have_their_places() -> None:
    assert places(feature_of("x", other=True, missing=True), "y", None) == [11, 12]
    assert places(feature_of("x", missing=True), "y", None) == [-1, 11]
    assert places(feature_of("x"), "y", None) == [-1, -2]
    lenient = Categories(feature_of("x", missing=True), 10).lenient
    assert [lenient(value) for value in (math.nan, None, 7, True)] == [11, 11, -1, -1]
    assert Categories(feature_of("0", "x"), 10).lenient(False) == 10


def test_records_come_back_but_for_what_can_t(manifest: Manifest) -> None:
    encoder = Encoder.of(manifest)
    found = encoder.records(encode(manifest, kinds.RECORDS))
    assert found == [
        {
            "amount": 12.5,
            "age": 33.0,
            "fee": 0.25,
            "member": True,
            "abroad": False,
            "city": "Bern",
            "card": "gold",
            "branch": "7",
        },
        {
            "amount": -3.0,
            "age": None,
            "fee": np.float32(0.1),
            "member": False,
            "abroad": None,
            "city": None,
            "card": "plain",
            "branch": "12",
        },
        {
            "amount": 1e5,
            "age": 91.5,
            "fee": 0.0,
            "member": False,
            "abroad": True,
            "city": "<other>",
            "card": "gold",  # neither column was set, and the first of equals counts
            "branch": "-3.5",
        },
    ]


def test_records_of_columns_between_0_and_1(manifest: Manifest) -> None:
    encoder, row = Encoder.of(manifest), np.zeros((1, len(kinds.COLUMNS)), dtype=np.float32)

    def read(name: str, **columns: float) -> Any:  # noqa: ANN401
        row[:] = 0
        for column, value in columns.items():
            row[0, kinds.COLUMNS.index(f"{name}={column}" if column != "own" else name)] = value
        return encoder.records(row)[0][name]

    assert [read("member", own=value) for value in (0.49, 0.5, 2)] == [False, True, True]
    assert read("abroad", own=0.9, **{"<missing>": 0.5}) is True
    assert read("abroad", own=0.9, **{"<missing>": 0.51}) is None
    assert read("age", own=30, **{"<missing>": 0.6}) is None
    assert read("city", **{"Bern": 0.2, "Genève": 0.4, "<other>": 0.3, "<missing>": 0.1}) == "Genève"
    assert read("city", **{"Bern": 0.2, "<other>": 0.3}) == "<other>"
    assert read("city", **{"Bern": -0.2, "<missing>": 0.1}) is None
    assert read("branch", **{"7": -0.1, "12": -0.2, "-3.5": -0.3, "<other>": -0.4}) == "7"


def test_timestamps_alone_make_empty_records(tmp_path: Path) -> None:
    names = ["opened=sin(day_of_week)", "opened=cos(day_of_week)"]
    encoder = Encoder.of(read_manifest(kinds.make(tmp_path, kinds.FEATURES[-1:], names)))
    assert encoder.records(np.zeros((2, 2), dtype=np.float32)) == [{}, {}]


@pytest.mark.parametrize("dataset", ["kddcup99", "kddcup-rev", "thyroid"])
def test_examples_of_shipped_models_survive_the_way_to_records_and_back(dataset: str) -> None:
    folder = MODELS / dataset / "2"
    manifest = read_manifest(folder)
    x = np.array(json.loads((folder / "examples.json").read_text())["x"], dtype=np.float32)
    records = Encoder.of(manifest).records(x)
    np.testing.assert_array_equal(
        encode(manifest, [{k: v if isinstance(v, str) else float(v) for k, v in r.items()} for r in records]), x
    )
