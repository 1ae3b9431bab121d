"""Files that are whole or not there, and folders that one process at a time writes to.

A file is written under a temporary name, then renamed. A killed process leaves a temporary file behind; whoever locks
the folder next removes it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import shutil
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from .errors import InputError
from .system import NO_LOCKS, WINDOWS, lock, persist

logger = logging.getLogger("adiff")

LOCK = ".lock"
"""Name of the file that is there, and locked, while a process writes to a folder."""
TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.[0-9a-f]{16}\.tmp")
"""Names of temporary files: a digest of the name that the file will have, then a number of each write's own."""
UNFINISHED = "unfinished.txt"
"""Name of the file that says that a data set is a part of what it will be."""
FILLING = "adiff is filling this folder, or was stopped; the same command, given again, completes it.\n"
"""What it says; a file of the name that says something else is somebody's own."""
TRIES = 100
"""How often to make a folder that other processes remove at the same time."""


def check_readable(path: Path) -> None:
    """Raise the system's own error for a file that cannot be opened; safetensors calls every such one missing."""
    with open(path, "rb"):
        pass


def write_whole(path: Path | str, write: Callable[[Path], object], rename: Callable | None = None) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it; folders are made.

    rename: takes both names, os.replace by default.

    If anything fails, the old file stays as it was and the temporary one is removed. Its name is each call's own, so
    that processes which write the same file do not meet. The system's errors (full disk, read-only folder) are raised
    with the name of `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # beside the target, as only then the rename is one step; the target's own name may be of full length
    temporary = path.with_name(f".{_digest(path.name)}.{os.urandom(8).hex()}.tmp")
    try:
        write(temporary)
        persist(rename or os.replace, temporary, path)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # what stopped the write says more
            temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str, rename: Callable | None = None) -> None:
    """Write text as UTF-8, with the line ends it has on every system; rename: as in `write_whole`."""
    # a file name that is no text (a lone surrogate) becomes an escape, which in JSON reads back as itself
    content = text.encode("utf-8", "backslashreplace")
    write_whole(path, lambda temporary: temporary.write_bytes(content), rename)


def write_json(path: Path | str, content: Any, rename: Callable | None = None) -> None:
    """Write JSON, indented, as UTF-8; rename: as in `write_whole`."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n", rename)


def create_json(path: Path, content: Any) -> bool:
    """Write JSON as `write_json` does; False, and nothing written, if the file is there, made by another meanwhile."""

    def link(temporary: Path, target: Path) -> None:
        try:
            os.link(temporary, target)  # unlike a rename, it leaves alone what is there
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            os.replace(temporary, target)

    try:
        write_json(path, content, link)
    except FileExistsError:
        return False
    return True


def read_json_object(path: Path, remedy: str = "") -> dict[str, Any]:
    """Read a JSON file whose top is an object. Raises InputError, with what to do if that is given, for any other."""
    content = read_json(path, remedy)
    if not isinstance(content, dict):
        raise _damaged(path, "no JSON object", remedy)
    return content


def read_json(path: Path, remedy: str = "") -> Any:
    """Read a JSON file, also with the mark that some editors begin UTF-8 with. Raises InputError for what is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"no JSON: {' '.join(str(error).split())[:80]}", remedy) from None


def _damaged(path: Path, reason: str, remedy: str) -> InputError:
    return InputError(f"{path} is damaged ({reason})" + (f"; {remedy}" if remedy else ""))


def sha256_of(path: Path) -> str:
    """Digest of a file, hex, for records."""
    import hashlib  # here, as no help waits for it

    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def short_digest(path: Path) -> str | None:
    """The first 16 digits of a file's digest, None if it cannot be read; taken anew when its size or time changes."""
    try:
        about = path.stat()
        return _short_digest(path, about.st_size, about.st_mtime_ns)
    except OSError:
        return None


@functools.cache
def _short_digest(path: Path, *_: int) -> str:
    return sha256_of(path)[:16]


def composed(name: str) -> str:
    """Return a name with each accented letter as one character: macOS writes two in its folders, people type one."""
    return unicodedata.normalize("NFC", name)


def remove_leftovers(*places: Path) -> None:
    """Remove what killed writes have left: of a folder everything right in it, else what was to become that file.

    The caller must know that nobody is writing there.
    """
    for place in places:
        folder, own = (place, "") if place.is_dir() else (place.parent, f".{_digest(place.name)}.")
        for path in entries(folder):
            if TEMPORARY.fullmatch(path.name) and path.name.startswith(own):
                path.unlink(missing_ok=True)


def entries(folder: Path) -> list[Path]:
    """What is right in a folder; nothing if there is none, or no longer."""
    try:
        return [folder / name for name in persist(os.listdir, folder)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def clear_folder(folder: Path, *kept: str) -> None:
    """Remove all that a folder holds but the lock, which the caller has, and files of the names to be kept."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in (LOCK, *kept):
            path.unlink()


def make_folder(folder: Path) -> None:
    """Make a folder and those above it if they are not there, also while other processes remove them."""
    for left in reversed(range(TRIES)):
        try:
            return persist(os.makedirs, folder, 0o777, True)
        except (FileExistsError, FileNotFoundError):  # it was there, or the one above it
            if not left:
                raise


@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; at the end it is removed if it is empty and was not so before, as they are.

    Raises InputError for a file of that name.
    """
    if folder.is_file():
        raise InputError(f"{folder} is a file; give a folder")
    removable = [place for place in (folder, *folder.parents) if not place.exists()]
    if not removable and entries(folder):
        removable = [folder]
    make_folder(folder)
    try:
        yield
    finally:
        for place in removable:
            if not entries(place):  # asked first, as Windows keeps others from what is to be removed
                with contextlib.suppress(OSError):  # another process has just written there
                    place.rmdir()


@contextlib.contextmanager
def filled_folder(out: Path, record: str, about: dict[str, Any], settings: dict[str, Any]) -> Iterator[None]:
    """Make a folder with a record of the settings that it is filled by, or find the same ones in it.

    UNFINISHED is there until it is filled, so that nobody takes a part for the whole (`check_finished`). record: the
    file's name; about: what else stands in it. Raises InputError for any other content.
    """
    from . import __version__

    path = out / record
    if path.is_file():
        old = read_json_object(path, "remove the folder or give another --out")
        different = [name for name, value in settings.items() if old.get(name) != value]
        if different:
            was = ", ".join(f"{name} {old.get(name)}" for name in different)
            raise InputError(f"{out} holds a set with {was}; give the same settings or another --out")
    elif out.exists() and (not out.is_dir() or any(entry.name != LOCK for entry in out.iterdir())):
        raise InputError(f"{out} is not empty and holds no {record}; give a new or an empty folder")
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_json(path, {"adiff": __version__, **about, **settings})
    with filling(out):
        yield


@contextlib.contextmanager
def filling(out: Path) -> Iterator[None]:
    """Have UNFINISHED in a folder until it is filled; it stays if that ends early."""
    write_text(out / UNFINISHED, FILLING)
    yield
    (out / UNFINISHED).unlink(missing_ok=True)


def check_finished(folder: Path) -> None:
    """Raise InputError for a folder that a command has not filled yet (`filling`), or one anywhere in it."""
    for place in (folder, *folder.resolve().parents):
        if is_unfinished(place):
            raise InputError(f"{place} is not complete: the command that fills it is at work, or was stopped; give the "
                             f"same command again, which removes {UNFINISHED} at its end")  # fmt: skip


def is_unfinished(folder: Path) -> bool:
    """Whether a folder is one that a command has not filled yet (`filling`)."""
    mark = folder / UNFINISHED
    return mark.is_file() and mark.read_bytes() == FILLING.encode()


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Be the only process that writes to `folder` and the folders right in it; it is made if it is not there.

    The lock is the system's own on an open file: it ends with the process, however that ends. What the writes of a
    process killed there have left is removed; at the end the lock's file is, and so is the folder if it is empty and
    was not so before. Raises InputError, naming the process, if another one writes there, and for a file of that name.
    """
    with made_folder(folder):
        file = _acquire(folder)
        try:
            if file.seek(0, os.SEEK_END):  # the one who wrote into it was killed
                remove_leftovers(folder, *(path for path in entries(folder) if path.is_dir()))
            sign(file, folder)
            yield
        finally:
            release(file, folder)


def open_lock(folder: Path) -> IO[bytes]:
    """Open a folder's lock file; it is made if it is not there, as is the folder."""
    while True:
        try:
            return persist(open, folder / LOCK, "ab+", 0)
        except FileNotFoundError:  # the one who held it has just removed both
            make_folder(folder)


def is_there(file: IO[bytes], folder: Path) -> bool:
    """Whether a folder's lock file is the one that was opened; whoever held that may have removed it since."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(folder / LOCK))
    except FileNotFoundError:
        return False


def _acquire(folder: Path) -> IO[bytes]:
    """Open and lock a folder's lock file; InputError if another process has it."""
    while True:
        file = open_lock(folder)
        try:
            alone = lock(file)
            if alone and is_there(file, folder):
                return file
        except OSError as error:
            if error.errno in NO_LOCKS:
                logger.warning("%s is on a file system without locks; start no second process on it", folder)
                return file
            file.close()
            raise
        file.close()
        if not alone:
            raise InputError(f"{_holder(folder / LOCK)} is writing to {folder}; let it end, or give another folder")


def this_process() -> dict[str, Any]:
    """What a lock or a claim tells of its process: pid, host, since."""
    return {"pid": os.getpid(), "host": host_name(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def host_name() -> str:
    """This machine's name, for locks and claims."""
    import platform  # here, as no help waits for it

    return platform.node()


def sign(file: IO[bytes], folder: Path) -> None:
    """Write into the lock's file who has it, or shares it."""
    try:
        file.write(json.dumps(this_process()).encode() + b"\n")
    except OSError as error:  # it does not tell its file
        raise OSError(error.errno, error.strerror, str(folder / LOCK)) from error


def release(file: IO[bytes], folder: Path) -> None:
    """Remove the lock's file, which this process has for itself, and give it up."""
    if not WINDOWS:  # while it is locked, so that whoever opened it before sees that it is gone
        (folder / LOCK).unlink(missing_ok=True)
    file.close()
    if WINDOWS:  # where no open file is removed
        with contextlib.suppress(OSError):  # another process has it now
            (folder / LOCK).unlink(missing_ok=True)


def _holder(path: Path) -> str:
    """Who has a lock, in words, as far as its file tells."""
    try:
        about = json.loads(path.read_bytes().splitlines()[-1])  # those before it were killed
        return f"process {about['pid']:d} on {about['host']} since {about['since']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"


def _digest(name: str) -> str:
    import hashlib  # here, as no help waits for it

    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
