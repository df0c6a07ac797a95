"""The paper's experiments, one file each."""

from training.experiments.ablation import Ablation
from training.experiments.base import Experiment
from training.experiments.baselines import Baselines
from training.experiments.defaults import Defaults
from training.experiments.detection import Detection
from training.experiments.digits import Digits
from training.experiments.faces import Figure4, Figure5
from training.experiments.isometry import EquationNine
from training.experiments.linear import AppendixD
from training.experiments.toy import Toy

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        Detection("table1", "Table 1: both methods, four datasets", "table2", "A", ("faithful", "robust", "ensemble")),
        Detection("table4", "Table 4: the same with DAGMM's network sizes", "table3", "A", ("faithful", "robust")),
        Detection("protocol_b", "the same methods by protocol B", "table2", "B", ("robust", "ensemble")),
        Baselines(),
        Defaults(),
        Ablation(),
        Toy(),
        EquationNine(),
        AppendixD(),
        Figure4(),
        Figure5(),
        Digits(),
    )
}
"""The experiments by name, in the order in which they are run."""
