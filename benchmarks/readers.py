"""Everything that opens a file of somebody else's, with whole files of its kind to damage.

A reader takes a file's path and may raise InputError or FileNotFoundError, nothing else.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from transformers import Dinov2Config, Dinov2Model

from adiff.annotations import read_annotations, write_dataset
from adiff.backbone.loading import load_single_file
from adiff.backbone.lora import merge_lora
from adiff.cli.runs import plan_of
from adiff.cli.verification import check_run
from adiff.datasets.images import read_mask, read_photo, write_png
from adiff.datasets.readers import read_dataset
from adiff.dual import DualModel, load_dual, save_dual
from adiff.evaluation.localizer import Trained
from adiff.evaluation.localizer_file import load_localizer, save_localizer
from adiff.evaluation.networks import new_network
from adiff.evaluation.splits import read_groups
from adiff.export import read_runs
from adiff.export.runs import pairs_of
from adiff.export.splits import Splits
from adiff.export.voc import write_palette_png
from adiff.features import load_features
from adiff.foreign import read_embedding
from adiff.learning import open_shots
from adiff.library import Defect, Library, check_name, load_library, parse_name, save_library
from adiff.progress import NullProgress
from adiff.report import report_of_run
from adiff.spatial_encoder import SpatialEncoder, load_encoder, save_encoder
from adiff.storage import write_json

from . import workflow

Read = Callable[[Path], object]
WIDTH = 768
DIAGONAL = "01<00000000000000000F"
"""Run lengths of 12 x 10 pixels with the diagonal on."""


@dataclass(frozen=True)
class Reader:
    """name: of what is read; file: its name in a folder that `make` fills; read: opens it there."""

    name: str
    file: str
    make: Callable[[Path], None]
    read: Read


def _library(folder: Path) -> None:
    vectors = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
    mask = np.zeros((1, 16, 16), bool)
    mask[:, 4:9, 3:8] = True
    info = {"shots": ["a.png"], "steps": 3, "anomaly": {"loss": 0.5, "curve": [[0, 1.0, None]]}}
    picture = torch.zeros(3, 8, 8, dtype=torch.uint8)
    entry = Defect("metal", "scratch", vectors, vectors[:2].clone(), picture, info, mask, torch.zeros(1, 4))
    save_library(folder / "lib.safetensors", Library({entry.key: entry}, "0" * 64, "tiny", WIDTH))


def _encoder(folder: Path) -> None:
    save_encoder(folder / "enc.safetensors", SpatialEncoder("small", dim=8), {"shots": {}})


def _embedding(folder: Path) -> None:
    save_file({"emb_params": torch.zeros(2, WIDTH)}, folder / "emb.safetensors")


def _pickled(folder: Path) -> None:
    torch.save({"string_to_param": {"*": torch.zeros(2, WIDTH)}, "name": "x"}, folder / "emb.pt")


def _checkpoint(folder: Path) -> None:
    """A file with the names of SD 1.x and too few weights: it is looked at and refused."""
    names = {"1.1.transformer_blocks.0.attn2.to_k.weight": (2, WIDTH), "0.0.weight": (2, 4, 3, 3)}
    weights = {f"model.diffusion_model.input_blocks.{name}": torch.zeros(shape) for name, shape in names.items()}
    save_file(weights, folder / "base.safetensors", {"adiff_base": '{"heads": 2}'})


def _image(folder: Path) -> None:
    write_png(folder / "a.png", np.random.default_rng(0).integers(0, 255, (12, 10, 3), np.uint8))


def _palette(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (12, 10, 3), np.uint8)
    Image.fromarray(pixels).quantize(16).save(folder / "a.png")


def _stored(suffix: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 255, (12, 10, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"a.{suffix}")

    return make


def _mask(folder: Path) -> None:
    mask = np.zeros((12, 10), bool)
    mask[3:6, 2:8] = True
    write_png(folder / "m.png", mask)


def _run(folder: Path) -> None:
    """A run of two pairs."""
    settings = {"batch": 2, "steps": 3, "guidance": 1.0}
    write_json(folder / "run.json", {
        "format": 1, "product": "metal", "defect": "scratch", "count": 2, "seed": 0, "settings": settings,
        "base": {"name": "tiny", "fingerprint": "0" * 64}, "masks": {"kind": "folder"}, "normals": ["n.png"],
        "environment": {"adiff": "1"}, "command": "adiff generate", "seconds": {"pairs": 1.0},
    })  # fmt: skip
    mask = np.zeros((12, 10), bool)
    mask[3:6, 2:8] = True
    for name in ("000000", "000001"):
        write_png(folder / "image" / f"{name}.png", np.full((12, 10, 3), 90, np.uint8))
        write_png(folder / "mask" / f"{name}_mask.png", mask)
        write_json(folder / "pairs" / f"{name}.json", {
            "id": name, "product": "metal", "defect": "scratch", "normal": "n.png", "mask": {"kind": "folder"},
            "seed": 3, "box": [0, 0, 10, 12], "fill": 0.5, "leak": 0.0, "seam": 1.0, "area": 0.1,
        })  # fmt: skip


def _features(folder: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.save(torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict(), folder / "shufflenet_v2_x0_5.pth")


def _vision(folder: Path) -> None:
    settings = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 14}
    Dinov2Model(Dinov2Config(**settings, image_size=28)).save_pretrained(folder)


def _annotated(folder: Path) -> None:
    """Two photos of each format, one with a mark of each kind."""
    flat = [2, 3, 5, 3, 5, 6, 2, 6]
    _data(folder / "coco")
    write_json(folder / "coco" / "coco.json", {
        "images": [{"id": n, "file_name": f"{name}.png", "height": 12, "width": 10} for n, name in enumerate("ab")],
        "categories": [{"id": 1, "name": "dent"}, {"id": 2, "name": "scratch"}],
        "annotations": [
            {"id": 0, "image_id": 0, "category_id": 1, "segmentation": [flat], "bbox": [2, 3, 4, 4]},
            {"id": 1, "image_id": 0, "category_id": 2, "segmentation": {"size": [12, 10], "counts": DIAGONAL}},
            {"id": 2, "image_id": 1, "category_id": 2, "segmentation": {"size": [12, 10], "counts": [60, 20, 40]}},
        ],
    })  # fmt: skip
    points = [[2, 3], [5, 3], [5, 6], [2, 6]]
    picture = io.BytesIO()
    Image.fromarray(np.full((3, 3), 255, np.uint8)).save(picture, "PNG")
    mask = base64.b64encode(picture.getvalue()).decode()
    write_json(folder / "a.json", {
        "imagePath": "a.png", "imageHeight": 12, "imageWidth": 10, "shapes": [
            {"label": "dent", "shape_type": "polygon", "points": points},
            {"label": "dent", "shape_type": "circle", "points": points[:2]},
            {"label": "scratch", "shape_type": "mask", "points": points[::2], "mask": mask},
        ],
    })  # fmt: skip
    write_png(folder / "a.png", np.full((12, 10, 3), 90, np.uint8))
    write_png(folder / "sly" / "img" / "a.png", np.full((12, 10, 3), 90, np.uint8))
    bitmap = base64.b64encode(zlib.compress(picture.getvalue())).decode()
    hole = [[3, 4], [4, 4], [4, 5]]
    write_json(folder / "sly" / "ann" / "a.png.json", {
        "size": {"height": 12, "width": 10}, "objects": [
            {"classTitle": "dent", "geometryType": "polygon", "points": {"exterior": points, "interior": [hole]}},
            {"classTitle": "dent", "geometryType": "rectangle", "points": {"exterior": points[::2], "interior": []}},
            {"classTitle": "scratch", "geometryType": "bitmap", "bitmap": {"data": bitmap, "origin": [2, 3]}},
        ],
    })  # fmt: skip
    (folder / "yolo" / "labels").mkdir(parents=True)
    write_png(folder / "yolo" / "images" / "a.png", np.full((12, 10, 3), 90, np.uint8))
    (folder / "yolo" / "labels" / "a.txt").write_text("0 0.2 0.2 0.5 0.2 0.5 0.6\n1 0.5 0.5 0.2 0.2\n")
    (folder / "yolo" / "data.yaml").write_text("train: images\nnames:\n  0: dent\n  1: scratch\n")
    write_png(folder / "voc" / "JPEGImages" / "a.png", np.full((12, 10, 3), 90, np.uint8))
    write_palette_png(folder / "voc" / "SegmentationClass" / "a.png", np.eye(12, 10, dtype=np.uint8))
    (folder / "voc" / "labelmap.txt").write_text("background:0,0,0::\ndent:128,0,0::\n")


def _in_xml(folder: Path) -> None:
    """CVAT's file, with a mark of each kind, and VOC's of a photo."""
    _data(folder)
    shapes = (
        '<polygon label="dent" points="2,3;5,3;5,6;2,6"/><box label="dent" xtl="1" ytl="1" xbr="4" ybr="3"/>'
        '<ellipse label="scratch" cx="5" cy="5" rx="3" ry="2" rotation="9"/><polyline label="line" points="1,2;3,4"/>'
        '<mask label="scratch" rle="1,2,1" left="1" top="2" width="2" height="2"/>'
    )
    image = f'<image id="0" name="a.png" width="10" height="12">{shapes}</image>'
    (folder / "data" / "cvat.xml").write_text(
        f'<annotations>{image}<image name="b.png" width="10" height="12"/></annotations>'
    )
    box = "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>6</xmax><ymax>7</ymax></bndbox>"
    size = "<size><width>10</width><height>12</height></size>"
    (folder / "data" / "images" / "a.xml").write_text(
        f"<annotation>{size}<object><name>dent</name>{box}</object></annotation>"
    )


def _masked(folder: Path) -> None:
    """Photos with masks under other names than a data set's."""
    _mask(folder / "label")
    (folder / "label" / "m.png").rename(folder / "label" / "a.png")
    write_png(folder / "photos" / "a.png", np.full((12, 10, 3), 90, np.uint8))


def _imported(given: Callable[[Path], Path] = lambda path: path, photos: str = "") -> Read:
    """Import what annotations tell; nothing but the data set may be written."""

    def read(path: Path) -> None:
        out = path.parent / "imported"
        try:
            images = path.parent / photos if photos else None
            write_dataset(read_annotations([given(path)], images), out)
        finally:
            shutil.rmtree(out, ignore_errors=True)

    return read


def _groups(folder: Path) -> None:
    write_json(folder / "groups.json", {"test/scratch/0.png": "one", "test/scratch/1.png": "two"})


def _localizer(folder: Path) -> None:
    save_localizer(folder / "loc.safetensors", Trained(new_network("small", 8), 32, 5, (), "small", 8))


def _dual(folder: Path) -> None:
    mask = np.zeros((1, 16, 16), bool)
    mask[:, 4:9, 3:8] = True
    tokens, weights = [torch.zeros(2, WIDTH) for _ in range(2)], {"down.0.attn1.lora": torch.zeros(2, 4)}
    save_dual(folder / "dual.safetensors", DualModel(
        "metal", "scratch", weights, *tokens, mask, torch.zeros(1, 4), "0" * 64, "tiny", {"shots": ["a.png"]}
    ))  # fmt: skip


def _lora(folder: Path) -> None:
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    save_file({f"{name}.lora_down.weight": torch.zeros(2, WIDTH), f"{name}.lora_up.weight": torch.zeros(8, 2),
               f"{name}.alpha": torch.tensor(2.0)}, folder / "lora.safetensors")  # fmt: skip


def _merged() -> Read:
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8,), layers_per_block=1, down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",), attention_head_dim=2, cross_attention_dim=WIDTH, norm_num_groups=4,
    )  # fmt: skip
    return lambda path: merge_lora(unet, path)


def _data(folder: Path) -> None:
    """A plain data set of two shots."""
    for name in ("a", "b"):
        _mask(folder / "data" / "masks")
        (folder / "data" / "masks" / "m.png").rename(folder / "data" / "masks" / f"{name}.png")
        write_png(folder / "data" / "images" / f"{name}.png", np.full((12, 10, 3), 90, np.uint8))


def _shots(path: Path) -> None:
    dataset = read_dataset(path.parents[1])
    open_shots(dataset, min(map(len, dataset.shots.values())))


def _tree(folder: Path) -> None:
    names = "\n".join(("images/a1.png", "images/a10.PNG", "masks/a1_mask.png", "masks/a10.png", "normal/n.jpg"))
    (folder / "tree.txt").write_text(f"{names}\ntest/hole/0.png\nground_truth/hole/0_mask.png", encoding="utf-8")


def _read_tree(path: Path) -> None:
    """A data set whose files have the names in a text; none of them is opened."""
    root = path.parent / "tree"
    try:
        root.mkdir()
        for name in path.read_bytes().split(b"\n")[:40]:
            with contextlib.suppress(OSError, ValueError, RecursionError):  # what nobody takes for a name
                file = Path(os.path.normpath(root / os.fsdecode(name)))
                if file.is_relative_to(root):
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.touch()
        read_dataset(root)
    finally:
        shutil.rmtree(root)


def _names(folder: Path) -> None:
    (folder / "name.txt").write_text("metal/scratch", encoding="utf-8")


def _read_name(path: Path) -> None:
    """A name that passes is a file's name right in its folder."""
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    for part in parse_name(text):
        inside = (path.parent / check_name(part)).resolve()
        if inside.parent != path.parent.resolve() or not part.isprintable():
            raise AssertionError(f"{part!r} leads to {inside}")


def _checked_run(path: Path) -> None:
    folder = path.parent if path.name == "run.json" else path.parent.parent
    check_run(folder, plan_of(folder), None, NullProgress())
    for _ in pairs_of(read_runs([folder]), Splits((), 0.0, 0)):
        pass


def _reported(path: Path) -> None:
    folder = path.parent if path.name == "run.json" else path.parent.parent
    report_of_run(folder, out=folder / "report.html")


def all_readers() -> list[Reader]:
    """Every reader."""
    images = [Reader(f"photo .{suffix}", f"a.{suffix}", _stored(suffix), read_photo)
              for suffix in ("jpg", "bmp", "tiff", "webp")]  # fmt: skip
    return [
        Reader("library", "lib.safetensors", _library, load_library),
        Reader("spatial encoder", "enc.safetensors", _encoder, load_encoder),
        Reader("textual inversion", "emb.safetensors", _embedding, read_embedding),
        Reader("pickled textual inversion", "emb.pt", _pickled, read_embedding),
        Reader("base model", "base.safetensors", _checkpoint, load_single_file),
        Reader("LoRA", "lora.safetensors", _lora, _merged()),
        Reader("dual model", "dual.safetensors", _dual, load_dual),
        Reader("localizer", "loc.safetensors", _localizer, load_localizer),
        Reader("network's weights", "shufflenet_v2_x0_5.pth", _features, load_features),
        Reader("network's config.json", "config.json", _vision, lambda path: load_features(path.parent)),
        Reader("network in a folder", "model.safetensors", _vision, lambda path: load_features(path.parent)),
        Reader("photo", "a.png", _image, read_photo),
        Reader("photo with a palette", "a.png", _palette, read_photo),
        *images,
        Reader("mask", "m.png", _mask, read_mask),
        Reader("run.json", "run.json", _run, _checked_run),
        Reader("a pair's record", "pairs/000001.json", _run, _checked_run),
        Reader("a pair's mask", "mask/000001_mask.png", _run, _checked_run),
        Reader("run.json, reported", "run.json", _run, _reported),
        Reader("a pair's record, reported", "pairs/000001.json", _run, _reported),
        Reader("groups.json", "groups.json", _groups, lambda path: read_groups(path.parent, "metal")),
        Reader("a shot", "data/images/a.png", _data, _shots),
        Reader("a shot's mask", "data/masks/a.png", _data, _shots),
        Reader("names of a data set's files", "tree.txt", _tree, _read_tree),
        Reader("name", "name.txt", _names, _read_name),
        Reader("annotations: COCO", "coco/coco.json", _annotated, _imported(photos="data/images")),
        Reader("annotations: labelme", "a.json", _annotated, _imported()),
        Reader("annotations: Supervisely", "sly/ann/a.png.json", _annotated, _imported(photos="../img")),
        Reader("annotations: YOLO", "yolo/labels/a.txt", _annotated, _imported(lambda path: path.parents[1])),
        Reader("annotations: YOLO's classes", "yolo/data.yaml", _annotated, _imported()),
        Reader("annotations: VOC", "voc/SegmentationClass/a.png", _annotated, _imported(lambda path: path.parents[1])),
        Reader("annotations: VOC's classes", "voc/labelmap.txt", _annotated, _imported(lambda path: path.parent)),
        Reader("annotations: CVAT", "data/cvat.xml", _in_xml, _imported()),
        Reader("annotations: VOC's boxes", "data/images/a.xml", _in_xml, _imported()),
        Reader("annotations: a mask", "label/a.png", _masked, _imported(lambda path: path.parents[1])),
        *_workflow(),
    ]


def _workflow() -> list[Reader]:
    """What a workflow and the library panel send."""
    return [
        Reader(name, "value.json", workflow.make(text, _library), workflow.documented(read))
        for name, text, read in (
            ("workflow: measures", workflow.MEASURES, workflow.read_measures),
            ("workflow: folders and files", workflow.FOLDERS, workflow.read_folders),
            ("workflow: a defect", workflow.LABEL, workflow.read_label),
            ("workflow: Edit Library", workflow.EDIT, workflow.read_edit),
            ("panel: an edit", workflow.request(_library), workflow.read_request),
        )
    ]
