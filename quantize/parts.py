"""Temporary names: a target is written under one and takes its own when it is whole, so that nothing half-written bears it."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from quantize.errors import TargetError

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed: what can be is nobody's
    fcntl = None  # type: ignore[assignment]


_MARK = ".localr1-"  # in every temporary name, and in no backup that a person has made


class Part:
    """A temporary file or folder beside `target`. What a killed process left is removed by the next one that writes the same
    target: whoever writes holds a lock on its temporary name until it is renamed or discarded."""

    def __init__(self, target: Path) -> None:
        _remove_stale(target)
        self.path = target.with_name(f"{target.name}{_MARK}{secrets.token_hex(4)}.part")
        self._lock: int | None = None

    def create(self, make: Callable[[Path], object]) -> None:
        """Have `make` create it, and lock it."""
        while True:
            make(self.path)
            if fcntl is None:
                return
            with suppress(FileNotFoundError):
                self._lock = os.open(self.path, os.O_RDONLY if self.path.is_dir() else os.O_RDWR)
                with suppress(OSError):  # a file system without locks: others cannot lock it either, and leave it
                    fcntl.flock(self._lock, fcntl.LOCK_EX)
                if self.path.exists():
                    return
            self.discard()  # another process took it for stale before it was locked

    def discard(self) -> None:
        """Remove what is there under the temporary name, and let go of the lock."""
        with suppress(OSError):
            _remove(self.path)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def check_name(target: Path) -> None:
    """Raises TargetError if nothing can be made beside the target under its temporary name, which is longer."""
    part = Part(target)
    try:
        part.create(Path.touch)
    except OSError as error:
        raise TargetError(f"{target}: cannot be written ({error.strerror}); choose another place or a shorter name") from None
    finally:
        part.discard()


def check_room(target: Path, size_bytes: int) -> None:
    """Raises TargetError if the target's file system has less left."""
    free = shutil.disk_usage(target.parent).free
    if size_bytes > free:
        raise TargetError(f"{target}: needs {size_bytes:,} bytes and {free:,} are free; make room or choose a smaller format")


def sync_folder(folder: Path) -> None:
    """Put a folder's new names on disk too, where the system lets it be synced."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def put_back(target: Path) -> None:
    """A folder that is replaced steps aside as TARGET.localr1-*.old. Of a process killed in that moment: back to its place, or away if the new one is there."""
    _remove_stale(target)
    ours = re.compile(re.escape(target.name + _MARK) + r"[0-9a-f]{8}\.old")
    with suppress(OSError):
        for old in target.parent.iterdir():
            if ours.fullmatch(old.name) and old.is_dir() and not old.is_symlink():
                if old.with_suffix(".part").exists():
                    continue  # a process is at it
                with suppress(OSError):
                    shutil.rmtree(old) if target.exists() else old.rename(target)


def _remove_stale(target: Path) -> None:
    """Remove the target's temporary files and folders that no process holds."""
    ours = re.compile(re.escape(target.name + _MARK) + r"[0-9a-f]{8}\.part")
    with suppress(OSError):
        for part in target.parent.iterdir():
            if ours.fullmatch(part.name) and not part.is_symlink() and (part.is_file() or part.is_dir()):
                with suppress(OSError):
                    _remove_if_free(part)


def _remove_if_free(part: Path) -> None:
    if fcntl is None:
        _remove(part)
        return
    handle = os.open(part, os.O_RDONLY if part.is_dir() else os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(part)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
