"""Training and service make the same rows of the same table, bit by bit, whatever it comes in."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from service.encoding import Encoder
from service.formats.records import RecordsRequest
from service.formats.rows import Address
from service.graphs import Matrix
from service.manifest import Manifest, read_manifest
from service.offline.columns import layout_of
from service.offline.tables import Part, format_of, read, schema_of
from tests.service import kinds
from training.tables import encoding, reading

ROWS = 500


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(kinds.make(tmp_path_factory.mktemp("models")))


def table(seed: int) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Makes a table with gaps, new categories and moments of all centuries."""
    draw = np.random.default_rng(seed)

    def gaps(values: list[Any]) -> list[Any]:
        return [None if gap else value for value, gap in zip(values, draw.random(ROWS) < 0.1, strict=True)]

    start = datetime(1, 1, 1, tzinfo=UTC)
    moments = [start + timedelta(microseconds=int(us)) for us in draw.integers(0, 315_537_897_599_999_999, ROWS)]
    return pa.table(
        {
            "id": np.arange(ROWS),
            "amount": draw.normal(size=ROWS) * 10.0 ** draw.integers(-30, 30, ROWS),
            "age": pa.array(gaps(draw.integers(-(2**62), 2**62, ROWS).tolist()), pa.int64()),
            "fee": pa.array(gaps(draw.normal(size=ROWS).tolist()), pa.float32()),
            "member": pa.array((draw.random(ROWS) < 0.5).tolist()),
            "abroad": pa.array(gaps((draw.random(ROWS) < 0.5).tolist()), pa.bool_()),
            "city": pa.array(gaps(draw.choice(["Bern", "Genève", "Uri", "Z: a, b"], ROWS).tolist()), pa.string()),
            "card": draw.choice(["gold", "plain", "black"], ROWS),
            "branch": draw.choice(["7", "12", "9"], ROWS),
            "at": pa.array(gaps(moments), pa.timestamp("us", "UTC")),
            "opened": pa.array(moments[::-1], pa.timestamp("us")),
        }
    )


def by_training(path: Path, manifest: Manifest) -> Matrix:
    features = [feature.model_dump(exclude_none=True) for feature in manifest.features]
    encoder = encoding.Encoder(str(path), features)
    return np.concatenate([x for x, _ in encoder.batches(reading.open_table(path))])


def by_service(path: Path, manifest: Manifest) -> Matrix:
    layout = layout_of(schema_of(str(path)), manifest, str(path), format_of(path).text)
    return np.concatenate([layout.matrix(batch) for batch in read(Part(str(path)), layout.columns, 100)])


def by_records(rows: Any, manifest: Manifest) -> Matrix:  # noqa: ANN401
    text = json.dumps(rows.to_pylist(), default=lambda moment: moment.isoformat())
    return RecordsRequest(Address(manifest.dataset), json.loads(text)).encoded(Encoder.of(manifest))


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "csv"])
@pytest.mark.parametrize("seed", range(3))
def test_both_encoders_make_the_same_rows(seed: int, suffix: str, manifest: Manifest, tmp_path: Path) -> None:
    rows, path = table(seed), tmp_path / f"table.{suffix}"
    if suffix == "csv":
        pyarrow.csv.write_csv(rows, path)
    elif suffix == "arrow":
        with pa.ipc.new_file(str(path), rows.schema) as writer:
            writer.write_table(rows, max_chunksize=70)
    else:
        pq.write_table(rows, path, row_group_size=130)
    ours, theirs = by_service(path, manifest), by_training(path, manifest)
    np.testing.assert_array_equal(ours, theirs)
    assert ours.tobytes() == theirs.tobytes()
    if suffix != "csv":
        assert by_records(rows, manifest).tobytes() == ours.tobytes()
