"""Freed memory is kept where the C library can be asked to, and nothing breaks where it can't."""

import ctypes
import ctypes.util
import platform

import pytest

from training.memory import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_glibc_takes_both_options() -> None:
    assert keep_freed_memory()


def test_a_c_library_without_the_call_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not keep_freed_memory()
    monkeypatch.setattr(ctypes.util, "find_library", lambda _: None)
    assert not keep_freed_memory()
