"""Scoring in this process, one table after the other, by several threads."""

from collections.abc import Sequence

from service.detector import Detector
from service.offline.outputs import Counts
from service.offline.progress import Progress
from service.offline.scoring import Options, PartScorer, Task


def score(detector: Detector, tasks: Sequence[Task], options: Options, threads: int, progress: Progress) -> Counts:
    """Writes the scores of tables.

    Raises:
        OfflineError: A table can't be read or has not the columns that are needed, a row is bad, or a file can't be
            written. Every table is opened before any is scored.
    """
    scorers = [(task, PartScorer(detector, task, options)) for task in tasks]
    counts = Counts()
    for task, scorer in scorers:
        counts += scorer.run(threads, progress.add)
        progress.finish(task.out)
    return counts
