"""Manifests as a test wants them, with the digest that they then have."""

import json
from pathlib import Path
from typing import Any

from service.seals import UNSEALED, sealed


def write_manifest(path: Path, manifest: dict[str, Any], indent: int | None = None) -> None:
    """Writes a manifest; its own digest, if it has a field for it, is made anew."""
    text = json.dumps(manifest | {"sha256": UNSEALED} if "sha256" in manifest else manifest, indent=indent)
    text += "\n" if indent else ""
    path.write_text(sealed(text) if "sha256" in manifest else text)
