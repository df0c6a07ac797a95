"""The bar holds for a share of the places, and fails for a service that trusts its files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from service.detector import Detector
from service.errors import StartError
from service.files import Folder
from tests.chaos.corruption import BAR, Damage, answers_of, damages, load, spread, try_damage, try_folder
from tests.manifests import write_manifest
from tests.server import IMAGES, MODELS

FOLDER = MODELS / "thyroid" / "1"


@pytest.mark.parametrize("folder", [FOLDER, MODELS / IMAGES], ids=["mixture", "factorized"])
def test_damaged_folders_are_refused(folder: Path) -> None:
    found = try_folder(folder, load, places=10)
    assert set(found) == {"refused"}
    assert found["refused"] == 6 * (2 * 10 + 5 + 5)


@pytest.mark.slow
def test_the_bar_holds_for_a_share() -> None:
    outcome = BAR.run(0.02)
    assert outcome.met, outcome.failures
    assert outcome.figures["refused with a reason"] == outcome.figures["damages"]


def test_a_loader_that_checks_no_digest_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Folder, "read_hashed", lambda self, name, _, limit: self.read(name, limit))
    found = try_folder(FOLDER, load, places=10)
    assert any("scorer.onnx flipped at" in text and "answers otherwise" in text for text in found), found
    assert found["same"], "bits of mixture.npz, whose values answers don't depend on, were flipped"


@pytest.mark.parametrize("sealed", [True, False])
def test_a_digit_of_the_threshold_is_a_threshold_still(tmp_path: Path, sealed: bool) -> None:
    """Which is why a manifest has a digest of its own; the bar fails for one without."""
    folder = tmp_path / "thyroid" / "1"
    shutil.copytree(FOLDER, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    if not sealed:
        del manifest["sha256"]
        write_manifest(folder / "manifest.json", {**manifest, "format_version": 1})
    rows = np.zeros((1, 6), np.float32)
    expected = answers_of(load(folder), rows)
    digit = str(manifest["threshold"]).encode()
    content = (folder / "manifest.json").read_bytes().replace(digit, bytes([digit[0] ^ 1]) + digit[1:])
    found = try_damage(folder, Damage("flipped", "manifest.json", content), load, rows, expected)
    assert found.endswith("answers otherwise") is not sealed
    assert (found == "refused") is sealed


def test_another_error_than_a_refusal_fails() -> None:
    def broken(folder: Path) -> Detector:
        if (folder / "scorer.onnx").read_bytes() != (FOLDER / "scorer.onnx").read_bytes():
            raise KeyError("scorer")
        return load(folder)

    assert any("was no StartError but KeyError('scorer')" in text for text in try_folder(FOLDER, broken, places=2))


def test_a_reason_that_names_another_file_fails() -> None:
    def vague(folder: Path) -> Detector:
        try:
            return load(folder)
        except StartError:
            raise StartError("something is wrong") from None

    assert any("was refused for another reason" in text for text in try_folder(FOLDER, vague, places=2))


def test_places_are_spread_from_the_first_byte_to_the_last() -> None:
    assert spread(10, 3) == [0, 5, 10]
    assert len(spread(10_000, 200)) == 200
    contents = {"a": bytes(300), "b": b"xyz"}
    done = list(damages(contents, 200, seed=0))
    assert {damage.file for damage in done} == {"a", "b"}
    assert all(damage.content != contents[damage.file] for damage in done if damage.kind != "zeroed")
    assert sum(damage.kind == "flipped" and damage.file == "a" for damage in done) == 200
