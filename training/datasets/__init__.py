"""The paper's tables, images, and how they are split."""

from training.datasets.digits import digits
from training.datasets.kddcup import kddcup99, kddcup_rev
from training.datasets.odds import arrhythmia, thyroid

DATASETS = {"thyroid": thyroid, "arrhythmia": arrhythmia, "kddcup99": kddcup99, "kddcup-rev": kddcup_rev}
"""The loaders of the paper's tables by name; each takes the cache folder, or None for the default one."""

IMAGES = {"digits": digits}
"""The loaders of images."""
