import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from adiff.datasets.images import read_mask, read_photo, write_png
from adiff.errors import InputError
from adiff.generation import FolderMasks, GenerationSettings, LearnedMasks, generate_run, read_records
from adiff.generation.run import _on_photo
from adiff.library import Defect, Library
from adiff.masks import MaskRules

KEY = ("metal", "hole")
FEW = GenerationSettings(steps=1, reweighting="off", guidance=1.0, batch=2)


@pytest.fixture
def normals(tmp_path):
    rng = np.random.default_rng(1)
    paths = [tmp_path / "normals" / f"{i}.png" for i in range(3)]
    for path in paths:
        write_png(path, rng.integers(0, 255, (64, 64, 3), np.uint8))
    return paths


@pytest.fixture
def masks(tmp_path, make_mask):
    paths = [tmp_path / "masks" / f"{i}.png" for i in range(2)]
    for i, path in enumerate(paths):
        write_png(path, make_mask(4 + 20 * i))
    return FolderMasks(paths)


@pytest.fixture
def library(backbone):
    e_a = torch.randn(8, 768, generator=torch.Generator().manual_seed(0))
    defects = {KEY: Defect(*KEY, anomaly=e_a), ("metal", "none"): Defect("metal", "none")}
    return Library(defects, backbone.fingerprint, "tiny", 768)


@pytest.fixture
def start(backbone, library, normals, masks, tmp_path):
    def run(**options):
        given = {"key": KEY, "encoder": None, "normals": normals, "masks": masks, "count": 5, "out": tmp_path / "run",
                 "settings": FEW, "seed": 7, **options}  # fmt: skip
        return generate_run(backbone, library, given.pop("key"), given.pop("encoder"), given.pop("normals"),
                            given.pop("masks"), **given)  # fmt: skip

    return run


def listing(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_runs_files_and_records(start, normals, masks, backbone, stopper):
    told = stopper()
    result = start(progress=told)
    names = [f"{i:06d}" for i in range(5)]
    expected = {"run.json"} | {f for n in names for f in (f"image/{n}.png", f"mask/{n}_mask.png", f"pairs/{n}.json")}
    assert set(listing(result.out)) == expected and not result.cancelled
    assert [done for done, _ in told.told] == [2, 4, 5] and told.ended
    for i, record in enumerate(result.pairs):
        assert (record["id"], record["product"], record["defect"], record["seed"]) == (names[i], *KEY, 7)
        assert record["mask"] == {"kind": "file", "path": f"{i % 2}.png"}
        assert record["leak"] == 0 and {"fill", "area", "components", "box"} <= set(record)
        normal = read_photo(normals[int(record["normal"][0])]).pixels
        image = read_photo(result.out / "image" / f"{names[i]}.png").pixels
        mask = read_mask(result.out / "mask" / f"{names[i]}_mask.png").mask
        assert np.array_equal(mask, read_mask(masks.paths[i % 2]).mask)
        assert np.array_equal(image[~mask], normal[~mask]) and (image[mask] != normal[mask]).any()
    about = json.loads((result.out / "run.json").read_text())
    assert about["settings"]["steps"] == 1 and about["seed"] == 7 and about["count"] == 5
    assert about["base"] == {"name": "tiny", "fingerprint": backbone.fingerprint}
    assert {"adiff", "torch", "python", "device", "dtype", "threads"} <= set(about["environment"])
    assert "pairs" not in about and result.pairs == read_records(result.out)


@pytest.mark.parametrize("lost", [[0], [3], [1, 4], [0, 1, 2, 3, 4]])
def test_a_run_that_lost_pairs_ends_with_the_same_files(start, lost):
    out = start().out
    before = listing(out)
    for number in lost:
        (out / "pairs" / f"{number:06d}.json").unlink()
    (out / "image" / f"{lost[0]:06d}.png").write_bytes(b"half")
    start()
    assert listing(out) == before


def test_what_is_there_is_not_made_again(start, monkeypatch):
    result = start()
    monkeypatch.setattr("adiff.generation.run.make_pairs", None)
    assert start().pairs == result.pairs


def test_a_cancelled_run_keeps_its_pairs_and_goes_on_to_the_same_end(start, stopper, tmp_path):
    whole = start(out=tmp_path / "whole")
    told = stopper(2)
    first = start(progress=told)
    assert first.cancelled and len(first.pairs) == 2 and told.ended
    second = start()
    assert not second.cancelled and listing(second.out) == listing(whole.out)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"seed": 8}, r"\(seed 7, now 8\)"),
        ({"count": 6}, r"\(count 5, now 6\)"),
        (
            {"settings": replace(FEW, steps=2, guidance=3.0)},
            r"\(settings.steps 1, now 2; settings.guidance 1.0, now 3.0\)",
        ),
    ],
)
def test_another_run_is_refused_by_what_differs(start, other, said):
    before = listing(start().out)
    with pytest.raises(InputError, match="holds another run " + said):
        start(**other)
    assert listing(start().out) == before


def test_other_normals_and_masks_and_encoders_make_another_run(start, normals, masks, encoder):
    start()
    for other, said in (
        ({"normals": normals[:2]}, "normals"), ({"masks": FolderMasks(masks.paths[:1])}, "masks.files"),
        ({"encoder": encoder}, "encoder"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=rf"another run \({said}"):
            start(**other)


def test_masks_learned_anew_make_another_run(make_mask):
    rules = MaskRules.from_shots([make_mask()])
    records = [LearnedMasks(torch.full((4, 768), v), rules, [make_mask()]).record() for v in (1.0, 1.0, 2.0)]
    assert records[0] == records[1] != records[2]
    assert json.loads(json.dumps(records[0])) == records[0]


def test_a_folder_that_holds_something_else_is_refused(start, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="not empty and holds no run"):
        start(out=tmp_path / "mine")
    with pytest.raises(InputError, match="is a file"):
        start(out=tmp_path / "mine" / "thesis.txt")
    assert set(listing(tmp_path / "mine")) == {"thesis.txt"}


@pytest.mark.parametrize("content", ["{", "[1]", "\xff"])
def test_a_damaged_record_is_named(start, tmp_path, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match="run.json is"):
        start()


def test_a_run_is_not_begun_twice_without_resume(start):
    start(resume=False)
    with pytest.raises(InputError, match="holds this run already"):
        start(resume=False)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"key": ("metal", "none")}, "no anomaly embedding"),
        ({"key": ("metal", "rust")}, "no 'metal/rust'; it holds metal/hole"),
        ({"normals": []}, "0 normal photos for 5 pairs"),
        ({"count": 0}, "3 normal photos for 0 pairs"),
    ],
)
def test_bad_input_leaves_no_folder(start, tmp_path, given, said):
    with pytest.raises(InputError, match=said):
        start(**given)
    assert not (tmp_path / "run").exists()


def test_no_mask_files_are_refused():
    with pytest.raises(InputError, match="no mask files"):
        FolderMasks([])


def test_a_mask_of_the_photos_shape_is_resized_and_of_another_refused(start, tmp_path, make_mask):
    write_png(tmp_path / "large.png", make_mask(20, 40, 60, 50, size=128))
    result = start(masks=FolderMasks([tmp_path / "large.png"]), count=1)
    mask = read_mask(result.out / "mask" / "000000_mask.png").mask
    assert np.array_equal(mask, make_mask(10, 20, 30, 25))
    write_png(tmp_path / "wide.png", make_mask(size=128)[:64])
    with pytest.raises(InputError, match="mask wide.png is 128 x 64, its photo .* 64 x 64"):
        start(masks=FolderMasks([tmp_path / "wide.png"]), count=1, out=tmp_path / "other")


def test_learned_masks_are_sampled_for_each_batch(start, backbone, make_mask, monkeypatch, tmp_path):
    drawn = []

    def draw(backbone, embedding, count, settings, seed, first):
        drawn.append((seed, first))
        return np.stack([make_mask(width=8 + (seed + first + i) % 20) for i in range(count)])

    monkeypatch.setattr("adiff.generation.mask.draw_candidates", draw)
    source = LearnedMasks(torch.randn(4, 768), MaskRules.from_shots([make_mask()], slack=1.0), [make_mask()])
    result = start(masks=source)
    assert len({seed for seed, _ in drawn}) == 3  # a seed for each batch, of the run's own
    assert all(r["mask"]["kind"] == "learned" and 0 < r["mask"]["iou"] <= 1 for r in result.pairs)
    before = listing(result.out)
    (result.out / "pairs" / "000003.json").unlink()
    start(masks=source)
    assert listing(result.out) == before


@pytest.mark.parametrize("size", [(64, 64), (50, 90), (128, 70)])
def test_a_learned_mask_lies_in_a_square_of_the_photo(make_mask, size):
    photo = type("Sized", (), {"size": size})
    places = {_on_photo(make_mask(), photo, np.random.default_rng(s)).tobytes() for s in range(10)}
    assert (len(places) == 1) == (size[0] == size[1])
    one = _on_photo(make_mask(), photo, np.random.default_rng(0))
    assert one.shape == size and abs(one.sum() / (20 / 64 * 16 / 64 * min(size) ** 2) - 1) < 0.15


def test_a_file_name_that_is_no_text_is_recorded(start, tmp_path):
    name = b"\xe9.png".decode("utf-8", "surrogateescape")
    try:
        write_png(tmp_path / "odd" / name, np.full((64, 64, 3), 9, np.uint8))
    except (OSError, UnicodeError):
        pytest.skip("the file system keeps names as text")
    assert start(normals=[tmp_path / "odd" / name], count=1).pairs[0]["normal"] == name
