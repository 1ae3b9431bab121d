"""Runs of pasted pairs: whole, resumable, and read by all that reads runs."""

import json
from functools import partial

import numpy as np
import pytest

from adiff.baselines import METHODS
from adiff.baselines.run import paste_run
from adiff.datasets.images import read_mask, read_photo, write_png
from adiff.errors import InputError
from adiff.evaluation.material import read_run
from adiff.export import export_runs, read_runs
from adiff.learning import Shots
from adiff.rejection import reject_pairs
from adiff.report import report_of_run
from adiff.report.run import rebuilt_command

KEY = ("metal", "scratch")


@pytest.fixture
def shots(make_mask):
    mask = make_mask(20, 24, 10, 12)
    return Shots([(np.where(mask[..., None], 200, 90).astype(np.uint8).repeat(3, 2), mask)], ("a.png",), (), ())


@pytest.fixture
def start(normals, shots, tmp_path):
    return partial(paste_run, "crop-paste", KEY, shots, normals, count=6, out=tmp_path / "run", seed=3)


def listing(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("method", METHODS)
def test_pairs_are_the_normal_image_outside_their_masks(normals, shots, tmp_path, method):
    result = paste_run(method, KEY, shots, normals, count=4, out=tmp_path / "run")
    assert len(result.pairs) == 4 and not result.cancelled
    for record in result.pairs:
        image = read_photo(result.out / "image" / f"{record['id']}.png").rgb
        mask = read_mask(result.out / "mask" / f"{record['id']}_mask.png").mask
        normal = read_photo(normals[0].with_name(record["normal"])).rgb
        assert np.array_equal(image[~mask], normal[~mask]) and (image[mask] != normal[mask]).any()
        assert record["leak"] == 0 and record["area"] == mask.mean() and record["mask"] == {"kind": method}


@pytest.mark.parametrize("kind", [(np.uint8, ()), (np.uint16, ()), (np.uint8, (4,))], ids=["grey", "16 bits", "alpha"])
def test_pairs_are_of_their_normal_images_kind(shots, tmp_path, kind):
    dtype, channels = kind
    levels = np.iinfo(dtype).max
    pixels = np.random.default_rng(5).integers(levels // 4, levels // 2, (64, 64, *channels)).astype(dtype)
    path = tmp_path / "good" / "0.png"
    write_png(path, pixels)
    (record,) = paste_run("crop-paste", KEY, shots, [path], count=1, out=tmp_path / "run").pairs
    image = read_photo(tmp_path / "run" / "image" / "000000.png").pixels
    mask = read_mask(tmp_path / "run" / "mask" / "000000_mask.png").mask
    assert image.dtype == dtype and np.array_equal(image[~mask], pixels[~mask]) and record["leak"] == 0
    assert image[mask].reshape(mask.sum(), -1)[:, :3].max() == 200 * (levels // 255)  # the level of the shot
    assert not channels or np.array_equal(image[..., 3], pixels[..., 3])


def test_a_run_that_lost_pairs_ends_with_the_same_files(start):
    out = start().out
    before = listing(out)
    for name in ("pairs/000001.json", "image/000004.png", "pairs/000004.json"):
        (out / name).unlink()
    start()
    assert listing(out) == before
    reject_pairs(out, [2])
    start()
    assert not (out / "pairs" / "000002.json").exists()


def test_a_cancelled_run_keeps_its_pairs_and_goes_on(start, stopper, tmp_path):
    assert start(out=tmp_path / "whole") and start(progress=stopper(3)).cancelled
    there = len(list((tmp_path / "run" / "pairs").iterdir()))
    assert 0 < there < 6
    assert len(start().pairs) == 6
    assert listing(tmp_path / "run") == listing(tmp_path / "whole")


def test_another_run_is_refused_by_what_differs(start, shots, normals, tmp_path):
    start()
    with pytest.raises(InputError, match=r"another run \(seed 3, now 4\)"):
        start(seed=4)
    ((image, mask),) = shots.pairs
    with pytest.raises(InputError, match=r"another run \(digests"):
        paste_run("crop-paste", KEY, Shots([(image + 1, mask)], ("a.png",), (), ()), normals, count=6,
                  out=tmp_path / "run", seed=3)  # fmt: skip


class Drawn:
    """Objects told by files; they fill their photos."""

    def __init__(self, folder):
        self.folder = folder

    def find(self, photo):
        return np.ones(photo.size, bool)

    def files(self, normal):
        return [self.folder / normal.name]

    def record(self):
        return {"kind": "files"}


def test_files_that_changed_under_their_names_are_another_run(start, normals, tmp_path):
    drawn = Drawn(tmp_path / "objects")
    for place, options in ((tmp_path / "plain", {}), (tmp_path / "placed", {"objects": drawn})):
        for normal in normals:
            write_png(drawn.folder / normal.name, np.ones((4, 4), bool))
        whole = start(out=place, **options).out
        before = listing(whole)
        start(out=place, **options)
        changed = drawn.folder / normals[1].name if options else normals[1]
        then = changed.read_bytes()
        write_png(changed, np.zeros((64, 64, 3), np.uint8))
        (whole / "pairs" / "000005.json").unlink()
        with pytest.raises(InputError, match=rf"another run \(.*{changed.name} has changed since pair 00000\d"):
            start(out=place, **options)
        changed.write_bytes(then)
        start(out=place, **options)
        assert listing(whole) == before


def test_a_texture_that_changed_under_its_name_is_another_run(normals, shots, tmp_path):
    texture = tmp_path / "textures" / "t.png"
    write_png(texture, np.full((8, 8, 3), 9, np.uint8))
    start = partial(paste_run, "draem", KEY, shots, normals, out=tmp_path / "run", count=2, textures=[texture])
    start()
    then = texture.read_bytes()
    write_png(texture, np.full((8, 8, 3), 99, np.uint8))
    with pytest.raises(InputError, match=r"another run \(texture_digests.t.png [0-9a-f]{16}, now "):
        start()
    texture.write_bytes(then)
    assert len(start().pairs) == 2


def test_readers_of_runs_take_it(start, normals, tmp_path):
    out = start(command="adiff paste DATA").out
    run = read_run(out)
    assert run.key == KEY and not run.is_dual and run.taught == ["a.png"]
    page = report_of_run(out, normals=normals[0].parent).read_text("utf-8")
    assert "adiff paste DATA" in page and "Pasted into 3 normal images by crop-paste, from seed 3." in page
    export_runs(read_runs([out]), tmp_path / "coco", "coco")
    assert len(json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())["images"]) == 6
    words = rebuilt_command(json.loads((out / "run.json").read_text())).split()
    assert words[:3] == ["adiff", "paste", "DATA"] and "crop-paste" in words
