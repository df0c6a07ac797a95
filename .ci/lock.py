"""Writes constraints.txt and constraints-gpu.txt from two of pip's installation reports: `make lock` calls it."""

import json
import re
import sys
from pathlib import Path

HEAD = "# Versions of everything but the GPU's libraries; `make lock` writes it anew.\n"
HEAD_GPU = "# What the extra [gpu] needs beside constraints.txt; `make lock` writes it anew.\n"


def versions(report: Path) -> dict[str, str]:
    """Returns the versions in a report by normalised name, without the project itself and without local labels."""
    found = {}
    for item in json.loads(report.read_text())["install"]:
        name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
        found[name] = item["metadata"]["version"].partition("+")[0]
    del found["radogaga"]
    return found


def main(cpu_report: Path, gpu_report: Path) -> None:
    """Writes both files; the CPU's and the GPU's builds of onnxruntime get one version, that of the GPU's."""
    cpu, gpu = versions(cpu_report), versions(gpu_report)
    cpu["onnxruntime"] = gpu["onnxruntime-gpu"]
    only_gpu = {name: version for name, version in gpu.items() if name not in cpu}
    for path, head, pins in (("constraints.txt", HEAD, cpu), ("constraints-gpu.txt", HEAD_GPU, only_gpu)):
        Path(path).write_text(head + "".join(f"{name}=={version}\n" for name, version in sorted(pins.items())))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
