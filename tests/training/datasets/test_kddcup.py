"""KDDCup99's columns, on a few lines in the file's form, and on the file itself."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import polars
import pytest

from training.datasets import kddcup
from training.datasets.files import RemoteFile
from training.datasets.kddcup import CATEGORIES, COLUMNS, FEATURES, UnknownCategoryError, kddcup99, kddcup_rev, one_hot

LINE = dict.fromkeys(COLUMNS, "0") | {"protocol_type": "tcp", "service": "http", "flag": "SF"}


def line(label: str, **values: str) -> str:
    return ",".join([*(LINE | values).values(), label])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a file of six normal lines and twelve attacks, and a Rev of six attacks."""
    lines = [line("normal.", src_bytes=str(n)) for n in range(6)]
    lines += [line("smurf.", protocol_type="icmp", service="ecr_i", src_bytes=str(100 + n)) for n in range(12)]
    content = gzip.compress(("\n".join(lines) + "\n").encode())
    file = RemoteFile("k/small.gz", "https://data.test/k", hashlib.sha256(content).hexdigest(), len(content))
    monkeypatch.setattr(kddcup, "KDDCUP", file)
    monkeypatch.setattr(kddcup, "ATTACKS_IN_REV", 6)
    (tmp_path / "k").mkdir()
    (tmp_path / "k" / "small.gz").write_bytes(content)
    return tmp_path


def test_there_are_121_columns() -> None:
    assert len(FEATURES) == 41
    assert sum(feature.columns for feature in FEATURES) == 121
    widths = [len(CATEGORIES[name]) for name in CATEGORIES]
    assert widths == [3, 66, 11, 2, 2, 1, 2]


def test_a_row_becomes_numbers_and_ones() -> None:
    row = LINE | {"duration": "7", "src_bytes": "181", "protocol_type": "udp", "service": "whois", "logged_in": "1"}
    x = one_hot(polars.DataFrame({name: [value] for name, value in row.items()}))[0]
    assert x.shape == (121,)
    assert x[0] == 7
    assert x[1:4].tolist() == [0, 0, 1]  # icmp, tcp, udp
    assert np.flatnonzero(x[4:70]).tolist() == [65]  # whois is the last service
    assert np.flatnonzero(x[70:81]).tolist() == [9]  # SF
    assert x[81] == 181
    assert x.sum() == 7 + 181 + 7


def test_a_category_that_is_not_listed_is_named() -> None:
    table = polars.DataFrame({name: [value, value] for name, value in LINE.items()})
    table = table.with_columns(polars.Series("service", ["http", "gopher2"]))
    with pytest.raises(UnknownCategoryError, match="row 1: service is 'gopher2', expected one of IRC, X11, "):
        one_hot(table)


def test_a_number_that_is_none() -> None:
    table = polars.DataFrame({name: [value] for name, value in LINE.items()})
    with pytest.raises(polars.exceptions.InvalidOperationError, match="src_bytes"):
        one_hot(table.with_columns(polars.Series("src_bytes", ["many"])))


def test_in_kddcup99_normal_rows_are_the_anomalies(cache: Path) -> None:
    dataset = kddcup99(cache)
    assert dataset.x.shape == (18, 121)
    assert dataset.y.tolist() == [True] * 6 + [False] * 12
    assert (dataset.name, dataset.contamination) == ("kddcup99", 0.2)


def test_in_kddcup_rev_drawn_attacks_are_the_anomalies(cache: Path) -> None:
    dataset = kddcup_rev(cache)
    assert dataset.x.shape == (12, 121)
    assert dataset.y.tolist() == [False] * 6 + [True] * 6
    attacks = dataset.x[dataset.y][:, 81]
    assert len(set(attacks.tolist())) == 6
    assert np.array_equal(attacks, kddcup_rev(cache).x[dataset.y][:, 81])


@pytest.mark.data
def test_the_published_file() -> None:
    dataset = kddcup99()
    assert dataset.x.shape == (494_021, 121)
    assert dataset.y.sum() == 97_278
    assert dataset.x.any(axis=0).sum() == 120  # num_outbound_cmds is zero throughout
    rev = kddcup_rev()
    assert rev.x.shape == (121_597, 121)
    assert rev.y.sum() == 24_319
