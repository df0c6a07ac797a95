"""The contract has one home: the reader's model, the schema for machines and the shipped folders say the same."""

import json
from pathlib import Path

import jsonschema
import pytest

from service import manifest

MODELS = Path(__file__).parents[2] / "models"
FOLDERS = sorted(path.parent for path in MODELS.glob("*/*/manifest.json"))


def test_the_schema_for_machines_is_the_readers() -> None:
    assert (MODELS / "manifest.schema.json").read_text() == manifest.schema()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_shipped_folders_satisfy_both(folder: Path) -> None:
    schema = json.loads((MODELS / "manifest.schema.json").read_text())
    jsonschema.validate(json.loads((folder / "manifest.json").read_text()), schema)
    manifest.read_manifest(folder)


def test_the_schema_refuses_what_the_reader_refuses() -> None:
    schema = json.loads((MODELS / "manifest.schema.json").read_text())
    good = json.loads((FOLDERS[0] / "manifest.json").read_text())
    for broken in (
        {**good, "format_version": 5},
        {**good, "colour": 1},
        {**good, "features": []},
        {**good, "version": 0},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)
