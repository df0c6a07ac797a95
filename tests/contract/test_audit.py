"""`make audit`: what it makes of what the vulnerability service says, or of its silence."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


audit = load()


def package(name: str, **further: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"name": name, "version": "1.0", "vulns": [], **further}


SKIPPED = {"name": "numpy", "skip_reason": "not found"}
OWN = {"name": "radogaga", "skip_reason": "not found"}
HOLE = package("orjson", vulns=[{"id": "CVE-1", "fix_versions": ["1.1", "2.0"]}])


@pytest.mark.parametrize(
    ("report", "status", "said"),
    [
        ({"dependencies": [package("numpy"), OWN]}, 0, "1 packages looked up, 0 vulnerabilities known"),
        ({"dependencies": [package("numpy"), HOLE]}, 1, "orjson 1.0: CVE-1, fixed in 1.1, 2.0"),
        ({"dependencies": [SKIPPED, HOLE]}, 1, "NOT AUDITED, 1 could not be looked up:\n  numpy: not found"),
        ({"dependencies": [package("orjson"), SKIPPED]}, 2, "NOT AUDITED, 1 could not"),
        ({"dependencies": [SKIPPED, OWN]}, 2, "0 packages looked up"),
        ({"dependencies": [OWN]}, 2, "0 packages looked up"),
        (None, 2, "NOT AUDITED, 1 could not be looked up:\n  everything: ConnectionError: nobody there"),
    ],
)
def test_silence_is_no_good_news(
    report: dict[str, Any] | None, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = audit.read(json.dumps(report) if report else "", "Traceback\nConnectionError: nobody there\n")
    assert audit.tell(found, offline=False) == status
    assert said in capsys.readouterr().out
    assert audit.tell(found, offline=True) == (0 if status == 2 else status)
    assert ("AUDIT_OFFLINE is set" in capsys.readouterr().out) == (status == 2)


def test_where_packages_came_from_is_left_out() -> None:
    bom = {"components": [{"name": "x", "externalReferences": [{"url": "file:///home/somebody"}], "licenses": []}]}
    assert audit.without_origins(bom) == {"components": [{"name": "x", "licenses": []}]}
