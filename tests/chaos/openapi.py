"""schemathesis on our own OpenAPI document, in an environment of its own."""

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.server import ROOT

PROGRAM = ROOT / ".venv-chaos" / "bin" / "schemathesis"

EXAMPLES = 600
"""Cases of each operation and phase; operations without parameters need but a few."""

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
"""What every answer is held to. Whether rows are taken is not among it: no schema says how wide a dataset's are."""

GENERATED = re.compile(r"(\d+) generated")

SECONDS = 1800


@dataclass(frozen=True)
class Documented:
    """What schemathesis found.

    Attributes:
        requests: How many cases it made.
        failures: What it says is wrong.
    """

    requests: int
    failures: list[str] = field(default_factory=list)


def run(url: str, folder: Path, scale: float, seed: int) -> Documented:
    """Runs it against a service: examples, edges and random data, good and bad."""
    if not PROGRAM.exists():
        return Documented(0, [f"{PROGRAM.relative_to(ROOT)} is missing: `make chaos` sets it up"])
    words = ["--checks", ",".join(CHECKS), "--mode", "all", "--seed", str(seed), "--generation-database", "none"]
    words += ["--max-examples", str(max(1, round(EXAMPLES * scale))), "--continue-on-failure", "--no-color"]
    words += ["--request-timeout", "20", "--no-shrink", "--suppress-health-check", "all"]
    done = subprocess.run(
        [PROGRAM, "run", f"{url}/openapi.json", *words], cwd=folder, capture_output=True, text=True, timeout=SECONDS
    )
    return read(done.returncode, done.stdout + done.stderr)


def read(status: int, text: str) -> Documented:
    """Reads what it printed.

    Arguments:
        status: The status it ended with: 0 if nothing is wrong, 1 if something is.
        text: Its words.
    """
    found = GENERATED.search(text)
    if found is None or status not in (0, 1):
        return Documented(0, [f"schemathesis ended with {status}: {text[-2000:]}"])
    requests = int(found[1])
    if status == 0:
        return Documented(requests)
    failures = (text.partition("FAILURES")[2] or text.partition("SUMMARY")[2] or text).strip(" =\n")
    return Documented(requests, [f"schemathesis: {failures[:4000]}"])
