"""Models of images: what their manifests may say, how their density is held against their examples, and traversals."""

import copy
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.detector import Detector
from service.errors import StartError
from service.manifest import read_manifest
from service.runtime import Runtime
from service.settings import Settings
from tests.manifests import Change, assert_refused, drop, rewrite, set_at
from tests.service import images
from tests.service.conftest import wait_until_ready
from tests.service.test_detector import change_examples, replace

CPU = Runtime("cpu")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return images.make(tmp_path / "models")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = images.make(tmp_path_factory.mktemp("images"))
    with TestClient(create_app(Settings(models=folder.parents[1], provider="cpu"))) as client:
        yield wait_until_ready(client)


def test_a_folder_of_images_is_served(made: Path) -> None:
    detector = Detector.load(made, CPU)
    x = np.random.default_rng(1).uniform(-2, 10, (5, images.COLUMNS))
    expected = images.answers(x)
    assert detector.score(x.astype(np.float32)).scores == pytest.approx(np.array(expected["score"]), rel=1e-5)
    assert detector.manifest.density.kind == "factorized"
    assert detector.manifest.image is not None
    assert detector.manifest.image.size == images.COLUMNS


BROKEN = [
    (set_at("image", "height", to=3), "image has 6 values, expected 4 as features have columns"),
    (set_at("image", "channels", to=0), "image.channels is 0"),
    (set_at("image", "depth", to=1), "image.depth is unknown"),
    (
        set_at("features", 1, to={"kind": "boolean", "name": "p1"}),
        "features.1.kind is 'boolean', expected 'numeric' as this is an image",
    ),
    (
        set_at("features", 1, "missing", to={"fill": 0.0, "indicator": True}),
        "features.1.missing.indicator is True, expected False as this is an image",
    ),
    (set_at("latents", "means", to=[0.0]), "latents.means has 1 entries, expected 2 as there are latent features"),
    (set_at("latents", "deviations", to=[1.0] * 3), "latents.deviations has 3 entries, expected 2"),
    (set_at("latents", "deviations", 1, to=-0.5), "latents.deviations.1 is -0.5"),
    (set_at("latents", "means", 0, to=float("nan")), "latents.means.0 is nan"),
    (set_at("latents", "means", 0, to=-1e39), "latents.means.0 is -1e+39"),
    (set_at("latents", "deviations", 0, to=1e39), "latents.deviations.0 is 1e+39"),
    (set_at("density", "kind", to="parzen"), "density is {'file': 'factorized.npz'"),
    (set_at("density", "dimensions", to=3), "density.dimensions is 3, expected 2 as there are latent features"),
    (set_at("density", "filters", to=[3, 0]), "density.filters.1 is 0"),
    (set_at("density", "filters", to=[3, 257]), "density.filters.1 is 257"),
    (set_at("density", "filters", to=[3] * 17), "density.filters is [3, 3,"),
    (set_at("density", "distortion_weight", to=-1.0), "density.distortion_weight is -1.0"),
    (lambda manifest: manifest["density"].pop("distortion_weight"), "density.distortion_weight is missing"),
    (set_at("density", "components", to=2), "density.components is unknown"),
    (drop("sha256"), "sha256 is missing, format_version 4 has it"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_a_broken_manifest_is_refused_with_field_and_value(made: Path, change: Change, message: str) -> None:
    assert_refused(made, change, message)


def test_a_density_of_too_many_values_is_refused(made: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["density"] |= {"dimensions": 65_536, "filters": [256] * 2}

    rewrite(made, change)
    with pytest.raises(StartError, match="the matrices have 4328521728 values, expected at most 8388608"):
        read_manifest(made)


@pytest.mark.parametrize("format_version", [2, 3])
@pytest.mark.parametrize(
    ("left", "message"),
    [
        ("image", "image is there"),
        ("latents", "latents is there"),
        ("density", "density.kind is 'factorized'"),
    ],
)
def test_older_formats_have_none_of_it(made: Path, format_version: int, left: str, message: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["format_version"] = format_version
        for name in {"image", "latents"} - {left}:
            del manifest[name]
        if left != "density":
            manifest["density"] = {
                **{name: manifest["density"][name] for name in ("file", "sha256")},
                "kind": "gaussian_mixture",
                "members": 1,
                "components": 1,
                "dimensions": 2,
            }

    rewrite(made, change)
    with pytest.raises(StartError, match=f"{message}, format_version {format_version} has no such thing"):
        read_manifest(made)


def npz(**arrays: Any) -> bytes:  # noqa: ANN401 - whatever numpy takes
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def changed(name: str, to: float) -> bytes:
    arrays = copy.deepcopy(images.arrays())
    arrays[name].flat[1] = to
    return npz(**arrays)


DAMAGED = [
    (b"junk", "factorized.npz: is no file of numpy arrays"),
    (npz(weights=np.ones(2)), "factorized.npz: has {'weights': ()}, expected {'matrices_0': (2, 1, 1), 'biases_0': (2"),
    (npz(**images.arrays(), factors_0=np.zeros((2, 1))), "factorized.npz: has {'matrices_0': (2, 1, 1), "),
    (changed("matrices_0", 0.0), "matrices_0[1, 0, 0] is 0.0, expected a number from 2.22507e-308 to 1.79769e+308"),
    (changed("matrices_0", -2.0), "matrices_0[1, 0, 0] is -2.0, expected "),
    (changed("biases_0", np.nan), "biases_0[1, 0] is nan, expected a number from -1.79769e+308 to 1.79769e+308"),
    (changed("biases_0", np.inf), "biases_0[1, 0] is inf, expected "),
    (changed("biases_0", 2.001), "by the density, the examples have "),
    (changed("matrices_0", 1.7e308), "is nan by the density, the examples have "),
]


@pytest.mark.parametrize(("content", "message"), DAMAGED, ids=[message for _, message in DAMAGED])
def test_a_density_that_is_not_the_scorers_is_refused(made: Path, content: bytes, message: str) -> None:
    """Although its digest is the manifest's."""
    replace(made, ("density",), content)
    with pytest.raises(StartError, match=re.escape(message)) as caught:
        Detector.load(made, CPU)
    assert f"{made}/factorized.npz: " in str(caught.value)


def test_a_bit_of_an_array_that_is_flipped_is_noticed(made: Path) -> None:
    content = bytearray((made / "factorized.npz").read_bytes())
    content[content.index(images.arrays()["biases_0"].tobytes())] ^= 1
    replace(made, ("density",), bytes(content))
    with pytest.raises(
        StartError, match="factorized.npz: is no file of numpy arrays .Bad CRC-32 for file .biases_0.npy"
    ):
        Detector.load(made, CPU)


def test_the_weight_of_the_distortion_is_checked(made: Path) -> None:
    rewrite(made, set_at("density", "distortion_weight", to=0.251))
    with pytest.raises(StartError, match=r"factorized.npz: score\[\d\] is [\d.]+ by the density, the examples have"):
        Detector.load(made, CPU)


def test_a_score_that_is_not_the_densitys_is_refused(made: Path) -> None:
    """The scorer's own score is looked at first."""
    change_examples(made, lambda rows: rows["score"].__setitem__(2, rows["score"][2] + 1))
    with pytest.raises(StartError, match=r"examples.json: score\[2\] is "):
        Detector.load(made, CPU)


def test_a_traversal_over_http(client: TestClient) -> None:
    """From -2 to 2 standard deviations of one latent feature, in units that the service itself tells."""
    model = client.get(f"/datasets/{images.DATASET}").json()["versions"][0]
    assert model["image"] == {"channels": 1, "height": 2, "width": 2}
    assert model["latent_features"] == len(model["latents"]["means"]) == len(model["latents"]["deviations"])
    latents = np.tile(model["latents"]["means"], (5, 1))
    latents[:, 1] += np.linspace(-2, 2, 5) * model["latents"]["deviations"][1]
    answer = client.post("/decode", json={"dataset": images.DATASET, "latents": latents.tolist()})
    assert answer.status_code == 200, answer.text
    decoded = np.array(answer.json()["vectors"])
    assert decoded == pytest.approx(latents @ images.DECODING, rel=1e-5)
    steps = np.diff(decoded, axis=0)
    assert steps == pytest.approx(np.tile(model["latents"]["deviations"][1] * images.DECODING[1], (4, 1)), rel=1e-4)


def test_models_without_images_say_so(made: Path) -> None:
    rewrite(made, drop("image"))
    rewrite(made, drop("latents"))
    with TestClient(create_app(Settings(models=made.parents[1], provider="cpu"))) as client:
        wait_until_ready(client)
        (model,) = client.get(f"/datasets/{images.DATASET}").json()["versions"]
    assert model["image"] is None
    assert model["latents"] is None
