"""Pairs that a graph saved as data sets: whole, beside them, never over another one."""

import json
import shutil
from itertools import count

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from tests.e2e.comfyui import Graph, GraphError

folders = (f"export-{number}" for number in count())
BOX = [8, 10, 24, 20]
"""Left, top, right, bottom of every mask, pixels."""


def export_graph(folder, format="coco", *, save=2, seed=1, defect="scratch", export=None, normals=0, **options):
    """Draw, save and export pairs; save: how many, 0 only exports. export: another folder than the one saved to."""
    graph = Graph()
    saved = folder
    if save:
        images = graph("ADiffDrawSurface", product="metal", count=save, size=64, seed=seed)
        mask = graph("ProbeMasks", width=64, height=64, boxes=json.dumps([BOX]))
        target = {"folder": folder, "product": "metal", "defect": defect}
        saved = graph("ADiffSavePairs", images=images, masks=mask, **target)
    good = graph("ADiffDrawSurface", product="metal", count=normals, size=64, seed=99) if normals else None
    given = {"product": "", "validation": 0.0, "polygons": False, "normals": good, **options}
    exported = graph("ADiffExportPairs", folder=export or saved, format=format, **given)
    return graph, graph("PreviewAny", source=exported[1])


def test_saved_pairs_become_coco_and_later_ones_join_them(server):
    folder = next(folders)
    out = server.base / "output" / f"{folder}-coco"
    for saved in (2, 4):
        graph, report = export_graph(folder, seed=saved)
        told = server.run(graph).text(report)
        assert told == f"{saved} pairs of metal/scratch in output/{folder}-coco, as coco"
        coco = COCO(out / "annotations" / "instances_train.json")
        assert len(coco.imgs) == len(coco.anns) == saved
    wanted = np.zeros((64, 64), bool)
    wanted[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True
    pairs = server.base / "output" / folder / "metal" / "test" / "scratch"
    for one in coco.anns.values():
        name = coco.imgs[one["image_id"]]["file_name"]
        assert np.array_equal(coco.annToMask(one).astype(bool), wanted)
        assert (out / "images" / "train" / name).read_bytes() == (pairs / name).read_bytes()  # the graph inside as well


def test_what_another_export_holds_stays(server):
    folder = next(folders)
    first = server.base / "output" / f"{folder}-yolo"
    server.run(export_graph(folder, "yolo")[0])
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    graph, report = export_graph(folder, "yolo", defect="dent")
    told = server.run(graph).text(report)
    assert told.startswith(f"4 pairs of metal/dent, metal/scratch in output/{folder}-yolo-2, as yolo; in data.yaml")
    assert before == {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}


def test_pairs_that_came_or_went_are_seen_without_a_change_in_the_graph(server):
    folder = next(folders)
    server.run(export_graph(folder, "folder")[0])
    graph, report = export_graph(folder, "folder", save=0)
    assert "2 pairs" in server.run(graph).text(report)
    (server.base / "output" / folder / "metal" / "test" / "scratch" / "000000.png").unlink()
    assert f"1 pair of metal/scratch in output/{folder}-folder-2" in server.run(graph).text(report)


def test_what_was_deleted_is_written_again_though_nothing_else_has_changed(server):
    folder = next(folders)
    pairs, made = (server.base / "output" / name for name in (folder, f"{folder}-folder"))
    for graph, place in ((export_graph(folder, "folder")[0], pairs), (export_graph(folder, "folder", save=0)[0], made)):
        server.run(graph)
        files = sorted(path.relative_to(place) for path in place.rglob("*.png"))
        server.run(graph)
        assert sorted(path.relative_to(place) for path in place.rglob("*.png")) == files
        shutil.rmtree(place)
        server.run(graph)
        assert sorted(path.relative_to(place) for path in place.rglob("*.png")) == files


def test_normal_images_join_the_pairs(server):
    folder = next(folders)
    graph, report = export_graph(folder, "mvtec", normals=3)
    assert "2 pairs of metal/scratch and 3 normal images" in server.run(graph).text(report)
    good = server.base / "output" / f"{folder}-mvtec" / "metal" / "train" / "good"
    assert [Image.open(path).size for path in sorted(good.iterdir())] == 3 * [(64, 64)]
    assert not list((server.base / "temp").glob("tmp*"))


@pytest.mark.parametrize(
    ("export", "options", "message"),
    [
        ("../outside", {}, "leads out of ComfyUI's output folder"),
        ("/tmp", {}, "leads out of ComfyUI's output folder"),
        ("a/../../outside", {}, "leads out of ComfyUI's output folder"),
        ("linked", {}, "leads out of ComfyUI's output folder"),
        ("nothing", {}, "output/nothing holds no pairs that Save Pairs wrote"),
        (None, {"product": "wood"}, "holds no pairs of wood that Save Pairs wrote"),
        (None, {"validation": 0.1}, "leaves none for val"),
        (None, {"format": "mvtec", "validation": 0.5}, "MVTec's layout has all defects in test/"),
    ],
)
def test_what_cannot_be_exported_writes_nothing(server, tmp_path, export, options, message):
    output, folder = server.base / "output", next(folders)
    output.mkdir(exist_ok=True)
    if export == "linked":
        (output / "linked").symlink_to(tmp_path)
    graph, _ = export_graph(folder, export=export, **options)
    with pytest.raises(GraphError, match=message):
        server.run(graph)
    assert not [path for path in output.iterdir() if path.name.startswith((f"{folder}-", "nothing", "linked-"))]
    assert not list(tmp_path.iterdir()) and not (server.base / "outside-coco").exists()
