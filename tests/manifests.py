"""Manifests as a test wants them, with the digest that they then have."""

import hashlib
import json
from pathlib import Path
from typing import Any

UNSEALED = "0" * 64


def write_manifest(path: Path, manifest: dict[str, Any], indent: int | None = None) -> None:
    """Writes a manifest; its own digest, if it has a field for it, is made anew."""
    text = json.dumps(manifest | {"sha256": UNSEALED} if "sha256" in manifest else manifest, indent=indent)
    if "sha256" in manifest:
        before, _, behind = text.rpartition(UNSEALED)
        text = before + hashlib.sha256(text.encode()).hexdigest() + behind
    path.write_text(text + ("\n" if indent else ""))
