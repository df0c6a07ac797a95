"""Writes build/sbom.json and looks for known vulnerabilities of what serving installs: `make audit` calls it.

Exit status: 0 if everything was looked up and nothing is known, 1 if something is known or the list can't be written, 2
if not everything could be looked up. With AUDIT_OFFLINE set, 2 becomes 0, and is printed all the same.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OWN = "radogaga"
"""Is not published, so that nobody knows vulnerabilities of it."""

PASSED, FOUND, UNKNOWN = range(3)


@dataclass
class Findings:
    """What the vulnerability service said.

    Attributes:
        looked_up: Packages that it knows, with their versions.
        known: A line per vulnerability.
        unknown: Packages that could not be looked up, with the reason.
    """

    looked_up: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def status(self) -> int:
        """Returns the exit status."""
        if self.known:
            return FOUND
        return UNKNOWN if self.unknown or not self.looked_up else PASSED


def read(report: str, complaint: str) -> Findings:
    """Returns what pip-audit found.

    Arguments:
        report: Its JSON; nothing if it did not get that far.
        complaint: What it wrote on standard error.
    """
    found = Findings()
    try:
        packages: list[dict[str, Any]] = json.loads(report)["dependencies"]
    except ValueError:
        last = complaint.strip().splitlines()[-1:] or ["no reason given"]
        found.unknown.append(f"everything: {last[0]}")
        return found
    for package in packages:
        if "skip_reason" in package:
            if package["name"] != OWN:
                found.unknown.append(f"{package['name']}: {package['skip_reason']}")
            continue
        name = f"{package['name']} {package['version']}"
        found.looked_up.append(name)
        for vulnerability in package["vulns"]:
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version"
            found.known.append(f"{name}: {vulnerability['id']}, fixed in {fixed}")
    return found


def audit(bin_folder: Path, serving: Path) -> Findings:
    """Looks up what is installed in an environment."""
    (packages,) = serving.glob("lib/python3*/site-packages")
    command = [bin_folder / "pip-audit", "--path", packages, "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run([*command, "--timeout", "10"], capture_output=True, text=True, check=False)  # noqa: S603
    return read(done.stdout, done.stderr)


def list_parts(bin_folder: Path, serving: Path, target: Path) -> int:
    """Writes what is installed in an environment as CycloneDX, and returns the number of packages.

    Where they came from is left out: it tells of the machine that this ran on, and purl and version say the rest.

    Raises:
        CalledProcessError: It can't be listed.
        ValueError: What is listed is not valid.
    """
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    target.parent.mkdir(parents=True, exist_ok=True)
    command = [bin_folder / "cyclonedx-py", "environment", serving, "--pyproject", "pyproject.toml", "--short-PURLs"]
    command.append("--output-reproducible")
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    bom = without_origins(json.loads(done.stdout))
    target.write_text(json.dumps(bom, indent=1) + "\n")
    if problem := JsonStrictValidator(SchemaVersion.from_version(bom["specVersion"])).validate_str(target.read_text()):
        raise ValueError(f"{target}: {problem}")
    return len(bom["components"])


def without_origins(part: Any) -> Any:  # noqa: ANN401 - JSON
    """Returns JSON without the addresses that packages name or came from."""
    if isinstance(part, dict):
        return {name: without_origins(value) for name, value in part.items() if name != "externalReferences"}
    return [without_origins(value) for value in part] if isinstance(part, list) else part


def tell(found: Findings, offline: bool) -> int:
    """Prints what was found and returns the exit status.

    Arguments:
        found: It.
        offline: Whether it is all right if not everything could be looked up.
    """
    status = found.status()
    print(f"audit: {len(found.looked_up)} packages looked up, {len(found.known)} vulnerabilities known")
    for line in found.known:
        print(f"  {line}")
    if found.unknown:
        print(f"audit: NOT AUDITED, {len(found.unknown)} could not be looked up:", *found.unknown[:3], sep="\n  ")
    if status == UNKNOWN and offline:
        print("audit: AUDIT_OFFLINE is set, so this is no failure")
        return PASSED
    return status


def main() -> int:
    """Does both and returns the exit status."""
    bin_folder = Path(sys.executable).parent
    serving = bin_folder.parent / "serving"
    target = Path("build/sbom.json")
    print(f"audit: {list_parts(bin_folder, serving, target)} packages in {target}", flush=True)
    return tell(audit(bin_folder, serving), bool(os.environ.get("AUDIT_OFFLINE")))


if __name__ == "__main__":
    sys.exit(main())
