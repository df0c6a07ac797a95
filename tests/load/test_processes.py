"""A server's processes are counted, its children included."""

import subprocess
import sys

import pytest

from tests.load.processes import cpu_seconds, family, processor, pss_megabytes

BURN = "import time\nwhile time.process_time() < 0.3: pass\n"

CHILD = {
    "living": f"{BURN}print(flush=True); input()",
    "ended": BURN,
    "in a session of its own": f"import os; os.setsid()\n{BURN}print(flush=True); input()",
}

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, stdin=sys.stdin)
child.stdout.readline() or child.wait()
print(child.pid, flush=True)
input()
"""


@pytest.mark.parametrize("kind", CHILD)
def test_what_a_child_uses_is_counted(kind: str) -> None:
    command = [sys.executable, "-c", PARENT, CHILD[kind]]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert (child in family(parent.pid)) == (kind != "ended")
        assert parent.pid in family(parent.pid)
        assert cpu_seconds(parent.pid) >= 0.29
        assert pss_megabytes(parent.pid) > 1
        parent.communicate("\n\n")


def test_a_process_that_is_gone_has_no_family() -> None:
    with subprocess.Popen([sys.executable, "-c", ""], start_new_session=True) as gone:
        gone.wait()
    assert family(gone.pid) == {}
    assert cpu_seconds(gone.pid) == pss_megabytes(gone.pid) == 0


def test_the_processor_has_a_name() -> None:
    assert processor()
