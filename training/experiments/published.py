"""The figures of the paper's Tables 1 and 4 (Kato et al., 2019): precision, recall and F1, with their deviations."""

from typing import NamedTuple

from training.settings import H, MethodName


class Figure(NamedTuple):
    """A mean over 20 seeds and its standard deviation, None where the paper cites a figure without one."""

    mean: float
    std: float | None = None


class Row(NamedTuple):
    """A line of the paper's tables."""

    label: str
    precision: Figure
    recall: Figure
    f1: Figure


Variant = tuple[MethodName, H]


def row(label: str, figures: str) -> Row:
    """Reads figures as they are printed: a mean, with its deviation in brackets if it has one."""
    values = [Figure(*(float(part) for part in text.rstrip(")").split("("))) for text in figures.split()]
    return Row(label, *values)


CITED: dict[str, dict[str, list[Row]]] = {
    "table1": {
        "kddcup99": [
            row("ALAD (cited)", "0.9427(0.0018) 0.9577(0.0018) 0.9501(0.0018)"),
            row("INRF (cited)", "0.9452(0.0105) 0.9600(0.0113) 0.9525(0.0108)"),
            row("GMVAE (cited)", "0.952 0.9141 0.9326"),
            row("DAGMM (cited)", "0.9297 0.9442 0.9369"),
        ],
        "thyroid": [
            row("GMVAE (cited)", "0.7105 0.5745 0.6353"),
            row("DAGMM (cited)", "0.4766 0.4834 0.4782"),
        ],
        "arrhythmia": [
            row("ALAD (cited)", "0.5000(0.0208) 0.5313(0.0221) 0.5152(0.0214)"),
            row("GMVAE (cited)", "0.4375 0.4242 0.4308"),
            row("DAGMM (cited)", "0.4909 0.5078 0.4983"),
        ],
        "kddcup-rev": [row("DAGMM (cited)", "0.937 0.939 0.938")],
    },
    "table4": {
        "kddcup99": [row("DAGMM (cited)", "0.9297 0.9442 0.9369")],
        "thyroid": [row("DAGMM (cited)", "0.4766 0.4834 0.4782")],
        "arrhythmia": [row("DAGMM (cited)", "0.4909 0.5078 0.4983")],
        "kddcup-rev": [row("DAGMM (cited)", "0.937 0.939 0.938")],
    },
}
"""What the paper itself cites: ALAD, INRF, GMVAE and DAGMM from their authors' papers."""

OWN: dict[str, dict[str, dict[Variant, Row]]] = {
    "table1": {
        "kddcup99": {
            ("DAGMM", "identity"): row("DAGMM+", "0.9427(0.0052) 0.9575(0.0053) 0.9500(0.0052)"),
            ("RaDOGAGA", "identity"): row("RaDOGAGA(d)", "0.9550(0.0037) 0.9700(0.0038) 0.9624(0.0038)"),
            ("RaDOGAGA", "log"): row("RaDOGAGA(log d)", "0.9563(0.0042) 0.9714(0.0042) 0.9638(0.0042)"),
        },
        "thyroid": {
            ("DAGMM", "identity"): row("DAGMM+", "0.4656(0.0481) 0.4859(0.0502) 0.4755(0.0491)"),
            ("RaDOGAGA", "identity"): row("RaDOGAGA(d)", "0.6313(0.0476) 0.6587(0.0496) 0.6447(0.0486)"),
            ("RaDOGAGA", "log"): row("RaDOGAGA(log d)", "0.6562(0.0572) 0.6848(0.0597) 0.6702(0.0585)"),
        },
        "arrhythmia": {
            ("DAGMM", "identity"): row("DAGMM+", "0.4985(0.0389) 0.5136(0.0401) 0.5060(0.0395)"),
            ("RaDOGAGA", "identity"): row("RaDOGAGA(d)", "0.5353(0.0461) 0.5515(0.0475) 0.5433(0.0468)"),
            ("RaDOGAGA", "log"): row("RaDOGAGA(log d)", "0.5294(0.0405) 0.5455(0.0418) 0.5373(0.0411)"),
        },
        "kddcup-rev": {
            ("DAGMM", "identity"): row("DAGMM+", "0.9778(0.0018) 0.9779(0.0017) 0.9779(0.0018)"),
            ("RaDOGAGA", "identity"): row("RaDOGAGA(d)", "0.9768(0.0033) 0.9827(0.0012) 0.9797(0.0015)"),
            ("RaDOGAGA", "log"): row("RaDOGAGA(log d)", "0.9864(0.0009) 0.9865(0.0009) 0.9865(0.0009)"),
        },
    },
    "table4": {
        "kddcup99": {
            ("DAGMM", "identity"): row("DAGMM-", "0.9338(0.0051) 0.9484(0.0052) 0.9410(0.0051)"),
            ("RaDOGAGA", "identity"): row("RaDOGAGA-(d)", "0.9455(0.0016) 0.9608(0.0018) 0.9531(0.0017)"),
            ("RaDOGAGA", "log"): row("RaDOGAGA-(log d)", "0.9370(0.0024) 0.9517(0.0025) 0.9443(0.0024)"),
        },
        "thyroid": {
            ("DAGMM", "identity"): row("DAGMM-", "0.4635(0.1054) 0.4837(0.1100) 0.4734(0.1076)"),
            ("RaDOGAGA", "identity"): row("RaDOGAGA-(d)", "0.5729(0.0449) 0.5978(0.0469) 0.5851(0.0459)"),
            ("RaDOGAGA", "log"): row("RaDOGAGA-(log d)", "0.5729(0.0398) 0.5978(0.0415) 0.5851(0.0406)"),
        },
        "arrhythmia": {
            ("DAGMM", "identity"): row("DAGMM-", "0.4721(0.0451) 0.4864(0.0464) 0.4791(0.0457)"),
            ("RaDOGAGA", "identity"): row("RaDOGAGA-(d)", "0.4897(0.0477) 0.5045(0.0491) 0.4970(0.0484)"),
            ("RaDOGAGA", "log"): row("RaDOGAGA-(log d)", "0.5044(0.0364) 0.5197(0.0375) 0.5119(0.0369)"),
        },
        "kddcup-rev": {
            ("DAGMM", "identity"): row("DAGMM-", "0.9491(0.0163) 0.9498(0.0158) 0.9494(0.0160)"),
            ("RaDOGAGA", "identity"): row("RaDOGAGA-(d)", "0.9761(0.0057) 0.9761(0.0056) 0.9761(0.0057)"),
            ("RaDOGAGA", "log"): row("RaDOGAGA-(log d)", "0.9791(0.0036) 0.9799(0.0035) 0.9795(0.0036)"),
        },
    },
}
"""What its authors measured themselves."""
