"""What docs/offline.md shows is so."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.server import ROOT
from tests.service.offline.conftest import Score

DOCS = (ROOT / "docs" / "offline.md").read_text()
TABLE, COMMAND, ON_RAY = re.findall(r"^```sh\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)
OUTPUT = next(json.loads(line) for line in DOCS.splitlines() if line.startswith('{"dataset"'))


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with the documented tables, but with fewer rows."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    (tmp_path / "big").mkdir()
    program = TABLE.partition("<<'END'\n")[2].removesuffix("END\n").replace("0_000", "0")
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_documented_command_scores_the_documented_tables(folder: Path, score: Score) -> None:
    program, *words = shlex.split(COMMAND)
    assert [program, *words[:3]] == [".venv/bin/python", "-m", "service", "score"]
    assert words[4:] == ["--dataset", "thyroid", "--out", "scored/"]
    summary = score(words[3], out=Path("scored")).summary
    assert summary.keys() == OUTPUT.keys()
    same = ("dataset", "version", "threshold", "engine", "tables", "written", "bad_rows")
    assert [summary[name] for name in same] == [OUTPUT[name] for name in same]
    assert summary["rows"] == 1000
    assert pq.read_schema(folder / "scored" / "3.parquet").names == ["patient", "score", "anomaly"]


def test_the_documented_command_for_ray_differs_in_the_engine_only() -> None:
    words, on_ray = shlex.split(COMMAND), shlex.split(ON_RAY)
    assert on_ray == [
        ".venv-ray/bin/python",
        *words[1:-1],
        "scored-on-ray/",
        "--engine",
        "ray",
        "--block-rows",
        "100000",
    ]
