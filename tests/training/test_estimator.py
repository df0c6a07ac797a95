"""The estimator keeps scikit-learn's conventions, and says of data frames what the command line says of files."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from training import RaDOGAGADetector
from training.estimator import is_table

ROWS = 300


@pytest.fixture(scope="module")
def x() -> NDArray[np.float64]:
    draw = np.random.default_rng(0)
    latent = draw.normal(size=(ROWS, 2))
    return latent @ draw.normal(size=(2, 4)) + 0.1 * draw.normal(size=(ROWS, 4))


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    draw = np.random.default_rng(0)
    city = draw.choice(["Bern", "Zug"], ROWS)
    typical = np.where(city == "Bern", 20.0, 80.0) * draw.lognormal(0, 0.1, ROWS)
    amount = [None if gap else value for value, gap in zip(typical.tolist(), draw.random(ROWS) < 0.1, strict=True)]
    return pl.DataFrame({"id": np.arange(ROWS), "city": city, "amount": amount, "online": draw.random(ROWS) < 0.5})


@pytest.fixture(scope="module")
def fitted(x: NDArray[np.float64]) -> RaDOGAGADetector:
    return RaDOGAGADetector(random_state=0).fit(x)


@pytest.fixture(scope="module")
def of_frame(frame: pl.DataFrame) -> RaDOGAGADetector:
    return RaDOGAGADetector(random_state=0).fit(frame)


@pytest.mark.slow
def test_it_passes_scikit_learn_s_own_checks() -> None:
    results: list[dict[str, Any]] = check_estimator(RaDOGAGADetector(), on_fail=None, on_skip=None)
    failed = {one["check_name"]: one["exception"] for one in results if one["status"] == "failed"}
    assert not failed
    assert len(results) > 45
    skipped = {one["check_name"] for one in results if one["status"] == "skipped"}
    assert skipped <= {"check_array_api_input", "check_classifier_data_not_an_array"}  # for want of libraries


def test_signs_and_labels_are_scikit_learn_s(fitted: RaDOGAGADetector, x: NDArray[np.float64]) -> None:
    tested = np.concatenate([x[:20], x[:5] + 10])
    scores, decisions, labels = (f(tested) for f in (fitted.score_samples, fitted.decision_function, fitted.predict))
    assert scores[:20].min() > scores[20:].max()
    np.testing.assert_array_equal(decisions, scores - fitted.offset_)
    np.testing.assert_array_equal(labels, np.where(decisions < 0, -1, 1))
    assert (labels[20:] == -1).all()
    p_values = fitted.p_values(tested)
    assert (p_values[20:] == p_values.min()).all()


def test_a_contamination_is_what_is_flagged_of_the_rows_it_is_fitted_on(x: NDArray[np.float64]) -> None:
    labels = RaDOGAGADetector(contamination=0.1, random_state=0).fit_predict(x)
    assert (labels == -1).sum() == ROWS // 10


def test_it_gives_the_same_again_and_behind_a_pickle(fitted: RaDOGAGADetector, x: NDArray[np.float64]) -> None:
    again = clone(fitted).fit(x)
    np.testing.assert_array_equal(again.score_samples(x), fitted.score_samples(x))
    loaded = pickle.loads(pickle.dumps(fitted))  # noqa: S301 - it is ours
    np.testing.assert_array_equal(loaded.score_samples(x), fitted.score_samples(x))
    assert loaded.get_params() == {"contamination": None, "false_positive_rate": 0.01, "random_state": 0}


def test_it_is_a_part_of_a_pipeline(x: NDArray[np.float64]) -> None:
    pipeline = make_pipeline(StandardScaler(), RaDOGAGADetector(random_state=0)).fit(x)
    assert pipeline.predict(x).shape == (ROWS,)
    latents = pipeline.transform(x)
    assert latents.shape[0] == ROWS


def test_latents_have_names_and_lead_back(fitted: RaDOGAGADetector, x: NDArray[np.float64]) -> None:
    latents = clone(fitted).set_output(transform="polars").fit(x).transform(x)
    assert isinstance(latents, pl.DataFrame)
    assert latents.columns == [f"radogagadetector{i}" for i in range(latents.width)]
    back = fitted.inverse_transform(fitted.transform(x))
    assert np.abs(back - x).mean() < 0.3 * np.abs(x).mean()


def test_missing_numbers_are_taken(x: NDArray[np.float64], fitted: RaDOGAGADetector) -> None:
    gaps = x.copy()
    gaps[::10, 1] = np.nan
    detector = RaDOGAGADetector(random_state=0).fit(gaps)
    assert np.isfinite(detector.score_samples(gaps)).all()
    filled = x.copy()
    filled[::10, 1] = np.median(x[:, 1].astype(np.float32))
    with pytest.warns(
        UserWarning, match=f"column x1 of X has no value in {ROWS // 10} rows, and had one in all of fit"
    ):
        scores = fitted.score_samples(gaps)
    np.testing.assert_array_equal(scores, fitted.score_samples(filled))


@pytest.mark.parametrize(("column", "typical"), [("city", "Bern"), ("online", True), ("amount", None)])
def test_what_is_missing_for_the_first_time_is_typical(
    of_frame: RaDOGAGADetector, frame: pl.DataFrame, column: str, typical: object
) -> None:
    row = pl.DataFrame({"id": [7], "city": ["Zug"], "amount": [75.0], "online": [False]})
    most = frame[column].mode(maintain_order=True)[0] if typical is not None else None
    gap = row.with_columns(pl.lit(None).cast(frame.schema[column]).alias(column))
    whole = row.with_columns(pl.lit(most).cast(frame.schema[column]).alias(column))
    if typical is None:  # some amounts are missing in fit, too
        assert np.isfinite(of_frame.score_samples(gap)).all()
        return
    with pytest.warns(UserWarning, match=f"column {column} of X has no value in 1 rows"):
        scores = of_frame.score_samples(gap)
    np.testing.assert_array_equal(scores, of_frame.score_samples(whole))


def test_data_frames_are_taken_as_they_are(of_frame: RaDOGAGADetector, frame: pl.DataFrame) -> None:
    assert of_frame.feature_names_in_.tolist() == ["id", "city", "amount", "online"]
    strange = pl.DataFrame({"id": [0, 1], "city": ["Bern", "Zug"], "amount": [80.0, 80.0], "online": [True, True]})
    assert of_frame.predict(strange).tolist() == [-1, 1]
    assert (of_frame.predict(frame) == 1).mean() > 0.9
    with pytest.raises(ValueError, match="X is a ndarray, expected a data frame as in fit"):
        of_frame.predict(np.zeros((2, 4)))


def test_it_is_exported_for_the_service(of_frame: RaDOGAGADetector, tmp_path: Path) -> None:
    folder = of_frame.export(tmp_path / "models" / "payments")
    assert folder == tmp_path / "models" / "payments" / "1"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["dataset"] == "payments"
    assert manifest["ignored"] == ["id"]
    assert manifest["threshold"] == pytest.approx(-of_frame.offset_, rel=1e-4)


def test_its_decisions_are_those_of_the_exported_model(x: NDArray[np.float64], tmp_path: Path) -> None:
    detector = RaDOGAGADetector(contamination=0.1, random_state=0).fit(x)
    folder = detector.export(tmp_path / "models" / "sums")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["threshold"] == pytest.approx(-detector.offset_, rel=1e-4)
    assert manifest["calibration"] == {"rule": "contamination", "contamination": 0.1, "rows": ROWS, "flagged": 30}


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"contamination": 0.6}, "contamination is 0.6, expected None or a ratio above 0 and at most 0.5"),
        ({"contamination": 0.0}, "contamination is 0.0, expected None or a ratio above 0 and at most 0.5"),
        ({"false_positive_rate": 1.0}, "false_positive_rate is 1.0, expected a ratio between 0 and 1"),
    ],
)
def test_parameters_that_can_t_be(parameters: dict[str, Any], text: str, x: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match=text):
        RaDOGAGADetector(**parameters).fit(x)


def test_it_has_to_be_fitted_first(x: NDArray[np.float64], tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        RaDOGAGADetector().score_samples(x)
    with pytest.raises(NotFittedError):
        RaDOGAGADetector().export(tmp_path / "models" / "payments")


def test_a_column_of_nothing_is_refused(x: NDArray[np.float64]) -> None:
    empty = x.copy()
    empty[:, 2] = np.nan
    with pytest.raises(ValueError, match="column x2 of X has no values, expected some"):
        RaDOGAGADetector().fit(empty)


class Indexed:
    """A data frame as pandas gives it to others: its index is a column, and the metadata says so."""

    def __init__(self, columns: dict[str, Any], index: list[Any]) -> None:
        self.table = pa.table({**columns, "__index_level_0__": index}).replace_schema_metadata(
            {"pandas": json.dumps({"index_columns": ["__index_level_0__"]})}
        )

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


def test_the_index_of_a_data_frame_is_no_column(x: NDArray[np.float64]) -> None:
    index = np.random.default_rng(0).permutation(3 * ROWS)[:ROWS].tolist()
    columns = {"a": x[:, 0], "city": ["Bern", "Zug"] * (ROWS // 2)}
    detector = RaDOGAGADetector(random_state=0).fit(Indexed(columns, index))
    assert detector.feature_names_in_.tolist() == ["a", "city"]
    scores = detector.score_samples(pa.table(columns))
    assert scores.tobytes() == detector.score_samples(Indexed(columns, index)).tobytes()
    assert not is_table(Indexed({"a": x[:, 0]}, [f"row {i}" for i in range(ROWS)]))


def test_what_is_wrong_with_a_data_frame_is_a_value_error(of_frame: RaDOGAGADetector, frame: pl.DataFrame) -> None:
    with pytest.raises(ValueError, match='column "city", which is not there'):
        of_frame.predict(frame.drop("city"))
    with pytest.raises(ValueError, match="X: no column is left to fit on"):
        RaDOGAGADetector().fit(pl.DataFrame({"a": ["x"] * 9}))


def test_categories_of_polars_are_text(of_frame: RaDOGAGADetector, frame: pl.DataFrame) -> None:
    cast = frame.with_columns(pl.col("city").cast(pl.Categorical))
    assert of_frame.score_samples(cast).tobytes() == of_frame.score_samples(frame).tobytes()
