"""Manifests as a test wants them, with the digest that they then have."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.errors import StartError
from service.manifest import read_manifest
from service.seals import UNSEALED, sealed

Change = Callable[[dict[str, Any]], None]


def write_manifest(path: Path, manifest: dict[str, Any], indent: int | None = None) -> None:
    """Writes a manifest; its own digest, if it has a field for it, is made anew."""
    text = json.dumps(manifest | {"sha256": UNSEALED} if "sha256" in manifest else manifest, indent=indent)
    text += "\n" if indent else ""
    path.write_text(sealed(text) if "sha256" in manifest else text)


def rewrite(folder: Path, change: Change) -> None:
    """Rewrites the manifest of a model folder after a change."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    write_manifest(path, manifest)


def set_at(*path: str | int, to: object) -> Change:
    """Returns the change that sets a value."""

    def change(manifest: dict[str, Any]) -> None:
        target: Any = manifest
        for part in path[:-1]:
            target = target[part]
        target[path[-1]] = to

    return change


def drop(name: str) -> Change:
    """Returns the change that takes a field away."""

    def change(manifest: dict[str, Any]) -> None:
        del manifest[name]

    return change


def assert_refused(folder: Path, change: Change, message: str) -> None:
    """Asserts that a folder's manifest is refused after a change, and that the error names the folder and says why."""
    rewrite(folder, change)
    with pytest.raises(StartError) as caught:
        read_manifest(folder)
    assert str(folder) in str(caught.value)
    assert message in str(caught.value)
