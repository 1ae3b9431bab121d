"""Libraries: learned defects in one shareable safetensors file.

| tensor | holds | shape |
|---|---|---|
| anomaly/<product>/<defect> | e_a, anomaly embedding (METHOD 2, Eq. 5) | (k, D) float32 |
| mask/<product>/<defect> | e_m, mask embedding (Eq. 9) | (k', D) float32 |
| preview/<product>/<defect> | a picture of the first shot | (3, h, w) uint8 |
| shots/<product>/<defect> | the shots' masks at the base model's size, 8 pixels a byte | (n, S, ceil(S / 8)) uint8 |
| likeness/<product>/<defect> | the shots' descriptors (`scoring.describe`) | (n, F) float32 |

The shots' masks and descriptors travel along so that masks can be sampled and ruled, and pairs compared with the shots,
without the data set; older files have no descriptors. Everything else is JSON in the metadata: format, base model,
encoder, and a record for each defect.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .errors import InputError, listed
from .storage import composed, write_whole
from .tensor_files import open_safetensors, tensors_of

if TYPE_CHECKING:
    from safetensors import safe_open
    from torch import Tensor

logger = logging.getLogger("adiff")

FORMAT = 1
KIND = "library"
MAX_NAME = 64
"""Characters of a product's or a defect's name."""
NOT_IN_NAMES = frozenset('/\\:*?"<>|')
"""Separators, and what some file system does not allow: names become folders."""
DEVICE_NAMES = frozenset(("CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))))

FLOATS = ("anomaly", "mask", "likeness")
"""Tensors of a defect that hold numbers, not pictures."""

Key = tuple[str, str]
"""(product, defect)."""


class Base(Protocol):
    """What a library asks of a base model."""

    name: str
    fingerprint: str
    context_dim: int


@dataclass(frozen=True)
class Defect:
    """One learned defect type of one product.

    anomaly: (k, D) float32 or None. mask: (k', D) float32 or None. preview: (3, h, w) uint8 or None. info: anything
    JSON can hold (shots, steps, loss, seed, licence, author, notes, versions). shot_masks: (n, S, S) bool or None.
    likeness: the shots' descriptors, (n, F) float32, or None.
    """

    product: str
    defect: str
    anomaly: Tensor | None = None
    mask: Tensor | None = None
    preview: Tensor | None = None
    info: dict[str, Any] = field(default_factory=dict)
    shot_masks: np.ndarray | None = None
    likeness: Tensor | None = None

    @property
    def key(self) -> Key:
        return self.product, self.defect

    @property
    def name(self) -> str:
        return f"{self.product}/{self.defect}"


@dataclass(frozen=True)
class Library:
    """Learned defects of one base model and, where their anomaly embeddings need one, one spatial encoder.

    base_fingerprint, encoder_fingerprint: sha256, hex. context_dim: D, width of the base model's context.
    """

    defects: dict[Key, Defect]
    base_fingerprint: str
    base_name: str
    context_dim: int
    encoder_fingerprint: str | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def get(self, name: str) -> Defect:
        """Return the defect called "product/defect"; raises InputError listing what is there."""
        there = listed(defect.name for defect in self.defects.values()) or "nothing"
        try:
            key = parse_name(name)
        except InputError as error:
            raise InputError(f"{error}; the library holds {there}") from None
        if key not in self.defects:
            key = next((one for one in self.defects if list(map(composed, one)) == list(map(composed, key))), key)
        if key not in self.defects:
            raise InputError(f"the library holds no {name!r}; it holds {there}")
        return self.defects[key]


def check_name(name: str, what: str = "name") -> str:
    """Return a product's or a defect's name if it may stand in a library; raises InputError saying what is wrong."""
    if not name or len(name) > MAX_NAME:
        raise InputError(f"{what} {name[:80]!r} has {len(name)} characters; expected 1 to {MAX_NAME}")
    unfit = [c for c in name if c in NOT_IN_NAMES or not c.isprintable()]
    if unfit:
        refused = "separators, control characters and what does not show are not allowed"
        raise InputError(f"{what} {name!r} has {unfit[0]!r} in it; {refused}")
    if name != name.strip() or name.endswith("."):
        raise InputError(f"{what} {name!r} starts or ends with a space or ends with a dot; leave them out")
    if name.split(".")[0].rstrip().upper() in DEVICE_NAMES:
        raise InputError(f"{what} {name!r} is a device on Windows, where it cannot be a folder; choose another")
    return name


def parse_name(name: str) -> Key:
    """Return (product, defect) of "product/defect"; raises InputError for anything else."""
    parts = name.split("/")
    if len(parts) != 2:
        raise InputError(f"{name[:80]!r} is not PRODUCT/DEFECT, for instance metal/scratch")
    return check_name(parts[0], "product"), check_name(parts[1], "defect")


def taught_by(entry: Defect) -> list[str] | None:
    """The shots that a defect was learned from, as paths in their data folder; None if its record does not say."""
    shots = entry.info.get("shots") if isinstance(entry.info, dict) else None
    return [str(name) for name in shots] if isinstance(shots, list) and shots else None


def check_base(library: Library, base: Base) -> None:
    """Make sure that a library's embeddings fit a base model.

    Raises InputError if the context widths differ; warns if only the weights do.
    """
    if library.context_dim != base.context_dim:
        raise InputError(
            f"the library was learned on base {library.base_name!r} with context width {library.context_dim}, "
            f"but base {base.name!r} has width {base.context_dim}; use the base it was learned on"
        )
    if library.base_fingerprint != base.fingerprint:
        logger.warning(
            "the library was learned on base %r (%.8s), not on %r (%.8s): defects may look different",
            library.base_name, library.base_fingerprint, base.name, base.fingerprint,
        )  # fmt: skip


def check_encoder(library: Library, fingerprint: str) -> None:
    """Warn if the anomaly embeddings were learned together with another spatial encoder than this one."""
    if library.encoder_fingerprint is not None and library.encoder_fingerprint != fingerprint:
        logger.warning(
            "the library was learned with spatial encoder %.8s, not with %.8s: defects may miss their masks",
            library.encoder_fingerprint, fingerprint,
        )  # fmt: skip


def save_library(path: str | Path, library: Library) -> None:
    """Write a library as one safetensors file, atomically: a failing write leaves the old file as it was.

    Raises InputError for names that check_name refuses and for embeddings that are not finite or not D wide.
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    for (product, defect), entry in library.defects.items():
        check_name(product, "product")
        check_name(defect, "defect")
        if entry.key != (product, defect):
            raise InputError(f"the defect {entry.name} is filed as {product}/{defect}")
        tensors |= {f"{kind}/{entry.name}": tensor for kind, tensor in _tensors_of(entry).items()}
    _check_tensors(tensors, library.context_dim, "the library")
    content = save(tensors, _metadata(library))
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def load_library(path: str | Path) -> Library:
    """Read what save_library wrote; tensors come back float32 (embeddings) and uint8 (previews) on the CPU.

    Raises FileNotFoundError, and InputError for a damaged file, another kind of file or a newer format.
    """
    with _opened(Path(path), "pt") as (file, metadata):
        return _rebuild(metadata, file.keys(), tensors_of(file))


def read_header(path: str | Path) -> tuple[Library, dict[str, list[int]]]:
    """A library with no tensors, and the shapes of those in its file, by name: without torch, which takes seconds.

    Raises what `load_library` does, but for tensors of another shape or with values that are not finite.
    """
    with _opened(Path(path), "numpy") as (file, metadata):
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}
        return _rebuild(metadata, shapes, {}), shapes


@contextmanager
def _opened(path: Path, framework: str) -> Iterator[tuple[safe_open, Mapping[str, str]]]:
    """A library's open file and its metadata; what reading on finds amiss there is said to be damage."""
    with open_safetensors(path, "library", framework=framework) as file:
        metadata = file.metadata() or {}
        _check_kind(path, metadata, list(file.keys()))
        try:
            yield file, metadata
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise InputError(
                f"{path} is a damaged library ({' '.join(str(error).split())[:200]}); copy or download it again"
            ) from error


def _tensors_of(entry: Defect) -> dict[str, Tensor]:
    """The tensors of a defect as they are stored, by kind: copies, as the format refuses tensors that share memory."""
    import torch

    stored = {kind: getattr(entry, kind) for kind in FLOATS if getattr(entry, kind) is not None}
    tensors = {kind: _copied(tensor).to("cpu", torch.float32) for kind, tensor in stored.items()}
    if entry.preview is not None:
        tensors["preview"] = _copied(entry.preview).cpu()
    if entry.shot_masks is not None:
        tensors["shots"] = pack_masks(entry.shot_masks)
    return tensors


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().clone()


def _check_tensors(tensors: Mapping[str, Tensor], context_dim: int, whose: str) -> None:
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        kind = name.split("/")[0]
        if kind in FLOATS:
            if tensor.ndim != 2 or 0 in shape or (kind != "likeness" and shape[1] != context_dim):
                expected = "(shots, features)" if kind == "likeness" else f"(tokens, {context_dim})"
                raise InputError(f"{whose} has {name} of shape {shape}; expected {expected}")
            if not tensor.isfinite().all():
                why = "" if kind == "likeness" else "; its training diverged"
                raise InputError(f"{whose} has {name} with values that are not finite{why}")
        # by its name: torch itself need not be imported where no tensor was read
        elif str(tensor.dtype) != "torch.uint8" or tensor.ndim != 3 or (kind == "preview" and shape[0] != 3):
            expected = "(3, height, width)" if kind == "preview" else "(shots, size, size / 8)"
            raise InputError(f"{whose} has {name} of shape {shape}, {tensor.dtype}; expected {expected} in uint8")


def _metadata(library: Library) -> dict[str, str]:
    """Everything but the tensors; safetensors keeps strings only."""
    size_of = {d.name: d.shot_masks.shape[-1] for d in library.defects.values() if d.shot_masks is not None}
    return {
        "adiff_format": str(FORMAT),
        "kind": KIND,
        "base_name": library.base_name,
        "base_fingerprint": library.base_fingerprint,
        "context_dim": str(library.context_dim),
        "encoder_fingerprint": library.encoder_fingerprint or "",
        "info": json.dumps(library.info, ensure_ascii=False),
        "defects": json.dumps({d.name: d.info for d in library.defects.values()}, ensure_ascii=False),
        "shot_sizes": json.dumps(size_of, ensure_ascii=False),
    }


def _check_kind(path: Path, metadata: Mapping[str, str], names: list[str]) -> None:
    if metadata.get("kind") != KIND:
        kind = metadata.get("kind")
        what = "a safetensors file of another program" if kind is None else f"a file of kind {kind[:40]!r}"
        held = ", ".join(name[:40] for name in sorted(names)[:2]) or "no tensor"
        raise InputError(f"{path} is {what} ({held}, ...), not a library; give a file that `adiff train` has written")
    version = metadata.get("adiff_format", "")
    if not re.fullmatch("[1-9][0-9]{0,5}", version):
        raise InputError(f"{path} is a library of unknown format {version[:40]!r}; copy or download it again")
    if int(version) > FORMAT:
        raise InputError(f"{path} is a library of format {version}, this version reads up to {FORMAT}; update adiff")


def _rebuild(metadata: Mapping[str, str], held: Iterable[str], tensors: Mapping[str, Tensor]) -> Library:
    """The library in a file. held: names of all its tensors; tensors: those that were read."""
    infos, sizes = json.loads(metadata["defects"]), json.loads(metadata["shot_sizes"])
    context_dim = int(metadata["context_dim"])
    by_defect: dict[str, dict[str, Any]] = {name: {"info": info} for name, info in infos.items()}
    for full_name in held:
        kind, _, name = full_name.partition("/")
        if kind not in (*FLOATS, "preview", "shots") or name not in infos:
            raise InputError(f"unexpected tensor {full_name!r}")
        if full_name in tensors:
            by_defect[name][kind] = tensors[full_name]
    _check_tensors(tensors, context_dim, "it")
    defects = {}
    for name, parts in by_defect.items():
        product, defect = parse_name(name)
        if "shots" in parts:
            parts["shot_masks"] = _unpack(parts.pop("shots"), sizes[name])
        defects[product, defect] = Defect(product, defect, **parts)
    return Library(
        defects=defects,
        base_fingerprint=metadata["base_fingerprint"],
        base_name=metadata["base_name"],
        context_dim=context_dim,
        encoder_fingerprint=metadata["encoder_fingerprint"] or None,
        info=json.loads(metadata["info"]),
    )


def pack_masks(masks: np.ndarray) -> Tensor:
    """Masks (n, S, S) bool, however they lie in memory, with 8 pixels a byte: (n, S, ceil(S / 8)) uint8."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.packbits(masks, axis=-1)))


def _unpack(packed: Tensor, size: int) -> np.ndarray:
    """Return masks (n, S, S) bool of their packed form (n, S, ceil(S / 8))."""
    if packed.shape[1:] != (size, -(-size // 8)):
        raise InputError(f"shots of size {size} are stored in shape {tuple(packed.shape)}")
    return np.unpackbits(packed.numpy(), axis=-1, count=size).astype(bool)
