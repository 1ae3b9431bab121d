"""What POSIX and Windows do differently: locks on files, whether a process lives, files that others have open."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

if sys.platform == "win32":
    import ctypes
    import msvcrt
    from ctypes import wintypes
else:
    import fcntl

T = TypeVar("T")

DEVICE = "ADIFF_DEVICE"
"""Environment variable that names where to compute (`devices.best_device`)."""
WINDOWS = os.name == "nt"
PATIENCE = 2.0
"""Seconds to wait until a file that Windows refuses to touch is no longer open elsewhere."""
TAKEN = frozenset((errno.EACCES, errno.EAGAIN))
"""What says that another process has a lock."""
NO_LOCKS = frozenset((errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, *([errno.EINVAL] if WINDOWS else [])))
"""What a file system without locks says."""


def launched() -> int:
    """How many processes a launcher, `torchrun` or `accelerate launch`, has started for this command; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def lock(file: IO[bytes], shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file for itself alone, or together with others that share it; what it had on it is given up first.

    It ends with the process, however that ends. wait: until it can be had. Returns whether it is had; raises OSError of
    NO_LOCKS on a file system that has none.
    """
    try:
        _lock(file, shared, wait)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        raise
    return True


def persist(act: Callable[..., T], *given: Any) -> T:
    """Call `act`; on Windows again for PATIENCE seconds, as what another program reads there cannot be touched."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return act(*given)
        except PermissionError:
            if not WINDOWS or time.monotonic() > until:
                raise
        time.sleep(0.02)


if sys.platform == "win32":
    ALONE, AT_ONCE, BYTE = 2, 1, 1 << 30
    """LockFileEx's flags; the byte that is locked, beyond the file's content, which others have to read."""
    HANDLE_NEEDS, GONE_ON, DENIED = 0x100000, 258, 5
    """SYNCHRONIZE; WAIT_TIMEOUT; ERROR_ACCESS_DENIED."""

    class _Place(ctypes.Structure):
        """OVERLAPPED."""

        _fields_ = [
            ("Internal", ctypes.c_void_p), ("InternalHigh", ctypes.c_void_p), ("Offset", wintypes.DWORD),
            ("OffsetHigh", wintypes.DWORD), ("hEvent", wintypes.HANDLE),
        ]  # fmt: skip

    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    _numbers = [wintypes.DWORD] * 3
    _kernel.LockFileEx.argtypes = [wintypes.HANDLE, wintypes.DWORD, *_numbers, ctypes.POINTER(_Place)]
    _kernel.UnlockFileEx.argtypes = [wintypes.HANDLE, *_numbers, ctypes.POINTER(_Place)]
    _kernel.OpenProcess.argtypes = [wintypes.DWORD, wintypes.BOOL, wintypes.DWORD]
    _kernel.OpenProcess.restype = wintypes.HANDLE
    _kernel.WaitForSingleObject.argtypes = [wintypes.HANDLE, wintypes.DWORD]
    _kernel.CloseHandle.argtypes = [wintypes.HANDLE]

    def _lock(file: IO[bytes], shared: bool, wait: bool) -> None:
        handle, place = msvcrt.get_osfhandle(file.fileno()), ctypes.byref(_Place(Offset=BYTE))
        _kernel.UnlockFileEx(handle, 0, 1, 0, place)  # fails if it had none
        flags = (0 if shared else ALONE) | (0 if wait else AT_ONCE)
        if not _kernel.LockFileEx(handle, flags, 0, 1, 0, place):
            raise ctypes.WinError(ctypes.get_last_error())

    def lives(process: int) -> bool:
        """Whether there is a process of this number."""
        handle = _kernel.OpenProcess(HANDLE_NEEDS, False, process & 0xFFFFFFFF)
        if not handle:
            return ctypes.get_last_error() == DENIED
        try:
            return _kernel.WaitForSingleObject(handle, 0) == GONE_ON
        finally:
            _kernel.CloseHandle(handle)

else:

    def _lock(file: IO[bytes], shared: bool, wait: bool) -> None:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))

    def lives(process: int) -> bool:
        """Whether there is a process of this number; one that is dead, but whose parent has not asked, is none."""
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
        except (PermissionError, OverflowError):
            return True
        with contextlib.suppress(OSError):
            return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
        return True
