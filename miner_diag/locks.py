"""One command in one folder: locks that end with the process that holds them, however it ends."""

from __future__ import annotations

import contextlib
import importlib
import os
import weakref
from pathlib import Path
from typing import Any

LOCK_FILE = ".miner_diag.lock"
"""The file in a folder whose lock is held while a command writes there. A file without a lock blocks nobody."""


OTHER_OUT = "wait until it has ended, or choose another --out"
"""What a command can do where another one writes into its folder."""


def _locking() -> Any:
    try:
        return importlib.import_module("fcntl")
    except ImportError:  # Windows has none; commands are not kept apart there
        return None


_fcntl = _locking()

HAS_LOCKS = _fcntl is not None
"""Whether the platform has locks that end with their process."""


class FolderInUseError(ValueError):
    """Another command writes into the folder."""


def take_lock(handle: int) -> bool:
    """Lock an open file for this process without waiting; return False if another one holds it.

    True where the platform or the file system has no such locks.
    """
    if _fcntl is None:
        return True
    try:
        _fcntl.flock(handle, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


class FolderLock:
    """The lock of a folder; it is released when it is no longer referred to, or by `release`.

    Parameters
    ----------
    folder : path
        The folder; it is made if it is not there, and taken away again if nothing was written into it.
    command : str
        Who holds the lock, for the message that another command gets.
    way_out : str
        What a person can do where another process holds it, for the message that this command gets.

    Raises
    ------
    FolderInUseError
        If another process holds it.
    """

    def __init__(self, folder: Path, command: str, way_out: str = OTHER_OUT) -> None:
        path = folder / LOCK_FILE
        made = [part for part in (folder, *folder.parents) if not part.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        self.handle = _open_locked(path, way_out)
        os.ftruncate(self.handle, 0)
        os.write(self.handle, f"{command}, process {os.getpid()}\n".encode())
        self.release = weakref.finalize(self, _release, self.handle, path, made)


_held: weakref.WeakValueDictionary[str, FolderLock] = weakref.WeakValueDictionary()


def lock_folder(folder: Path, command: str, way_out: str = OTHER_OUT) -> FolderLock:
    """Return the lock of a folder; within one process it is the same for all who ask. Parameters are as above.

    Raises
    ------
    FolderInUseError
        If another process holds it.
    """
    name = os.path.realpath(folder)
    lock = _held.get(name)
    if lock is None or not lock.release.alive:
        lock = _held[name] = FolderLock(folder, command, way_out)
    return lock


def release_folders() -> None:
    """Release all locks of this process."""
    for lock in list(_held.values()):
        lock.release()


def _open_locked(path: Path, way_out: str) -> int:
    """Open and lock the file at `path`: one that its last holder has just deleted is of no use."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not take_lock(handle):
            holder = os.read(handle, 500).decode("utf-8", "replace").strip() or "it has just started"
            os.close(handle)
            raise FolderInUseError(f"{path.parent} is in use by another command ({holder}); {way_out}")
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(handle)):
                return handle
        os.close(handle)


def _release(handle: int, path: Path, made: list[Path]) -> None:
    """Delete the file while it is locked, so that nobody locks a file that is about to go."""
    path.unlink(missing_ok=True)
    os.close(handle)
    for folder in made:
        with contextlib.suppress(OSError):  # something was written into it
            folder.rmdir()


def _leave_to_the_parent() -> None:
    """Close what a forked child has inherited: the lock is the parent's, and must end with it."""
    for lock in list(_held.values()):
        if lock.release.detach() is not None:
            os.close(lock.handle)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)
