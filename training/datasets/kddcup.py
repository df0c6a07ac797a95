"""KDDCup99 and KDDCup-Rev, from the 10 percent file of the KDD Cup 1999 data."""

from pathlib import Path

import numpy as np
import polars

from training.datasets.base import Dataset, Feature, Labels, Rows
from training.datasets.files import RemoteFile, fetch

KDDCUP = RemoteFile(
    path="kddcup99/kddcup.data_10_percent.gz",
    url="https://ndownloader.figshare.com/files/5976042",
    sha256="8045aca0d84e70e622d1148d7df782496f6333bf6eb979a1b0837c42a9fd9561",
    size=2144903,
)

SERVICES = tuple(
    """IRC X11 Z39_50 auth bgp courier csnet_ns ctf daytime discard domain domain_u echo eco_i ecr_i efs exec finger
    ftp ftp_data gopher hostnames http http_443 imap4 iso_tsap klogin kshell ldap link login mtp name netbios_dgm
    netbios_ns netbios_ssn netstat nnsp nntp ntp_u other pm_dump pop_2 pop_3 printer private red_i remote_job rje
    shell smtp sql_net ssh sunrpc supdup systat telnet tftp_u tim_i time urh_i urp_i uucp uucp_path vmnet
    whois""".split()
)

CATEGORIES = {
    "protocol_type": ("icmp", "tcp", "udp"),
    "service": SERVICES,
    "flag": ("OTH", "REJ", "RSTO", "RSTOS0", "RSTR", "S0", "S1", "S2", "S3", "SF", "SH"),
    "land": ("0", "1"),
    "logged_in": ("0", "1"),
    "is_host_login": ("0",),
    "is_guest_login": ("0", "1"),
}
"""The seven symbolic columns with the values they take in the file, so that the width never depends on a split."""

COLUMNS = tuple(
    """duration protocol_type service flag src_bytes dst_bytes land wrong_fragment urgent hot num_failed_logins
    logged_in num_compromised root_shell su_attempted num_root num_file_creations num_shells num_access_files
    num_outbound_cmds is_host_login is_guest_login count srv_count serror_rate srv_serror_rate rerror_rate
    srv_rerror_rate same_srv_rate diff_srv_rate srv_diff_host_rate dst_host_count dst_host_srv_count
    dst_host_same_srv_rate dst_host_diff_srv_rate dst_host_same_src_port_rate dst_host_srv_diff_host_rate
    dst_host_serror_rate dst_host_srv_serror_rate dst_host_rerror_rate dst_host_srv_rerror_rate""".split()
)

FEATURES = tuple(Feature(column, CATEGORIES.get(column)) for column in COLUMNS)
"""The 41 features in the order of the file; one-hot they take 121 columns."""

ATTACKS_IN_REV = 24_319
"""So many attacks beside the 97,278 normal rows make a fifth of KDDCup-Rev's 121,597 rows."""


class UnknownCategoryError(ValueError):
    """A symbolic column holds a value that the features don't list."""


def one_hot(table: polars.DataFrame, features: tuple[Feature, ...] = FEATURES) -> Rows:
    """Turns a table of strings into rows, one column per number and one per category.

    Arguments:
        table: Columns of strings, named as the features are.
        features: The features, in the order their columns shall have.

    Returns:
        Rows of shape (N, M) with M the sum of the features' columns.

    Raises:
        UnknownCategoryError: A value is not among its feature's categories; row, column and value are named.
        polars.exceptions.InvalidOperationError: A number's text is not a number.
    """
    x = np.zeros((table.height, sum(feature.columns for feature in features)), dtype=np.float32)
    first = 0
    for feature in features:
        column = table[feature.name]
        if feature.categories is None:
            x[:, first] = column.cast(polars.Float32).to_numpy()
        else:
            codes = {category: code for code, category in enumerate(feature.categories)}
            code = column.replace_strict(codes, default=-1, return_dtype=polars.Int64).to_numpy()
            if (code < 0).any():
                row = int((code < 0).argmax())
                raise UnknownCategoryError(
                    f"row {row}: {feature.name} is '{column[row]}', expected one of {', '.join(feature.categories)}"
                )
            x[np.arange(table.height), first + code] = 1
        first += feature.columns
    return x


def _read(cache: Path | None) -> tuple[Rows, Labels]:
    """Returns rows (494021, 121) and whether each is an attack."""
    table = polars.read_csv(fetch(KDDCUP, cache), has_header=False, new_columns=[*COLUMNS, "label"], infer_schema=False)
    return one_hot(table), table["label"].ne("normal.").to_numpy()


def kddcup99(cache: Path | None = None) -> Dataset:
    """Loads KDDCup99: 494,021 rows of 121 columns. Attacks are the majority, so rows labelled normal are the anomalies.

    Raises:
        DatasetFileError: The file can't be had or can't be trusted.
    """
    x, attack = _read(cache)
    return Dataset("kddcup99", FEATURES, x, ~attack, contamination=0.2, sha256=KDDCUP.sha256)


def kddcup_rev(cache: Path | None = None) -> Dataset:
    """Loads KDDCup-Rev: all 97,278 normal rows and 24,319 attacks, the anomalies, drawn once and always the same.

    Raises:
        DatasetFileError: The file can't be had or can't be trusted.
    """
    x, attack = _read(cache)
    drawn = np.random.default_rng(0).choice(np.flatnonzero(attack), size=ATTACKS_IN_REV, replace=False)
    rows = np.sort(np.concatenate([np.flatnonzero(~attack), drawn]))
    return Dataset("kddcup-rev", FEATURES, x[rows], attack[rows], contamination=0.2, sha256=KDDCUP.sha256)
