"""Memory that a training step on the CPU frees and asks for again in the next."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# Of mallopt in glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
NEVER = -1
# What glibc's own rule comes to once blocks of that size have been freed; it rules no more after a
# call of mallopt.
USUAL = {M_MMAP_MAX: 65_536, M_MMAP_THRESHOLD: 32 << 20, M_TRIM_THRESHOLD: 64 << 20}
KEPT = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: NEVER}


@contextmanager
def freed_memory_kept(*, give_back: bool = True) -> Iterator[None]:
    """Within, what is freed stays with the process, where the C library is glibc.

    Otherwise glibc gives every large activation back to the kernel, which clears the same pages for
    the next step: a third of a step of small_cnn.

    Args:
        give_back: let glibc trim what is free by then, the next time something is freed after the
            end; a benchmark that enters for every step it times does not, as a run does not either.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, with a rule of its own
        yield
        return
    for option, value in KEPT.items():
        mallopt(option, value)
    try:
        yield
    finally:
        for option, value in USUAL.items():
            if give_back or option != M_TRIM_THRESHOLD:
                mallopt(option, value)
