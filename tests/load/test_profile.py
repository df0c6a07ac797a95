"""A report of perf becomes shares by what the time is called."""

import pytest

from tests.load.servers import ServerError
from tests.load.serving_profile import OTHER, output_of, part_of, shares

REPORT = """
    40.64%  libpython3.11.so.1.0
    26.89%  onnxruntime_pybind11_state.cpython-311-x86_64-linux-gnu.so
    11.86%  [kernel.kallsyms]
     2.38%  parser.cpython-311-x86_64-linux-gnu.so
     1.75%  loop.cpython-311-x86_64-linux-gnu.so
     0.31%  url_parser.cpython-311-x86_64-linux-gnu.so
     0.10%  libm.so.6

"""


def test_shares_add_up() -> None:
    found = shares(REPORT)
    assert found["onnxruntime"] == 26.89
    assert found["httptools and uvloop"] == pytest.approx(2.38 + 1.75 + 0.31)
    assert found[OTHER] == 0.1
    assert sum(found.values()) == pytest.approx(83.93)


def test_interpreters_without_a_shared_library_are_python_too() -> None:
    for file in ("python3.11", "libpython3.13.so.1.0"):
        assert part_of(file).startswith("Python itself")
    assert part_of("_multiarray_umath.cpython-311-x86_64-linux-gnu.so") == "numpy"
    assert part_of("csimdjson.abi3.so") == "simdjson"


def test_a_program_that_is_missing_or_fails_is_named() -> None:
    with pytest.raises(ServerError, match="no-such-perf is not installed"):
        output_of(["no-such-perf", "record"])
    with pytest.raises(ServerError, match="ls /nowhere: .*/nowhere"):
        output_of(["ls", "/nowhere"])
