"""The contract's reader refuses what breaks the contract, and says where."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.errors import StartError
from service.manifest import read_manifest
from tests.manifests import Change, assert_refused, drop, set_at


def test_the_shipped_manifest_is_read(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert (manifest.dataset, manifest.version, manifest.method) == ("thyroid", 1, "RaDOGAGA")
    assert (manifest.width, manifest.latent_width) == (6, 6)


BROKEN = [
    (set_at("format_version", to=5), "format_version is 5: Input should be 1, 2, 3 or 4"),
    (drop("format_version"), "format_version is missing"),
    (set_at("colour", to="red"), "colour is unknown"),
    (set_at("provenance", "mood", to="good"), "provenance.mood is unknown"),
    (set_at("threshold", to=float("nan")), "threshold is nan: Input should be a finite number"),
    (set_at("threshold", to=float("inf")), "threshold is inf: Input should be a finite number"),
    (set_at("threshold", to="4.5"), "threshold is '4.5': Input should be a valid number"),
    (drop("threshold"), "threshold is missing"),
    (set_at("features", to=[]), "features is []: List should have at least 1 item"),
    (set_at("features", 0, "kind", to="word"), "features.0 is"),
    (set_at("graphs", "scorer", "sha256", to="abc"), "graphs.scorer.sha256 is 'abc'"),
    (set_at("graphs", "scorer", "file", to="../scorer.onnx"), "graphs.scorer.file is '../scorer.onnx'"),
    (set_at("graphs", "encoder", "output", "shape", to=["N"]), "graphs.encoder.output.shape is ['N'], expected"),
    (set_at("graphs", "encoder", "output", "shape", to=["N", 7]), "graphs.decoder.input.shape is ['N', 6], expected"),
    (set_at("graphs", "scorer", "input", "shape", to=["N", 5]), "graphs.scorer.input.shape is ['N', 5], expected"),
    (set_at("graphs", "scorer", "input", "dtype", to="float64"), "graphs.scorer.input.dtype is 'float64'"),
    (set_at("dataset", to="Thyroid!"), "dataset is 'Thyroid!'"),
    (set_at("dataset", to="arrhythmia"), "dataset is 'arrhythmia', expected 'thyroid' as the folder is called"),
    (set_at("version", to=3), "version is '3', expected '1' as the folder is called"),
    (set_at("version", to=0), "version is 0: Input should be greater than or equal to 1"),
    (set_at("features", 1, "name", to="age"), "features is"),
    (set_at("features", 1, "name", to=""), "features.1.numeric.name is ''"),
    (set_at("features", 0, "minimum", to=2.0), "minimum 2.0 is above maximum 1.0"),
    (set_at("features", 0, "maximum", to=1e300), "features.0.numeric.maximum is 1e+300"),
    (set_at("calibration", "flagged", to=10_000), "flagged 10000 is above rows 1887"),
    (set_at("provenance", "settings", "lambda1", to=float("nan")), "provenance.settings is"),
    (set_at("score_bins", "upper_bounds", 0, to="low"), "score_bins.upper_bounds.0 is 'low'"),
    (set_at("score_bins", "upper_bounds", 1, to=-1e9), "upper_bounds has -1000000000.0 behind "),
    (set_at("score_bins", "upper_bounds", to=[0.0]), "rows has 20 entries, expected one more than the 1 bounds"),
    (set_at("score_bins", "rows", 0, to=0), "score_bins.rows.0 is 0"),
    (set_at("score_bins", "rows", 0, to=1000), "expected calibration.rows, 1887"),
    (
        set_at("score_bins", to={"upper_bounds": [*map(float, range(100))], "rows": [1] * 101}),
        "score_bins.upper_bounds",
    ),
    (set_at("calibration", "contamination", to=0.0), "calibration.contamination is 0.0"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_a_broken_manifest_is_refused_with_folder_field_and_value(folder: Path, change: Change, message: str) -> None:
    assert_refused(folder, change, message)


def test_manifests_need_no_bins(folder: Path, change_manifest: Callable[[Change], None]) -> None:
    change_manifest(lambda manifest: manifest.pop("score_bins"))
    assert read_manifest(folder).score_bins is None


def test_a_feature_fewer_than_the_graphs_have(folder: Path, change_manifest: Callable[[Change], None]) -> None:
    change_manifest(lambda manifest: manifest["features"].pop())
    message = r"graphs.scorer.input.shape is \['N', 6\], expected \['N', 5\] for 5 columns of features"
    with pytest.raises(StartError, match=message):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Invalid JSON: EOF"),
        ("{", "Invalid JSON: EOF"),
        ("[]", "should be an object"),
        ("\ufeff{}", "Invalid JSON"),
    ],
)
def test_a_manifest_that_is_not_json(folder: Path, text: str, message: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(StartError, match=message):
        read_manifest(folder)


def test_a_key_that_is_there_twice(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace("{", '{"threshold": 1.0, ', 1))
    with pytest.raises(StartError, match="manifest.json: 'threshold' is there 2 times"):
        read_manifest(folder)


def test_a_category_that_is_there_twice(folder: Path, change_manifest: Callable[[Change], None]) -> None:
    categories = {"kind": "categorical", "name": "colour", "categories": ["red", "red"]}
    change_manifest(lambda manifest: manifest["features"].__setitem__(0, categories))
    with pytest.raises(StartError, match="'red' is there 2 times"):
        read_manifest(folder)


def test_a_missing_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    with pytest.raises(StartError, match=r"manifest.json: can't be read \(No such file or directory\)"):
        read_manifest(folder)


def test_an_error_does_not_repeat_a_whole_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps({"features": ["x" * 1_000_000]}))
    with pytest.raises(StartError) as caught:
        read_manifest(folder)
    assert len(str(caught.value)) < 5000


def unsealed(manifest: dict[str, Any]) -> None:
    del manifest["sha256"]


def test_manifests_of_the_first_format_have_no_digest(folder: Path, change_manifest: Callable[[Change], None]) -> None:
    change_manifest(unsealed)
    with pytest.raises(StartError, match="sha256 is missing, format_version 2 has it"):
        read_manifest(folder)
    change_manifest(lambda manifest: manifest.update(format_version=1))
    assert read_manifest(folder).sha256 is None


def test_a_digest_counts_whatever_the_format(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 1'))
    with pytest.raises(StartError, match=r"sha256 is [0-9a-f]{64}, but the file's is [0-9a-f]{64}: it was altered"):
        read_manifest(folder)


def test_not_even_white_space_may_be_added(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(StartError, match="it was altered"):
        read_manifest(folder)


def test_a_digest_that_is_there_twice_is_refused(folder: Path) -> None:
    digest = json.loads((folder / "manifest.json").read_text())["sha256"]
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"recipe": "', f'"recipe": "{digest}'))
    with pytest.raises(StartError, match=f"sha256 is there 2 times as {digest}, expected once"):
        read_manifest(folder)
    text = path.read_text()
    path.write_text(text.replace(digest, f"{digest[:-1]}\\u{ord(digest[-1]):04x}"))
    with pytest.raises(StartError, match="sha256 is there 0 times"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_at("graphs", "encoder", "output", "shape", to=["N", 10**9]), "graphs.encoder.output.shape.1"),
        (set_at("density", "components", to=10**9), "density.components is 1000000000: Input should be less"),
        (set_at("density", "dimensions", to=10**9), "density.dimensions is 1000000000: Input should be less"),
        (set_at("density", "members", to=10**9), "density.members is 1000000000: Input should be less"),
        (
            set_at("density", "dimensions", to=60_000),
            "the covariances have 7200000000 values, expected at most 8388608",
        ),
        (set_at("examples", "rows", to=10**9), "examples.rows is 1000000000: Input should be less"),
        (set_at("provenance", "settings", "deep", to=0), "recursion limit exceeded"),
    ],
)
def test_what_would_take_too_much_memory_is_refused(
    folder: Path, change_manifest: Callable[[Change], None], change: Change, message: str
) -> None:
    change_manifest(change)
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"deep": 0', f'"deep": {"[" * 5000}{"]" * 5000}'))
    with pytest.raises(StartError, match=message):
        read_manifest(folder)


def test_many_names_are_compared_quickly(folder: Path, change_manifest: Callable[[Change], None]) -> None:
    def widen(manifest: dict[str, Any]) -> None:
        manifest["features"] = [{"kind": "categorical", "name": "x", "categories": [*map(str, range(100_000))]}]

    change_manifest(widen)
    started = time.process_time()
    with pytest.raises(StartError, match="for 100000 columns"):
        read_manifest(folder)
    assert time.process_time() - started < 5


def test_of_many_wrong_fields_the_first_are_named(folder: Path, change_manifest: Callable[[Change], None]) -> None:
    change_manifest(lambda manifest: manifest.update(features=[1] * 50_000))
    with pytest.raises(StartError, match=r"features.9 is 1: .*; and 49990 more") as caught:
        read_manifest(folder)
    assert len(str(caught.value)) < 2000
