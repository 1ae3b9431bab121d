"""Embeddings of other programs: textual inversions of A1111's web UI and of diffusers, read without unpickling.

| file | holds | of |
|---|---|---|
| .pt | string_to_param: {"*": (k, D)}, a dict or a torch ParameterDict | A1111, the first textual inversion |
| .safetensors | emb_params: (k, D), or one tensor of any name | A1111 |
| .bin, .safetensors | "<token>": (D,) or (k, D) | diffusers (learned_embeds) |
| .safetensors | emb_params: (k, D), metadata adiff_export | `write_embedding`: a library's own, back again |

But for the last, these vectors stand in front of the text encoder, a library's behind it (METHOD 2, "e is appended ...
after the text encoder"). `behind_text_encoder` takes them through it, as a prompt of them alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from .backbone import Backbone, prompt_context
from .errors import InputError
from .library import Base, Defect, Key, Library
from .library_edit import record_of
from .storage import check_readable, write_whole
from .tensor_files import BROKEN, read_pickled, reason, shown
from .versions import versions

KINDS = ("anomaly", "mask")
"""Embeddings of a defect."""
PICKLED = (".pt", ".bin", ".pth")
MAX_TOKENS = 77
"""Tokens of an embedding: those of a whole prompt."""
MAX_WIDTH = 8192
"""D beyond that of any text encoder; a damaged file may claim any."""
BERT_WIDTH = 1280
"""D of LDM's BERT text encoder, on which the released AnomalyDiffusion was trained."""
EXPORT, OWN = "adiff_export", "adiff"
"""Metadata of an embedding that a library wrote, and what its format is called."""
RELEASED_EMBEDDING = (
    "{path} is of the released AnomalyDiffusion: tokens 1280 wide, for LDM's BERT as text encoder and another spatial "
    "encoder than ours; it cannot be used on SD 1.x: learn the defect anew with `adiff train`"
)
RELEASED_ENCODER = (
    "{path} is the released AnomalyDiffusion's spatial encoder, another one than ours: it makes tokens 1280 wide for "
    "LDM's BERT text encoder; it cannot be used on SD 1.x: learn the defect anew with `adiff train`"
)
OTHER_SPACE = (
    "textual inversions stand in front of the text encoder, a library's embeddings behind it: they fit by width but do "
    "not look the same on both sides"
)
NO_ENCODER = f"the base model has no text encoder to take it through; {OTHER_SPACE}"


@dataclass(frozen=True)
class Foreign:
    """An embedding of another program. vectors: (k, D) float32, finite. source: file's name, format and sha256."""

    vectors: Tensor
    source: dict[str, Any]


def read_embedding(path: str | Path) -> Foreign:
    """Read a textual inversion of A1111's or diffusers'.

    Raises FileNotFoundError, and InputError for files that are damaged, hold more than weights, or are something else:
    the released AnomalyDiffusion's checkpoints are told by name.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no embedding at {path}")
    check_readable(path)
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        layout, tensor = _read_safetensors(path)
    elif suffix in PICKLED:
        layout, tensor = _find(read_pickled(path), path)
    else:
        raise InputError(f"{path} is no textual inversion; expected a .safetensors, .pt or .bin file")
    vectors = _checked(tensor, path)
    digest = hashlib.sha256(path.read_bytes())
    name = path.name.encode("utf-8", "replace").decode("utf-8")
    return Foreign(vectors, {"file": name, "format": layout, "sha256": digest.hexdigest()})


def behind_text_encoder(foreign: Foreign, path: str, base: Backbone) -> Foreign:
    """Return a foreign embedding as a library holds them: the context (77, D) of a prompt of it alone.

    path: of the base model, whose text encoder it is taken through. A library's own stays as it is, and so does each
    where the base has no text encoder. Raises InputError if its width is not the base's, or it is longer than a prompt.
    """
    _check_width(foreign, base)
    context = None if foreign.source["format"] == OWN else prompt_context(path, foreign.vectors)
    if context is None:
        return foreign
    return replace(foreign, vectors=context, source={**foreign.source, "words": len(foreign.vectors)})


def add_foreign(library: Library, key: Key, what: str, foreign: Foreign, base: Base) -> Library:
    """Return the library with a foreign embedding as `what` (`anomaly`, `mask`) of the defect `key`, its source noted.

    Raises InputError if its width is not the base model's, or the defect has such an embedding already.
    """
    if what not in KINDS:
        raise InputError(f"{what!r} is no embedding; choose one of {', '.join(KINDS)}")
    _check_width(foreign, base)
    entry = library.defects.get(key) or Defect(*key, info={"versions": versions()})
    if getattr(entry, what) is not None:
        raise InputError(f"the library's {entry.name} has {_article(what)} already; choose another name or remove it")
    record = record_of(entry)
    earlier = record.get("imported")
    sources = {**(earlier if isinstance(earlier, dict) else {}), what: foreign.source}
    entry = replace(entry, **{what: foreign.vectors}, info={**record, "imported": sources})
    return replace(library, defects={**library.defects, key: entry})


def write_embedding(path: str | Path, library: Library, name: str, what: str) -> Tensor:
    """Write an embedding (k, D) as a textual inversion that A1111 and diffusers read; returns it.

    Raises InputError if the defect, or its embedding `what`, is not there.
    """
    entry = library.get(name)
    vectors = getattr(entry, what) if what in KINDS else None
    if vectors is None:
        raise InputError(f"{entry.name} has no {what} embedding to export")
    record = record_of(entry)
    about = {"defect": entry.name, "what": what, "base": library.base_name, "fingerprint": library.base_fingerprint}
    about |= {field: entry.info[field] for field in ("author", "licence") if field in record}
    tensors = {"emb_params": vectors.detach().to("cpu", torch.float32).contiguous()}
    content = save(tensors, {EXPORT: json.dumps(about)})
    write_whole(path, lambda temporary: temporary.write_bytes(content))
    return tensors["emb_params"]


def _check_width(foreign: Foreign, base: Base) -> None:
    width = foreign.vectors.shape[1]
    if width != base.context_dim:
        raise InputError(
            f"{foreign.source['file']} is {width} wide, the context of base {base.name!r} {base.context_dim}; "
            "import embeddings of the same family as the base model"
        )


def _article(what: str) -> str:
    return f"{'an' if what == 'anomaly' else 'a'} {what} embedding"


def _read_safetensors(path: Path) -> tuple[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
            name = _chosen(shapes, path, metadata.get("kind"))
            layout = OWN if EXPORT in metadata else "a1111" if name == "emb_params" else "diffusers"
            return layout, file.get_tensor(name)
    except BROKEN as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged or no safetensors file ({reason(error)})") from None


def _find(loaded: Any, path: Path) -> tuple[str, Tensor]:
    """The one embedding of a loaded .pt or .bin file, and its layout."""
    if isinstance(loaded, Tensor):
        return "tensor", loaded
    table = _as_table(loaded)
    if table is None:
        raise InputError(f"{path} holds no table of tensors; expected a textual inversion")
    if "string_to_param" in table:
        params = _as_table(table["string_to_param"]) or {}
        shapes = {str(k): tuple(v.shape) for k, v in params.items() if isinstance(v, Tensor)}
        if any(shape and shape[-1] == BERT_WIDTH for shape in shapes.values()):
            raise InputError(RELEASED_EMBEDDING.format(path=path))
        return "a1111", {str(k): v for k, v in params.items()}[_chosen(shapes, path)]
    tensors = {str(name): value for name, value in table.items() if isinstance(value, Tensor)}
    return "diffusers", tensors[_chosen({name: tuple(tensor.shape) for name, tensor in tensors.items()}, path)]


def _as_table(value: Any) -> Mapping[Any, Any] | None:
    if isinstance(value, torch.nn.ParameterDict):
        value = vars(value).get("_parameters")  # read as data: no method of a loaded object is called
    return value if isinstance(value, Mapping) else None


def _chosen(shapes: Mapping[str, tuple[int, ...]], path: Path, kind: str | None = None) -> str:
    """The name of the one embedding among a file's tensors; raises InputError saying what else the file is."""
    if kind is not None:
        raise InputError(f"{path} is an adiff file of kind {kind!r}, no textual inversion; see `adiff library merge`")
    if any(name.endswith("latlayer1.weight") for name in shapes) and any("styles.0." in name for name in shapes):
        raise InputError(RELEASED_ENCODER.format(path=path))
    if {"clip_l", "clip_g"} & set(shapes):
        raise InputError(f"{path} is an embedding for SDXL (clip_l, clip_g); give one for SD 1.x")
    names = ["emb_params"] if "emb_params" in shapes else list(shapes)
    if len(names) == 1:
        return names[0]
    if not names:
        raise InputError(f"{path} holds no tensor; expected a textual inversion")
    first = ", ".join(map(shown, sorted(names)[:2]))
    raise InputError(f"{path} holds {len(names)} tensors ({first}, ...), not one embedding; give a textual inversion")


def _checked(tensor: Any, path: Path) -> Tensor:
    """An embedding as (k, D) float32; its shape is looked at before anything is copied."""
    if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided or tensor.device.type != "cpu":
        raise InputError(f"{path} holds no plain tensor where its embedding should be")
    shape = tuple(tensor.shape)
    if not tensor.is_floating_point():
        raise InputError(f"{path} holds an embedding of {tensor.dtype}; expected floating-point numbers")
    rows = shape if len(shape) == 2 else (1, *shape)
    if len(rows) != 2 or not 1 <= rows[0] <= MAX_TOKENS or not 1 <= rows[1] <= MAX_WIDTH:
        raise InputError(
            f"{path} holds an embedding of shape {shape}; expected (tokens, width), 1 to {MAX_TOKENS} tokens"
        )
    vectors = tensor.detach().to(torch.float32).reshape(rows).clone()
    if not vectors.isfinite().all():
        raise InputError(f"{path} holds values that are not finite; its training diverged")
    return vectors
