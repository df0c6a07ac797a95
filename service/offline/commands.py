"""`python -m service score`: from the command line to a summary and an exit status."""

import argparse
import json
import sys
from dataclasses import asdict

from service.aside import cores
from service.detector import Detector
from service.errors import ServiceError, StartError
from service.folders import find_folder, find_version
from service.manifest import Manifest, read_manifest
from service.offline import local, ray
from service.offline.errors import OfflineError
from service.offline.outputs import Counts
from service.offline.plan import Plan, blocks_of, make_plan, whole_tables
from service.offline.progress import Progress
from service.offline.scoring import Keep, Options
from service.runtime import Runtime
from service.settings import Settings
from service.signatures import Signers
from service.thresholds import read_thresholds, threshold_in_force

INTERRUPTED = 130
"""The exit status of what Ctrl-C ended, as shells have it."""


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Scores tables, prints a summary, and returns the process's exit status."""
    try:
        summary = score(arguments, settings)
    except (OfflineError, ServiceError, StartError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; --resume goes on with what is missing", file=sys.stderr)
        return INTERRUPTED
    print(json.dumps(summary))
    return 0


def score(arguments: argparse.Namespace, settings: Settings) -> dict[str, object]:
    """Scores tables, and returns what there is to say of it.

    Raises:
        OfflineError: A table can't be scored, or Ray is not there.
        DatasetNotFound: There is no such dataset.
        VersionNotFound: The dataset has no such version.
        StartError: The model or the file of changed thresholds can't be loaded.
    """
    if arguments.model is not None:
        folder = find_version(arguments.model, arguments.version)
    else:
        folder = find_folder(settings.models.absolute(), arguments.dataset, arguments.version)
    signers = Signers.load(settings.signers.absolute()) if settings.signers else None
    manifest = read_manifest(folder, signers)
    runtime = Runtime(settings.provider, settings.threads)
    on_ray = arguments.engine == "ray"
    if on_ray:
        ray.import_ray()
    change = read_thresholds(folder.parent, signers).of(manifest.version)
    options = Options(keep_of(arguments.keep), arguments.bad_rows, arguments.batch_rows, on_ray, change)
    tasks_of = blocks_of(arguments.block_rows) if on_ray else whole_tables
    plan = make_plan(arguments.inputs, arguments.out, manifest, options, tasks_of, arguments.resume)
    terminal = sys.stderr.isatty()
    progress = Progress(len(plan.tasks), arguments.quiet, terminal, plan.rows() if terminal else None)
    try:
        if on_ray:
            cluster = ray.Cluster(arguments.ray_address, arguments.actors, gpus_of(arguments.gpus_per_actor, settings))
            sha256 = manifest.graphs.scorer.sha256
            counts = ray.score(folder, sha256, runtime, plan.tasks, options, cluster, progress, signers)
        else:
            runtime.prepare()
            detector = Detector.load(folder, runtime, signers)
            counts = local.score(detector, plan.tasks, options, arguments.threads or cores(), progress)
    finally:
        progress.clear()
    threshold = threshold_in_force(manifest, change)
    return summary_of(manifest, threshold, arguments.engine, plan, counts, progress)


def keep_of(text: str) -> Keep:
    """Reads which columns are kept."""
    match text:
        case "rest" | "all" | "none":
            return text
        case names:
            return tuple(name for part in names.split(",") if (name := part.strip()))


def gpus_of(given: float | None, settings: Settings) -> float:
    """Returns the GPUs that each actor takes."""
    if given is not None:
        return given
    return 1.0 if settings.provider in ("cuda", "tensorrt") else 0.0


def summary_of(
    manifest: Manifest, threshold: float, engine: str, plan: Plan, counts: Counts, progress: Progress
) -> dict[str, object]:
    """Returns what there is to say: the counts are those of all files, the speed is this run's."""
    return {
        "dataset": manifest.dataset,
        "version": manifest.version,
        "threshold": threshold,
        "engine": engine,
        "tables": plan.files,
        "written": len(plan.tasks),
        "skipped": plan.skipped,
        **asdict(plan.done + counts),
        "seconds": round(progress.seconds, 3),
        "rows_per_second": round(counts.rows / max(progress.seconds, 1e-9)),
    }
