"""How this process keeps memory between training steps."""

import ctypes
import ctypes.util

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3

KEPT_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Asks the C library to keep freed blocks of up to 1 GiB, and says whether it does.

    A training step frees and asks for the same megabytes again and again. By default glibc hands them back to the
    system, which then has to clear each page anew: a tenth to a fifth of a step's time. Other C libraries are left as
    they are.
    """
    name = ctypes.util.find_library("c")
    mallopt = getattr(ctypes.CDLL(name), "mallopt", None) if name else None
    if mallopt is None:
        return False
    return all(mallopt(option, KEPT_BYTES) == 1 for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD))
