"""A run in object storage, by fsspec's URL (s3://, gs://, az://, ...): each process has a local folder of it.

The local folder holds the run's records and no pictures. A batch is written there, then uploaded, its records last, and
its pictures are removed: a pair exists when its record does, as in a run on a disk. What others have made comes in with
`pull`. Object storage has no locks and makes nothing exclusively, and a run needs neither: a claim only spares work
(`workers`), and two processes that make the same batch upload the same files.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from .errors import InputError
from .progress import Progress
from .run_record import (
    BROKEN,
    ENDINGS,
    ID,
    RECORD_NAME,
    REJECT_NAME,
    REJECTS,
    RUN_PARTS,
    broken_ids,
    broken_path,
    ends_of,
    is_settled,
    is_taken_out,
    last_tries,
    made_ids,
    read_plan,
    tries_of,
)
from .storage import LOCK, read_json_object, run_lock, write_json, write_whole
from .workers import CLAIMS, Claims, owner_of

URL = re.compile(r"[a-z][a-z0-9+.\-]+:{1,2}[^\\]*", re.IGNORECASE)
"""What fsspec reads, of two letters at least before the colon: C: is a disk."""
PLAN = "run.json"
PICTURES = ("image", "mask")
RECORDS = {"pairs": RECORD_NAME, f"{REJECTS}/pairs": REJECT_NAME, BROKEN: RECORD_NAME}
"""Folders of records, and the names that they have; what is called otherwise is a stranger's."""
PICTURE_NAME = re.compile(rf"{ID}(-[0-9]+)?({'|'.join(ENDINGS)})\.png")
CLAIM_NAME = re.compile(r"[0-9]{6,18}\.json")
BEAT = 15.0
"""Seconds after which a process uploads its claims again, which others take over when they are `workers.STALE`."""
AT_ONCE = 32
"""Files that are downloaded at a time."""
TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")
"""What fsspec's file systems call the time at which a file was written."""


def is_url(text: str | os.PathLike) -> bool:
    """Whether a place is a URL and no path."""
    text = os.fspath(text)
    return "://" in text and URL.fullmatch(text) is not None


class ObjectFolder:
    """A folder in object storage and its local stand-in.

    url: of the folder. local: an empty folder of this process alone. Raises InputError for a URL that fsspec does not
    know, or whose package is not installed.
    """

    def __init__(self, url: str, local: Path):
        import fsspec  # with torch; here, as no help waits for it
        from fsspec.implementations.local import LocalFileSystem

        self.url, self.local = url if url.endswith("://") else url.rstrip("/"), local
        try:
            # no listing is remembered: other processes write there
            self._system, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except ImportError as error:
            raise InputError(f"{self.url} needs another package: {error}") from None
        except ValueError as error:
            raise InputError(f"{self.url} is no URL that fsspec knows ({error}); give for instance s3://BUCKET/RUN, "
                             "or a folder") from None  # fmt: skip
        if isinstance(self._system, LocalFileSystem):
            raise InputError(f"{self.url} is a folder of this machine; give its path")
        self._root = root.rstrip("/")
        if not self._root:
            raise InputError(f"{self.url} names no folder; give for instance s3://BUCKET/RUN")

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self._root.rpartition("/")[2]

    def below(self, *parts: str) -> ObjectFolder:
        """A folder in it, by its names."""
        return ObjectFolder("/".join((self.url, *parts)), self.local.joinpath(*parts))

    def list(self) -> set[str]:
        """Names right in the folder; empty if there is none."""
        with contextlib.suppress(FileNotFoundError), self._told():
            self._system.invalidate_cache()
            return {entry.rstrip("/").rpartition("/")[2] for entry in self._system.ls(self._root, detail=False)} - {""}
        return set()

    def put(self, *names: str) -> None:
        """Upload local files, by their names in the folder."""
        if not names:
            return
        with self._told():
            self._system.put([str(self.local / name) for name in names], [self._at(name) for name in names])

    def read(self, name: str) -> bytes:
        """What a file holds; raises FileNotFoundError if it is not there."""
        with self._told():
            return self._system.cat_file(self._at(name))

    def get(self, name: str) -> None:
        """Download a file, whole or not at all; raises FileNotFoundError if it is not there."""
        content = self.read(name)
        write_whole(self.local / name, lambda temporary: temporary.write_bytes(content))

    def get_all(self, names: Sequence[str]) -> None:
        """Download files, many at a time, each whole or not at all; those that are gone meanwhile are passed over."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for done in [pool.submit(self.get, name) for name in names]:
                with contextlib.suppress(FileNotFoundError):
                    done.result()

    def remove(self, *names: str) -> None:
        """Remove files, and folders with all that is in them; what is not there is no error."""
        with self._told():
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    self._system.rm(self._at(name), recursive=True)

    def find(self, under: str) -> dict[str, float | None]:
        """Names right in a folder below, with the time at which each was written, if that is told."""
        with contextlib.suppress(FileNotFoundError), self._told():
            self._system.invalidate_cache()
            entries = self._system.ls(self._at(under), detail=True)
            files = (entry for entry in entries if entry.get("type") == "file")
            return {entry["name"].rpartition("/")[2]: _written(entry) for entry in files}
        return {}

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if it is not there."""
        with contextlib.suppress(FileNotFoundError), self._told():
            self._system.invalidate_cache()
            return self._system.size(self._at(name))
        return None

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what only a storage's own package raises (no credentials, no network) into OSError, with the URL."""
        try:
            yield
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{self.url}: {error}") from error
        except Exception as error:
            number = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
            raise OSError(number, f"object storage: {' '.join(str(error).split())[:200]}", self.url) from error


class ObjectRun:
    """One run in object storage. folder: where it is; its `local` folder is what everything else takes for the run."""

    def __init__(self, folder: ObjectFolder):
        self.folder, self.local, self._broken = folder, folder.local, set[int]()

    def open(self) -> None:
        """Fetch what there is of the run; raises InputError for a folder that holds something else."""
        there = self.folder.list()
        if PLAN in there:
            self.folder.get(PLAN)
            self.pull()
        elif foreign := sorted(there - {CLAIMS}):
            raise InputError(f"{self.folder.url} holds {foreign[0]} and no run; choose a new or empty folder")

    def publish(self) -> bool:
        """Upload the plan of a run that is new. The plan here is the one that counts then: True if it is another one,
        of a process that was a moment earlier, or later."""
        own = (self.local / PLAN).read_bytes()
        if PLAN not in self.folder.list():
            self.folder.put(PLAN)
        self.folder.get(PLAN)
        return (self.local / PLAN).read_bytes() != own

    def pull(self) -> None:
        """Fetch the records that are not here yet, with the times at which they were written."""
        for under, form in RECORDS.items():
            there = {name: when for name, when in self.folder.find(under).items() if form.fullmatch(name)}
            new = {f"{under}/{name}": when for name, when in there.items() if not (self.local / under / name).exists()}
            self.folder.get_all(list(new))
            for name, when in new.items():
                if when is not None:
                    with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                        os.utime(self.local / name, (when, when))
        self._broken = broken_ids(self.local)

    def settled(self, numbers: Iterable[int], tries: int) -> bool:
        """Whether all of some pairs are settled, here or, as others may have made them, in the storage."""
        missing = [number for number in numbers if not is_settled(self.local, number, tries)]
        for number in missing:
            ends = (end.relative_to(self.local).as_posix() for end in ends_of(self.local, number, tries))
            found = next((name for name in ends if self.folder.size(name) is not None), None)
            if found is None:
                return False
            self.folder.get_all([found])
        return True

    def push(self) -> None:
        """Upload what was written since the last time, records last; the local pictures are removed then."""
        pictures = [f"{part}{kind}/{path.name}" for part in ("", f"{REJECTS}/") for kind in PICTURES
                    for path in (self.local / f"{part}{kind}").glob("*.png")]  # fmt: skip
        images = (name for name in pictures if "image/" in name)
        records = [name.replace("image/", "pairs/").replace(".png", ".json") for name in images]
        broken = broken_ids(self.local)
        records += [_broken(number) for number in broken - self._broken]
        self.folder.put(*pictures)
        self.folder.put(*records)
        for name in pictures:
            (self.local / name).unlink()
        self.forget_broken()

    def forget_broken(self) -> None:
        """Remove from the storage the records of broken pairs that are gone from here."""
        broken = broken_ids(self.local)
        self.folder.remove(*(_broken(number) for number in self._broken - broken))
        self._broken = broken

    def claims(self) -> Claims:
        """This process's claims on batches."""
        return _ObjectClaims(self.folder)

    def look_at_claims(self) -> None:
        """Fetch the claims there are now, for `workers.workers_of`."""
        for path in (self.local / CLAIMS).glob("*.json"):
            path.unlink()
        for name in self.folder.find(CLAIMS):
            if CLAIM_NAME.fullmatch(name):
                _fetch_claim(self.folder, f"{CLAIMS}/{name}")

    def check_clearable(self) -> None:
        """Raise InputError if there is more than a run in its folder."""
        there = self.folder.list()
        if PLAN in there and (foreign := sorted(there - RUN_PARTS)):
            raise InputError(f"{self.folder.url} holds {foreign[0]} beside its run; move that away or choose another "
                             "folder")  # fmt: skip

    def made(self) -> int:
        """How many pairs there are; none is fetched."""
        return sum(RECORD_NAME.fullmatch(name) is not None for name in self.folder.find("pairs"))

    def clear(self) -> None:
        """Remove the run, its plan first; nothing if there is none."""
        there = self.folder.list()
        if PLAN in there:
            self.folder.remove(PLAN, *sorted(there - {PLAN}))


def fetch_run(folder: ObjectFolder, progress: Progress) -> int:
    """Copy a run to the folder's local one, records last, what is there already excepted; returns its pairs.

    Raises FileNotFoundError for no run, InputError for a local folder that holds something else.
    """
    if PLAN not in folder.list():
        raise FileNotFoundError(f"there is no run at {folder.url}")
    out = folder.local
    with run_lock(out):
        if not (out / PLAN).exists():
            if any(path.name != LOCK for path in out.iterdir()):
                raise InputError(f"{out} is not empty and holds no run; choose a new or empty folder")
            folder.get(PLAN)
        elif (out / PLAN).read_bytes() != folder.read(PLAN):
            raise InputError(f"{out} holds another run than {folder.url}; choose a new or empty folder")
        records = [f"{under}/{name}" for under, form in RECORDS.items() for name in folder.find(under)
                   if form.fullmatch(name)]  # fmt: skip
        moved = _moved(out)
        new = [name for name in records if name not in moved and not (out / name).exists()]
        pictures = [name for name in _pictures(folder, new) if not (out / name).exists()]
        progress.start(len(pictures) + len(new), "files")
        done = 0
        for names in (pictures, new):
            for start in range(0, len(names), AT_ONCE):
                folder.get_all(names[start : start + AT_ONCE])
                done += len(names[start : start + AT_ONCE])
                progress.update(done)
        progress.finish()
        return len(made_ids(out))


def _moved(out: Path) -> set[str]:
    """The records of a copy that somebody moved elsewhere in it (`rejection`): a storage has them where they were."""
    tries = tries_of(read_plan(out))
    rejected = {n for n, last in last_tries(out).items() if last == tries - 1 and is_taken_out(out, n, tries)}
    back = {f"{REJECTS}/pairs/{n:06d}-{tries - 1}.json" for n in made_ids(out)}  # else such a pair has none
    return back | {f"pairs/{n:06d}.json" for n in rejected}


def _pictures(folder: ObjectFolder, records: Sequence[str]) -> list[str]:
    """The pictures that records tell of."""
    found = []
    for part in ("", f"{REJECTS}/"):
        whole = {PurePosixPath(name).stem for name in records if name.startswith(f"{part}pairs/")}
        found += [f"{part}{kind}/{name}" for kind in PICTURES for name in folder.find(f"{part}{kind}")
                  if PICTURE_NAME.fullmatch(name) and re.split("[_.]", name)[0] in whole]  # fmt: skip
    return found


class _ObjectClaims(Claims):
    """Claims that lie in object storage; each says when it was made or renewed last, as not all storages tell."""

    beat = BEAT

    def __init__(self, folder: ObjectFolder):
        super().__init__(folder.local)
        self._remote = folder

    def take(self, batch: int | str) -> bool:
        name = self._path(batch)
        told = f"{CLAIMS}/{name.name}"
        if _fetch_claim(self._remote, told) and owner_of(name) is not None:
            return False
        self._mine.add(batch)
        self._renew(batch)
        # two that come at the same moment: the later one has it
        if _fetch_claim(self._remote, told) and read_json_object(name).get("worker") != self._about["worker"]:
            self._mine.discard(batch)
            return False
        return True

    def release(self, batch: int | str) -> None:
        super().release(batch)
        with contextlib.suppress(OSError):  # it is nobody's in a minute
            self._remote.remove(f"{CLAIMS}/{self._path(batch).name}")

    def _renew(self, batch: int | str) -> None:
        write_json(self._path(batch), {**self._about, "batch": batch, "renewed": time.time()})
        self._remote.put(f"{CLAIMS}/{self._path(batch).name}")


def _broken(number: int) -> str:
    return broken_path(Path(), number).as_posix()


def _fetch_claim(folder: ObjectFolder, name: str) -> bool:
    """Fetch a claim, its file as old as it says; False if there is none."""
    path = folder.local / name
    try:
        folder.get(name)
        renewed = json.loads(path.read_bytes())["renewed"]
        os.utime(path, (renewed, renewed))
    except FileNotFoundError:
        path.unlink(missing_ok=True)
        return False
    except (ValueError, LookupError, TypeError, OverflowError):  # damaged: nobody's
        os.utime(path, (0, 0))
    return True


def _written(entry: dict[str, Any]) -> float | None:
    """When a file was written, seconds since 1970, of what a listing says of it."""
    for name in TIMES:
        value = entry.get(name)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
        if isinstance(value, datetime.datetime):
            return value.timestamp()
        if isinstance(value, (int, float)):
            return float(value)
    return None
