"""Tables with the features of shipped models, in every format."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from service.detector import Detector, Scores
from service.graphs import Matrix
from service.manifest import CategoricalFeature
from service.runtime import Runtime
from tests.server import MODELS, SHIPPED

Table = Any
"""A `pyarrow.Table`; pyarrow has no types."""

Type = Any
"""A `pyarrow.DataType`."""

FEATURES = ("age", "TSH", "T3", "TT4", "T4U", "FTI")


@cache
def detector(dataset: str = "thyroid", version: str = SHIPPED[-1]) -> Detector:
    return Detector.load(MODELS / dataset / version, Runtime("cpu"))


def thyroid(rows: int = 100, seed: int = 0) -> Table:
    """Makes a table with a column of its own before, between and behind the features, which stand in another order."""
    draw = np.random.default_rng(seed)
    columns = {name: draw.uniform(0, 0.5, rows) for name in FEATURES}
    return pa.table(
        {
            "patient": [f"{i:04}" for i in range(rows)],
            **{name: columns[name] for name in FEATURES[:3]},
            "visit": np.arange(rows),
            **{name: columns[name] for name in reversed(FEATURES[3:])},
            "ward": pa.array(["east", "west"] * (rows // 2) + ["east"] * (rows % 2)).dictionary_encode(),
        }
    )


def expected(table: Table, dataset: str = "thyroid") -> Scores:
    """Scores a table of numbers at once."""
    model = detector(dataset)
    return model.score(np.stack([table[name].to_numpy() for name in model.columns], axis=1).astype(np.float32))


def write(table: Table, path: Path, piece: int | None = None) -> Path:
    """Writes a table in the format that a path's name says, in pieces of so many rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.name.partition(".")[2]:
        case "parquet":
            pq.write_table(table, path, row_group_size=piece)
        case "csv":
            pyarrow.csv.write_csv(plain(table), path)
        case "csv.gz":
            with pa.CompressedOutputStream(str(path), "gzip") as stream:
                pyarrow.csv.write_csv(plain(table), stream)
        case "arrow" | "feather":
            with pa.ipc.new_file(str(path), table.schema) as writer:
                writer.write_table(table, max_chunksize=piece)
        case "arrows":
            with pa.ipc.new_stream(str(path), table.schema) as writer:
                writer.write_table(table, max_chunksize=piece)
        case other:
            raise ValueError(other)
    return path


def plain(table: Table) -> Table:
    """Returns a table without dictionaries, which CSV has not."""
    fields = [field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field for field in table.schema]
    return table.cast(pa.schema(fields))


def changed(table: Table, row: int, column: str, value: object) -> Table:
    """Returns a table with another value in one place."""
    values = table[column].to_pylist()
    values[row] = value
    return table.set_column(table.schema.get_field_index(column), column, pa.array(values))


def examples(dataset: str) -> Matrix:
    """Returns the example rows of a shipped model."""
    return np.array(json.loads((MODELS / dataset / SHIPPED[-1] / "examples.json").read_text())["x"], dtype=np.float32)


def one_hot(rows: Matrix, dataset: str) -> Table:
    """Makes a table of rows with a column for each category."""
    return pa.table(dict(zip(detector(dataset).columns, rows.T, strict=True)))


def raw(rows: Matrix, dataset: str) -> Table:
    """Makes a table of rows with a column for each categorical feature."""
    columns: dict[str, Any] = {}
    place = 0
    for feature in detector(dataset).manifest.features:
        if isinstance(feature, CategoricalFeature):
            width = len(feature.categories)
            columns[feature.name] = [feature.categories[i] for i in rows[:, place : place + width].argmax(axis=1)]
            place += width
        else:
            columns[feature.name] = rows[:, place]
            place += 1
    return pa.table(columns)
