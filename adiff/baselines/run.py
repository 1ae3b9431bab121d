"""A run of pasted pairs: the folder of `generation.run`, made without a model, to be mixed with generated ones.

Pair i depends on (seed, method, i), the shots and the normal images alone. Measures that need a model (likeness) or a
library (novelty) are null in the records; fill is taken against the normal image itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..datasets.images import Photo, StoredImages, read_photo, write_png
from ..generation.files import check_files
from ..generation.placing import Objects
from ..generation.run import RunResult, open_run
from ..geometry import mask_box
from ..learning import Shots
from ..library import Key
from ..progress import Cancelled, NullProgress, Progress
from ..run_record import FORMAT, Records, is_settled, record_path
from ..scoring import measure_pair
from ..storage import run_lock, short_digest, write_json
from ..training.shots import digest_of
from . import normal_of, paste_pairs
from .pasting import Pasted


def paste_run(
    method: str,
    key: Key,
    shots: Shots,
    normals: Sequence[Path],
    *,
    count: int,
    out: Path,
    textures: Sequence[Path] = (),
    objects: Objects | None = None,
    seed: int = 0,
    command: str | None = None,
    progress: Progress | None = None,
    clear: Callable[[], object] | None = None,
) -> RunResult:
    """Fill `out` with `count` pairs of a defect; what exists of the run is kept.

    method, shots, textures, objects: as `paste_pairs` takes them, opened one by one. command: what makes the run again,
    for run.json. clear: removes what is there, to begin anew; it is called once the first pair could be made. Images
    are of their normal image's kind, grey or of 16 bits too. Ctrl-C or Cancelled ends the run with the pairs done so
    far. Raises InputError as `paste_pairs` does, for a photo that does not open, and when `out` holds something else or
    a run of other settings or files (saying which).
    """
    progress = progress or NullProgress()
    identity = {
        "format": FORMAT, "method": method, "product": key[0], "defect": key[1], "count": count, "seed": seed,
        "masks": {"kind": method, "objects": None if objects is None else objects.record()},
        "normals": [path.name for path in normals], "textures": [path.name for path in textures] or None,
        "texture_digests": {path.name: short_digest(path) for path in textures} or None,
        "settings": {"batch": 1}, "shots": list(shots.files), "digests": [digest_of(pair) for pair in shots.pairs],
    }  # fmt: skip
    photos = StoredImages(normals)
    places = None if objects is None else lambda index: objects.find(read_photo(normals[index]))

    def files_of(number: int) -> list[Path]:
        normal = normals[normal_of(method, number, len(normals), seed)]
        return [normal, *(objects.files(normal) if objects else ())]

    paste = partial(
        paste_pairs, method, photos, shots=shots.pairs, textures=StoredImages(textures), objects=places, seed=seed
    )
    if clear is not None:
        next(paste(1))
        clear()
    with run_lock(out):
        open_run(out, identity, None, {} if command is None else {"command": command})
        check_files(out, count, 1, files_of, out)
        began, cancelled = time.monotonic(), False
        done = {number for number in range(count) if is_settled(out, number, 1)}
        left = (number for number in range(count) if number not in done)
        progress.start(count, f"pairs {'/'.join(key)}")
        progress.update(len(done))
        try:
            for place, (pair, number) in enumerate(zip(paste(count, skip=done), left, strict=True), len(done) + 1):
                normal = read_photo(normals[pair.normal])
                pasted = _pasted(normal, pair)
                measures = measure_pair(pasted.rgb, normal.rgb, normal.rgb, pair.mask)
                about = {"files": [short_digest(path) for path in files_of(number)], **measures}
                pair = pair._replace(image=pasted.pixels)
                write_pasted(out, number, key, method, pair, normals[pair.normal].name, seed, about)
                progress.update(place)
        except (Cancelled, KeyboardInterrupt):
            cancelled = True
        progress.finish()
        return RunResult(out, Records(out), time.monotonic() - began, cancelled)


def _pasted(normal: Photo, pair: Pasted) -> Photo:
    """A pair's image in its normal image's own kind: outside the mask the very pixels."""
    pixels, on = normal.pixels.copy(), mask_box(pair.mask).slices
    pixels[on] = replace(normal, pixels=pixels[on]).composite(pair.image[on], pair.mask[on])
    return replace(normal, pixels=pixels)


def write_pasted(
    out: Path, number: int, key: Key, kind: str, pair: Pasted, normal: str, seed: int, about: Mapping[str, Any]
) -> None:
    """Write a pair into a run's folder, its record last.

    kind: of its mask; normal: the name of its normal image; about: what else is known of it, its measures.
    """
    name = f"{number:06d}"
    write_png(out / "image" / f"{name}.png", pair.image)
    write_png(out / "mask" / f"{name}_mask.png", pair.mask)
    record = {"id": name, "product": key[0], "defect": key[1], "normal": normal, "seed": seed, "mask": {"kind": kind}}
    write_json(record_path(out, number), {**record, **about})
