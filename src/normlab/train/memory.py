"""Memory of a process that does nothing but train."""

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
"""As glibc's malloc.h has them."""


def keep_freed() -> None:
    """From now on this process keeps what it frees; nothing happens where the C library is not glibc.

    As it is, glibc gives large blocks back at every step and takes fresh, empty pages for them: up to a fifth of the
    time.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    set_option = ctypes.CDLL(None).mallopt
    set_option(_ARENA_MAX, 1)
    set_option(_TRIM_THRESHOLD, (1 << 31) - 1)
    set_option(_TOP_PAD, 1 << 28)
    if not set_option(_MMAP_THRESHOLD, 1 << 30):
        set_option(_MMAP_THRESHOLD, 1 << 25)  # the most that an older glibc takes
