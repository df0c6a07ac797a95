"""Raw KDD rows as records become the vectors that training's loader makes of them."""

import json
from typing import Any

import numpy as np
import polars
import pytest

from service.encoding import Encoder
from service.formats.records import RecordsRequest
from service.formats.rows import Address
from service.graphs import Matrix
from service.manifest import read_manifest
from tests.server import MODELS, SHIPPED
from training.datasets.files import fetch
from training.datasets.kddcup import CATEGORIES, COLUMNS, KDDCUP, one_hot

DATASETS = ("kddcup99", "kddcup-rev")


def made(rows: int) -> polars.DataFrame:
    """Makes a table of text, as the file has it."""
    draw = np.random.default_rng(0)
    columns: dict[str, list[str]] = {}
    for name in COLUMNS:
        if name in CATEGORIES:
            columns[name] = draw.choice(CATEGORIES[name], rows).tolist()
        else:
            columns[name] = [str(value) for value in draw.choice([0, 1, 0.01, 0.99, 181, 693_375_640], rows)]
    return polars.DataFrame(columns)


def records_of(table: polars.DataFrame, numbers: bool = False) -> list[dict[str, Any]]:
    """Returns rows as a client has them: numbers as numbers, and categories as text or, if they are, as numbers."""
    text = [name for name, categories in CATEGORIES.items() if not (numbers and set(categories) <= {"0", "1"})]
    rows = [
        [record[name] if name in text else json.loads(record[name]) for name in COLUMNS] for record in table.to_dicts()
    ]
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


def encoded(records: list[dict[str, Any]], dataset: str, version: str) -> Matrix:
    manifest = read_manifest(MODELS / dataset / version)
    return RecordsRequest(Address(dataset), json.loads(json.dumps(records))).encoded(Encoder.of(manifest))


@pytest.mark.parametrize("version", SHIPPED)
@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("numbers", [False, True])
def test_records_become_the_loaders_vectors(numbers: bool, dataset: str, version: str) -> None:
    table = made(300)
    assert encoded(records_of(table, numbers), dataset, version).tobytes() == one_hot(table).tobytes()


@pytest.mark.data
@pytest.mark.parametrize("dataset", DATASETS)
def test_rows_of_the_file_become_the_loaders_vectors(dataset: str) -> None:
    table = polars.read_csv(
        fetch(KDDCUP, None), has_header=False, new_columns=[*COLUMNS, "label"], infer_schema=False, n_rows=20_000
    )
    records = records_of(table)
    assert {"tcp", "http", "SF"} <= {value for record in records for value in record.values()}
    assert encoded(records, dataset, SHIPPED[-1]).tobytes() == one_hot(table).tobytes()
