"""`python -m service threshold`: changes a model's threshold without training anew, and shows how it was changed."""

import argparse
import sys
from itertools import pairwise
from pathlib import Path

from service.errors import ServiceError, StartError
from service.folders import find_folder
from service.manifest import Manifest, read_manifest
from service.settings import Settings
from service.signatures import Signers, load_private_key, sign_file
from service.thresholds import THRESHOLDS, Thresholds, change_threshold, read_thresholds, threshold_in_force

NAME = "threshold"

HELP = "change a model's threshold, or show how it was changed"

DESCRIPTION = f"""Change the score from which rows of a dataset are called anomalies. The change and its reason are
added to models/<dataset>/{THRESHOLDS}; manifests stay as they are. A running service takes it over within a second.
Without a new threshold, show the one in force and all changes. RADOGAGA_MODELS counts here as it does for the service.
Exit status: 0 if that is done, 1 if not, 2 for a wrong command."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.add_argument("dataset", help="whose threshold")
    new = parser.add_mutually_exclusive_group()
    new.add_argument("threshold", nargs="?", type=float, help="the new one, in the scores' unit")
    new.add_argument("--reset", action="store_true", help="go back to the one chosen in training")
    parser.add_argument("--why", metavar="TEXT", help="the reason, a line of text; needed for a change")
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="private key to sign the file with, if that is demanded"
    )
    parser.add_argument("--version", type=int, metavar="N", help="version of the model; the newest unless given")


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Changes or shows a threshold, and returns the process's exit status."""
    try:
        print(answer(options, settings))
    except (ServiceError, StartError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def answer(options: argparse.Namespace, settings: Settings) -> str:
    """Does what is asked for, and returns what there is to say.

    Raises:
        DatasetNotFound: There is no such dataset.
        VersionNotFound: The dataset has no such version.
        StartError: Something can't be read or written, or a value is not one that can be written; it is named.
    """
    signers = Signers.load(settings.signers) if settings.signers else None
    folder = find_folder(settings.models, options.dataset, options.version)
    manifest = read_manifest(folder, signers)
    before = read_thresholds(folder.parent, signers)
    if options.threshold is None and not options.reset:
        return history(manifest, before)
    if options.why is None:
        raise StartError("--why is missing: say why the threshold is changed")
    if options.key is not None:
        load_private_key(options.key)  # before anything is changed
    elif signers is not None:
        raise StartError("--key is missing: RADOGAGA_SIGNERS demands that the change is signed")
    after = change_threshold(folder.parent, manifest.version, options.threshold, options.why)
    if options.key is not None:
        sign_file(folder.parent / THRESHOLDS, options.key)
    was, now = (threshold_in_force(manifest, found.of(manifest.version)) for found in (before, after))
    return f"{name_of(manifest)}: threshold {was:g} -> {now:g}{expectation(manifest, now)}"


def history(manifest: Manifest, thresholds: Thresholds) -> str:
    """Returns the threshold in force, and how it came to be."""
    lines = [f"{name_of(manifest)}: threshold {threshold_in_force(manifest, thresholds.of(manifest.version)):g}"]
    lines.append(f"  {manifest.threshold:g}  chosen in training")
    for change in thresholds.history(manifest.version):
        value = "reset" if change.threshold is None else f"{change.threshold:g}"
        lines.append(f"  {value}  {change.at:%Y-%m-%d %H:%M:%S} UTC, {change.by}: {change.why}")
    return "\n".join(lines)


def expectation(manifest: Manifest, threshold: float) -> str:
    """Returns how many rows behind the calibration have a score of the threshold or more, as far as the bins tell."""
    bins = manifest.score_bins
    if bins is None:
        return ""
    edges = pairwise([float("-inf"), *bins.upper_bounds, float("inf")])
    least = most = 0
    for (lower, upper), rows in zip(edges, bins.rows, strict=True):
        least += rows if lower >= threshold else 0
        most += rows if upper >= threshold else 0
    return f"; of the {manifest.calibration.rows} rows it was calibrated on it flags {least} to {most}"


def name_of(manifest: Manifest) -> str:
    """Names a model."""
    return f"{manifest.dataset} version {manifest.version}"
