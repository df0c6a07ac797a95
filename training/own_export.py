"""Writes the model folder of a model that was fitted to a user's table."""

import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from training.datasets.base import Rows
from training.export import (
    EXAMPLES,
    LIBRARIES,
    UNSEALED,
    count_flagged,
    export_folder,
    hashed,
    open_session,
    run_in_batches,
    write_density,
    write_examples,
    write_graphs,
    write_manifest,
)
from training.metrics import evaluate
from training.model_card import write_card
from training.own_tables import OwnModel, Rule
from training.preprocessing import TailScaler
from training.tables.schema_file import write_schema
from training.thresholds import p_values, percentile_threshold, score_bins

FORMAT_VERSION = 3

ROWS_COMPARED = 20_000
"""Rows whose results onnxruntime and PyTorch have to agree on, at most."""


def export_own(model: OwnModel, out: Path) -> Path:
    """Writes the next version of a table's model folder, and returns its path.

    Raises:
        ExportError: As `training.export.export`.
    """
    return export_folder(out / model.name, lambda number, folder: write_own(model, number, folder))


def write_own(model: OwnModel, number: int, folder: Path) -> None:
    """Fills a model folder: graphs, the mixtures, examples, the schema and the manifest, in this order."""
    method, x, parts = model.fit.method, model.x, model.fit.parts
    graphs, _ = write_graphs(method, x[parts.fitted[:ROWS_COMPARED]], folder)
    density = write_density(method, folder / "mixture.npz")
    strange = model.anomalies[: EXAMPLES // 2]
    examples = np.concatenate([x[parts.fitted[: EXAMPLES - len(strange)]], strange])
    write_examples(method, examples, folder / "examples.json")
    if model.schema is not None:
        write_schema(model.schema, folder / "schema.toml")
    session = open_session(folder / "scorer.onnx")
    scores = run_in_batches(session, x[parts.calibration])
    threshold, calibration = calibrate(
        model.rule, scores if model.deciding is None else run_in_batches(session, model.deciding)
    )
    manifest = {
        "format_version": FORMAT_VERSION,
        "dataset": model.name,
        "version": number,
        "method": "RaDOGAGA",
        "features": list(model.encoder.features),
        "ignored": [] if model.schema is None else model.schema.ignored,
        "graphs": graphs,
        "density": density,
        "examples": {**hashed(folder / "examples.json"), "rows": len(examples)},
        "threshold": threshold,
        "calibration": calibration,
        "p_values": asdict(p_values(scores)),
        "score_bins": asdict(score_bins(scores)),
        "provenance": provenance(model, scores, threshold, session),
        "sha256": UNSEALED,
    }
    write_manifest(manifest, folder / "manifest.json")
    strange_scores = run_in_batches(session, model.anomalies) if len(model.anomalies) else scores[:0]
    write_card(model, manifest, scores, strange_scores, folder)


def calibrate(rule: Rule, scores: Rows) -> tuple[float, dict[str, Any]]:
    """Returns the threshold that a rule and scores (N,) give, and how the manifest says so.

    Raises:
        ValueError: So few rows can't promise the wanted rate.
    """
    threshold = rule.threshold(scores)
    described: dict[str, Any] = {"rule": "contamination", "contamination": rule.contamination}
    if rule.contamination is None:
        described = {"rule": "false_positive_rate", "false_positive_rate": rule.false_positive_rate}
    return threshold, described | {"rows": len(scores), "flagged": count_flagged(scores, threshold)}


def drawn_in(model: OwnModel) -> list[str]:
    """Names the columns of x whose tails are drawn in."""
    scaler = model.fit.plan.scaler
    if not isinstance(scaler, TailScaler):
        return []
    return [name for name, chosen in zip(model.encoder.columns, scaler.drawn_in.tolist(), strict=True) if chosen]


def provenance(
    model: OwnModel, scores: Rows, threshold: float, session: onnxruntime.InferenceSession
) -> dict[str, Any]:
    """Says where a model comes from, and what it is worth if the table has labels."""
    parts, plan = model.fit.parts, model.fit.plan
    described: dict[str, Any] = {
        "recipe": "automatic",
        "settings": {
            "members": [settings.to_json() for settings in plan.settings],
            "stopping": asdict(plan.stopping),
            "tails_drawn_in": drawn_in(model),
            "rows": {name: len(getattr(parts, name)) for name in ("fitted", "held_out", "calibration")},
        },
        "seed": model.seed,
        "data_sha256": model.sha256,
        "protocol": "one-class" if model.schema is not None and model.schema.label is not None else "unlabelled",
        "libraries": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    }
    if len(model.anomalies):
        strange = run_in_batches(session, model.anomalies)
        y = np.arange(len(scores) + len(strange)) >= len(scores)
        tested = np.concatenate([scores, strange])
        described["metrics"] = {
            "shipped_threshold": evaluate(y, tested, threshold),
            "test_percentile": evaluate(y, tested, percentile_threshold(tested, float(y.mean()))),
        }
    return described
