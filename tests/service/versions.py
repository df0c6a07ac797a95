"""Versions of a model that come and go."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.manifests import write_manifest


def copy_version(folder: Path, version: int, change: Callable[[dict[str, Any]], None] = lambda _: None) -> Path:
    """Copies a model folder to another version with a threshold of its own, and gives it its name when it is whole."""
    written = folder.parent / f".version-{version}"
    shutil.copytree(folder, written)
    manifest = json.loads((written / "manifest.json").read_text())
    manifest.update(version=version, threshold=float(version))
    change(manifest)
    write_manifest(written / "manifest.json", manifest)
    return written.rename(folder.parent / str(version))
