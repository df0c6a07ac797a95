"""From a user's file to scores: fitted, exported, served, and the same in every way there is to ask."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from service.__main__ import main as service
from service.app import create_app
from service.settings import Settings
from tests.service.conftest import wait_until_ready
from training.__main__ import main as training
from training.own_command import name_of

ROWS, NEW = 600, 40

CITIES = {"Bern": 20.0, "Basel": 40.0, "Zug": 80.0}


def transactions(rows: int, seed: int) -> pa.Table:
    """Makes a table in which an amount belongs to a city; some amounts are missing."""
    draw = np.random.default_rng(seed)
    city = draw.choice(list(CITIES), rows)
    amount = np.array([CITIES[name] for name in city]) * draw.lognormal(0, 0.1, rows)
    start = np.datetime64("2025-01-01T00:00:00")
    return pa.table(
        {
            "id": np.arange(rows),
            "at": start + draw.integers(0, 90 * 24 * 60, rows).astype("timedelta64[m]"),
            "city": city,
            "amount": pa.array(amount, mask=draw.random(rows) < 0.05),
            "online": draw.random(rows) < 0.3,
            "currency": ["CHF"] * rows,
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fits a table by the command line, and returns the model's folder."""
    place = tmp_path_factory.mktemp("own")
    pq.write_table(transactions(ROWS, 0), place / "Card Transactions.parquet")
    models = place / "models"
    assert training(["fit", str(place / "Card Transactions.parquet"), "--out", str(models)]) == 0
    return models / "card-transactions" / "1"


@pytest.fixture(scope="module")
def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    """Rows that are new, the last of which are strange in one way each."""
    rows = transactions(NEW, 1).to_pylist()
    usual = {"at": "2025-02-01T12:00:00", "city": "Bern", "amount": 20.5, "online": False}
    strange = [
        {**usual, "amount": 80.0},
        {**usual, "city": "Paris"},
        {**usual, "amount": 1e6},
        {**usual, "city": "Zug"},
    ]
    return [{**row, "at": row["at"].isoformat()} for row in rows] + [usual, *strange]


@pytest.fixture(scope="module")
def answer(folder: Path, records: list[dict[str, Any]]) -> dict[str, Any]:
    """What the service answers to the records."""
    with TestClient(create_app(Settings(models=folder.parents[1]))) as client:
        wait_until_ready(client)
        response = client.post("/score", json={"dataset": "card-transactions", "records": records})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_the_manifest_says_what_the_table_was(manifest: dict[str, Any]) -> None:
    kinds = {feature["name"]: feature["kind"] for feature in manifest["features"]}
    assert kinds == {"at": "timestamp", "city": "categorical", "amount": "numeric", "online": "boolean"}
    assert manifest["ignored"] == ["id", "currency"]
    assert manifest["format_version"] == 3
    assert "metrics" not in manifest["provenance"]
    assert manifest["provenance"]["settings"]["rows"] == {"fitted": 465, "held_out": 60, "calibration": 75}


def test_what_is_strange_is_flagged_and_what_is_usual_is_not(answer: dict[str, Any]) -> None:
    usual, *strange = answer["anomalies"][NEW:]
    assert not usual
    assert strange == [True] * 4
    assert sum(answer["anomalies"][:NEW]) <= 4
    lowest = 1 / (75 + 1)
    assert answer["p_values"][NEW + 1 :] == [pytest.approx(lowest)] * 4
    assert all(lowest <= p <= 1 for p in answer["p_values"])
    decided = [score >= answer["threshold"] for score in answer["scores"]]
    assert decided == answer["anomalies"]


def test_offline_scores_are_those_of_the_service(
    folder: Path,
    records: list[dict[str, Any]],
    answer: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table, scored = tmp_path / "new.parquet", tmp_path / "scored.parquet"
    columns = {name: [record.get(name) for record in records] for name in ("city", "amount", "online")}
    moments = np.array([record["at"] for record in records], dtype="datetime64[us]")
    pq.write_table(pa.table({**columns, "at": moments, "note": ["x"] * len(records)}), table)
    monkeypatch.setattr("sys.argv", ["service", "score", str(table), "--model", str(folder), "--out", str(scored)])
    service()
    found = pq.read_table(scored)
    assert found["score"].to_pylist() == answer["scores"]
    assert found["anomaly"].to_pylist() == answer["anomalies"]
    assert found["p_value"].to_pylist() == answer["p_values"]


def test_the_folder_has_its_schema_and_its_card(folder: Path, manifest: dict[str, Any]) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {"schema.toml", "model_card.md", "learning_curve.png", "scores.png"} <= names
    card = (folder / "model_card.md").read_text()
    assert f"threshold {manifest['threshold']:.6g}" in card
    assert "465 fitted, 60 held out to tell when to stop, 75 for the calibration" in card
    assert "| city | categorical | " in card
    assert "not used: `id`, `currency`" in card
    assert "% of one half of the calibration rows are called anomalies by the threshold of the other half" in card
    assert "37 rows promise no less than 2.63 %; the standard deviation" in card


def test_a_schema_can_be_written_edited_and_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, schema = tmp_path / "t.csv", tmp_path / "schema.toml"
    draw = np.random.default_rng(0)
    lines = [f"{a},{i % 3},{b}" for i, (a, b) in enumerate(draw.normal(size=(200, 2)))]
    table.write_text("\n".join(["a,kind,c", *lines]) + "\n")
    command = ["fit", str(table), "--out", str(tmp_path / "models"), "--categorical", "kind"]
    assert training([*command, "--write-schema", str(schema)]) == 0
    assert not (tmp_path / "models").exists()
    assert training([*command, "--schema", str(schema)]) == 1
    assert "error: --schema says what the columns are; change it there" in capsys.readouterr().err
    assert training([*command[:4], "--schema", str(schema)]) == 0
    assert "false-positive rate: 0.0385, the smallest that 25 calibration rows promise" in capsys.readouterr().out
    found = json.loads((tmp_path / "models" / "t" / "1" / "manifest.json").read_text())
    assert [feature["kind"] for feature in found["features"]] == ["numeric", "categorical", "numeric"]


def test_labels_are_kept_out_of_the_fit_and_judge_it(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    x = np.concatenate([draw.normal(size=(400, 3)), draw.normal(size=(20, 3)) + 6])
    order = draw.permutation(420)
    labels = np.where(order < 400, "fine", "fraud")
    pq.write_table(
        pa.table({"a": x[order, 0], "b": x[order, 1], "c": x[order, 2], "is": labels}), tmp_path / "t.parquet"
    )
    command = [
        "fit",
        str(tmp_path / "t.parquet"),
        "--label",
        "is",
        "--out",
        str(tmp_path),
        "--false-positive-rate",
        "0.05",
    ]
    assert training(command) == 0
    found = json.loads((tmp_path / "t" / "1" / "manifest.json").read_text())
    assert sum(found["provenance"]["settings"]["rows"].values()) == 400
    assert found["calibration"]["false_positive_rate"] == 0.05
    assert found["provenance"]["metrics"]["shipped_threshold"]["recall"] == 1
    assert found["ignored"] == ["is"]
    assert "labelled anomalies" in (tmp_path / "t" / "1" / "model_card.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere.csv"], "table is 'nowhere.csv', expected a file that is there"),
        (["{few}"], "9 rows to fit, expected at least 50"),
        (["{table}", "--name", "Big Table"], "--name is 'Big Table', expected small letters"),
        (["{table}", "--label", "lable"], "lable"),
        (["{table}", "--drop", "x,zz"], "zz"),
        (["{table}", "--false-positive-rate", "0.001"], "the false-positive rate is 0.001, but 25 calibration rows"),
        (["{table}", "--false-positive-rate", "2"], "the false-positive rate is 2.0, expected a ratio between 0 and 1"),
        (["{table}", "--contamination", "1"], "the contamination is 1.0, expected a ratio between 0 and 1"),
    ],
)
def test_what_can_t_be_done_is_told(
    arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = np.random.default_rng(0)
    for name, rows in (("few", 9), ("table", 200)):
        lines = [f"{a},{b}" for a, b in draw.normal(size=(rows, 2))]
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,y", *lines]) + "\n")
    given = [one.format(few=tmp_path / "few.csv", table=tmp_path / "table.csv") for one in arguments]
    assert training(["fit", *given, "--out", str(tmp_path / "models")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert text in error
    assert not list((tmp_path / "models").glob("*/[0-9]*"))


@pytest.mark.parametrize(
    ("file", "name"), [("a/Card Transactions.csv.gz", "card-transactions"), ("x.parquet", "x"), ("__Ü__1.csv", "1")]
)
def test_a_model_is_called_as_its_file(file: str, name: str) -> None:
    assert name_of(Path(file)) == name
