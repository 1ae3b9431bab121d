import errno
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from adiff.datasets.images import opens, read_mask, read_photo, write_png
from adiff.errors import InputError
from adiff.foreground import WHOLE
from adiff.generation import FolderMasks, GenerationSettings, LearnedMasks, MaskSampling, files, generate_run, pairs
from adiff.generation.batch import Task
from adiff.generation.placing import LEARNED, MOVE, GivenObjects, PlacedMasks, find_objects
from adiff.library import Defect, Library
from adiff.masks import MaskRules
from adiff.pair_filter import PairFilter
from adiff.rejection import reject_pairs
from adiff.run_record import read_records, read_rejects

KEY, DENT = ("metal", "hole"), ("metal", "dent")
FEW = GenerationSettings(steps=1, reweighting="off", guidance=1.0, batch=2)
SEVERAL = {"kind": "several"}


@pytest.fixture
def masks(tmp_path, make_mask):
    paths = [tmp_path / "masks" / f"{i}.png" for i in range(2)]
    for i, path in enumerate(paths):
        write_png(path, make_mask(4 + 20 * i))
    return FolderMasks(paths)


@pytest.fixture
def library(backbone):
    e_a = torch.randn(8, 768, generator=torch.Generator().manual_seed(0))
    learned = {key: Defect(*key, anomaly=e_a + i) for i, key in enumerate((KEY, DENT, ("wood", "knot")))}
    return Library(learned | {("metal", "none"): Defect("metal", "none")}, backbone.fingerprint, "tiny", 768)


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
    assert [done for done, _ in told.told] == [0, 2, 4, 5] and told.ended
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


def test_a_pair_that_was_rejected_by_hand_stays_out_while_others_of_its_batch_are_made_again(start):
    out = start().out
    reject_pairs(out, [2])
    before = listing(out)
    assert [pair["id"] for pair in start().pairs] == ["000000", "000001", "000003", "000004"]
    (out / "pairs" / "000003.json").unlink()
    assert start().rejected == [2] and listing(out) == before


def test_a_run_with_placed_masks_goes_on(start, normals, masks, make_mask):
    placed = PlacedMasks.of(masks, find_objects(normals, WHOLE), LEARNED, [make_mask(4), make_mask(24)])
    result = start(masks=placed)
    (result.out / "pairs" / "000000.json").unlink()
    assert start(masks=placed).pairs == result.pairs  # pairs of numbers in the record are lists when it is read


def test_what_is_there_is_not_made_again(start, monkeypatch):
    result = start()
    monkeypatch.setattr("adiff.generation.layers.make_pairs", None)
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
        ({"count": 6}, r"\(count 5, now 6\); choose another folder, and another seed for other pairs, or"),
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


def test_a_run_goes_on_whatever_was_said_of_what_does_nothing_in_it(start):
    """Older versions took --strength and --distance without re-weighting, which this one refuses."""
    off = replace(FEW, reweighting="off")
    out = start(settings=replace(off, strength=0.5, distance="rgb")).out
    (out / "pairs" / "000003.json").unlink()
    assert len(start(settings=off).pairs) == 5
    with pytest.raises(InputError, match=r"\(settings.reweighting off, now uniform; settings.strength 0.5, now 1.0\)"):
        start(settings=replace(off, reweighting="uniform"))


def test_other_normals_and_masks_and_encoders_make_another_run(start, normals, masks, encoder):
    start()
    for other, said in (
        ({"normals": normals[:2]}, "normals"), ({"masks": FolderMasks(masks.paths[:1])}, "masks.files"),
        ({"encoder": encoder}, "encoder"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=rf"another run \({said}"):
            start(**other)


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


def test_learned_masks_are_sampled_for_each_batch(start, backbone, make_mask, monkeypatch, tmp_path):
    drawn = []

    def draw(backbone, embedding, count, settings, seed, first, shots):
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


class Sampler:
    """Stand-in for the mask sampler: of the seeds of batches and tries, in order of their appearance, some find none.

    passing: how many masks pass for the i-th seed; every other candidate is empty.
    """

    def __init__(self, monkeypatch, mask, passing):
        self.seeds = []

        def draw(backbone, embedding, count, settings, seed, first, shots):
            if seed not in self.seeds:
                self.seeds.append(seed)
            good = passing.get(self.seeds.index(seed), 99)
            return np.stack([mask if i < good else np.zeros_like(mask) for i in range(first, first + count)])

        monkeypatch.setattr("adiff.generation.mask.draw_candidates", draw)
        self.source = LearnedMasks(torch.zeros(4, 768), MaskRules(), [mask], MaskSampling(tries=3, steps=1))


def test_pairs_for_which_no_mask_passes_are_listed_and_the_rest_is_made(start, make_mask, monkeypatch):
    sampler = Sampler(monkeypatch, make_mask(), {0: 0, 1: 1})  # none of the first batch of 2, one of the second
    result = start(masks=sampler.source)
    assert [r["id"] for r in result.pairs] == ["000002", "000004"] and len(sampler.seeds) == 3
    assert [(one["id"], one["no_mask"]) for one in result.broken] == [(f"{i:06d}", True) for i in (0, 1, 3)]
    assert all("masks passed in 6 tries; broken: empty" in one["reason"] for one in result.broken)
    before = listing(result.out)
    assert start(masks=sampler.source).broken == result.broken and len(sampler.seeds) == 3  # they are settled
    assert listing(result.out) == before


def test_a_pair_without_a_mask_gets_another_one_in_its_next_try(start, make_mask, monkeypatch):
    sampler = Sampler(monkeypatch, make_mask(), {0: 1})
    given = {"limits": PairFilter(min_fill=0.0), "tries": 2, "count": 2, "masks": sampler.source}
    result = start(**given)
    assert [(r["id"], r["try"]) for r in result.pairs] == [("000000", 0), ("000001", 1)] and result.broken == []
    never = Sampler(monkeypatch, make_mask(), {0: 1, 1: 0})
    result = start(**given | {"masks": never.source, "out": result.out.with_name("never")})
    assert [r["id"] for r in result.pairs] == ["000000"] and [one["id"] for one in result.broken] == ["000001"]
    assert read_rejects(result.out) == [] and result.rejected == []


def test_a_run_in_which_no_mask_passes_ends_early_and_says_why(start, make_mask, monkeypatch, tmp_path):
    sampler = Sampler(monkeypatch, make_mask(), dict.fromkeys(range(999), 0))
    said = "none of the first 16 pairs has a mask: only 0 of 2 masks passed in 6 tries; broken: empty"
    for _ in range(2):
        with pytest.raises(InputError, match=said):
            start(masks=sampler.source, count=1000)
    assert 8 <= len(sampler.seeds) <= 10  # batches of 2; the next one may be begun before the last is written
    with pytest.raises(InputError, match="none of the first 3 pairs has a mask"):
        start(masks=sampler.source, count=3, out=tmp_path / "few")


def test_other_masks_under_the_same_names_are_another_run(start, masks, make_mask):
    start(masks=masks)
    write_png(masks.paths[0], make_mask(4, 4, 12, 12))
    with pytest.raises(InputError, match=r"holds another run \(.*masks.0.png has changed since pair 000000 was made"):
        start(masks=FolderMasks(masks.paths))


def change(path):
    write_png(path, 255 - read_photo(path).pixels)


def test_other_normals_under_the_same_names_are_another_run(start, normals, stopper):
    begun = start(progress=stopper(2))
    painted = {record["normal"] for record in begun.pairs}
    free = next(path for path in normals if path.name not in painted)
    change(free)  # nothing is painted on it yet
    before, kept = listing(start().out), free.read_bytes()
    change(free)
    said = rf"normals.{free.name} has changed since pair 00000\d was made from it\); put it back, or .*--restart"
    with pytest.raises(InputError, match=said):
        start()
    free.write_bytes(kept[:50])  # it does not open: its pairs are made already
    assert len(start().pairs) == 5 and listing(begun.out) == before
    free.write_bytes(kept)
    (begun.out / "pairs" / "000000.json").unlink()
    start()
    assert listing(begun.out) == before


def test_pairs_that_were_given_up_hold_their_normal_too(start, normals):
    given = {"limits": PairFilter(max_seam=0.0), "tries": 1, "count": 1, "normals": normals[:1]}
    assert start(**given).rejected == [0]
    change(normals[0])
    with pytest.raises(InputError, match="has changed since pair 000000"):
        start(**given)


def test_a_run_from_before_records_told_their_files_goes_on(start, normals, stopper):
    out = start(progress=stopper(2)).out
    for path in (out / "pairs").iterdir():
        record = json.loads(path.read_text())
        assert len(record.pop("files")) == 2
        path.write_text(json.dumps(record))
    for path in normals:
        change(path)
    assert len(start().pairs) == 5


def test_a_pair_without_a_mask_is_made_with_another_file_of_it(start, masks, make_mask, tmp_path):
    kept = masks.paths[0].read_bytes()
    write_png(masks.paths[0], make_mask()[:32])
    result = start()
    assert [one["id"] for one in result.broken] == ["000000", "000002", "000004"]
    before = listing(result.out)
    assert len(start().broken) == 3 and listing(result.out) == before
    masks.paths[0].write_bytes(kept)
    result = start()
    assert result.broken == [] and listing(result.out) == listing(start(out=tmp_path / "whole").out)


def test_a_pair_without_a_place_is_made_with_another_foreground(start, normals, masks, make_mask, tmp_path):
    grounds = [tmp_path / "ground" / path.name for path in normals]
    for path in grounds:
        write_png(path, np.ones((64, 64), bool))
    placed = PlacedMasks.of(masks, GivenObjects(grounds), MOVE, [])
    whole = listing(start(masks=placed, out=tmp_path / "whole").out)
    write_png(grounds[1], make_mask(30, 30, 2, 2))  # no mask fits there
    result = start(masks=placed)
    assert {one["normal"] for one in result.broken} == {"1.png"}
    write_png(grounds[1], np.ones((64, 64), bool))
    assert start(masks=placed).broken == [] and listing(result.out) == whole
    write_png(grounds[1], make_mask())
    with pytest.raises(InputError, match=r"ground.1.png has changed since pair"):
        start(masks=placed)


def test_a_mask_is_painted_into_the_normal_that_it_was_placed_on(start, normals, masks):
    source = FolderMasks([*masks.paths, masks.paths[0]], ["2.png", None, "0.png"])
    result = start(masks=source, count=8)
    of_mask = [[r["normal"] for r in result.pairs[i::3]] for i in range(3)]
    assert set(of_mask[0]) == {"2.png"} and set(of_mask[2]) == {"0.png"}
    free = start(masks=masks, count=8, out=result.out.with_name("free"))
    assert of_mask[1] == [r["normal"] for r in free.pairs[1::3]]  # any, as without places
    with pytest.raises(InputError, match=r"another run \(masks"):
        start(masks=FolderMasks(source.paths), count=8)
    with pytest.raises(InputError, match=r"placed on the normal image 2.png, which is not among those given"):
        start(masks=source, normals=normals[:2], out=result.out.with_name("none"))
    assert not result.out.with_name("none").exists()


@pytest.fixture
def dents(tmp_path, make_mask):
    """Masks that lie apart from those of `masks`, one for each."""
    paths = [tmp_path / "dents" / f"{i}.png" for i in range(2)]
    for i, path in enumerate(paths):
        write_png(path, make_mask(44 - 40 * i))
    return FolderMasks(paths)


def test_a_run_of_two_defects_in_each_image(start, normals, masks, dents):
    result = start(also=[(DENT, dents)], count=3)
    names = [f"{i:06d}" for i in range(3)]
    files = [f for n in names for f in (f"image/{n}.png", f"mask/{n}_mask.png", f"mask/{n}_labels.png")]
    assert set(listing(result.out)) == {"run.json", *files, *(f"pairs/{n}.json" for n in names)}
    for i, record in enumerate(result.pairs):
        assert (record["defect"], record["defects"], record["mask"]) == ("hole+dent", ["hole", "dent"], SEVERAL)
        where = [read_mask(source.paths[i % 2]).mask for source in (masks, dents)]
        labels = read_photo(result.out / "mask" / f"{names[i]}_labels.png").pixels
        assert np.array_equal(labels, where[0] + 2 * where[1]) and labels.dtype == np.uint8
        union = read_mask(result.out / "mask" / f"{names[i]}_mask.png").mask
        assert np.array_equal(union, labels > 0) and record["area"] == union.mean() and record["leak"] == 0
        normal = read_photo(normals[int(record["normal"][0])]).pixels
        image = read_photo(result.out / "image" / f"{names[i]}.png").pixels
        assert np.array_equal(image[~union], normal[~union])
        assert all((image[mask] != normal[mask]).any() for mask in where)
        for region, mask in zip(record["regions"], where, strict=True):
            assert region["area"] == mask.mean() and region["mask"] == {"kind": "file", "path": f"{i % 2}.png"}
            assert {"fill", "leak", "components", "box"} <= set(region)
    about = json.loads((result.out / "run.json").read_text())
    assert (about["product"], about["defect"], about["defects"]) == ("metal", "hole+dent", ["hole", "dent"])
    assert about["masks"] == [masks.record(None), dents.record(None)] and len(set(about["embedding"])) == 2


def test_a_run_of_two_defects_goes_on_to_the_same_files(start, dents):
    out = start(also=[(DENT, dents)]).out
    before = listing(out)
    (out / "pairs" / "000003.json").unlink()
    (out / "mask" / "000002_labels.png").unlink()
    start(also=[(DENT, dents)])
    assert listing(out) == before
    with pytest.raises(InputError, match=r"another run \(defect hole\+dent, now hole; masks"):
        start()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (("wood", "knot"), "wood/knot is not a defect of metal; one image shows defects of one product"),
        (("metal", "none"), "metal/none has no anomaly embedding"),
        (KEY, "touch or overlap"),
    ],
)
def test_defects_that_do_not_go_into_one_image_leave_no_folder(start, masks, dents, tmp_path, key, said):
    with pytest.raises(InputError, match=said):
        start(also=[(key, masks if key == KEY else dents)])
    assert not (tmp_path / "run").exists()


def test_a_file_name_that_is_no_text_is_recorded(start, tmp_path):
    name = b"\xe9.png".decode("utf-8", "surrogateescape")
    try:
        write_png(tmp_path / "odd" / name, np.full((64, 64, 3), 9, np.uint8))
    except (OSError, UnicodeError):
        pytest.skip("the file system keeps names as text")
    assert start(normals=[tmp_path / "odd" / name], count=1).pairs[0]["normal"] == name


class Limits:
    """Stand-in for the measures: a pair's fill is what `fills` says of its number and try, else 1."""

    def __init__(self, monkeypatch, fills):
        import adiff.generation.batch as module

        self.seeds, whole = [], module.paint_masks

        def paint(backbone, layers, encoder, photos, chosen, batch, *given):
            painted = whole(backbone, layers, encoder, photos, chosen, batch, *given)
            self.seeds.append((batch.seed, list(batch.ids)))
            attempt = len({seed for seed, _ in self.seeds}) - 1
            for number, regions in zip(batch.ids, painted, strict=True):
                for region in regions:
                    region.pair.measures["fill"] = fills.get((number, attempt), 1.0)
            return painted

        monkeypatch.setattr(module, "paint_masks", paint)


def test_a_pair_that_breaks_a_limit_is_painted_again_and_kept_apart(start, monkeypatch, tmp_path):
    plain = listing(start(out=tmp_path / "plain").out)
    Limits(monkeypatch, {(1, 0): 0.1, (1, 1): 0.2})
    result = start(count=2, limits=PairFilter(min_fill=0.5), tries=4)
    made = listing(result.out)
    rejects = {f"rejects/{f}" for k in (0, 1) for f in (f"image/000001-{k}.png", f"mask/000001-{k}_mask.png",
                                                        f"pairs/000001-{k}.json")}  # fmt: skip
    assert {name for name in made if name.startswith("rejects")} == rejects and result.rejected == []
    assert [(r["id"], r["try"], r["fill"]) for r in result.pairs] == [("000000", 0, 1.0), ("000001", 2, 1.0)]
    told = read_rejects(result.out)
    assert [(r["id"], r["try"], r["reasons"]) for r in told] == [
        ("000001-0", 0, ["fill 0.1 below 0.5"]), ("000001-1", 1, ["fill 0.2 below 0.5"])
    ]  # fmt: skip
    # the first try is the pair that a run without limits makes, the others are pictures of their own
    assert made["rejects/image/000001-0.png"] == plain["image/000001.png"]
    assert len({made[name] for name in (*(r for r in rejects if "image" in r), "image/000001.png")}) == 3
    about = json.loads((result.out / "run.json").read_text())
    assert about["filter"] == {"limits": {"min_fill": 0.5}, "tries": 4}


def test_a_pair_whose_tries_are_spent_is_given_up_and_not_begun_again(start, monkeypatch):
    seen = Limits(monkeypatch, {(3, k): 0.0 for k in range(9)})
    given = {"limits": PairFilter(min_fill=0.5), "tries": 2}
    result = start(**given)
    assert result.rejected == [3] and [r["id"] for r in result.pairs] == [f"{i:06d}" for i in (0, 1, 2, 4)]
    painted = len(seen.seeds)
    assert start(**given).rejected == [3] and len(seen.seeds) == painted
    with pytest.raises(InputError, match=r"another run \(filter.*tries 2, now 3"):
        start(limits=PairFilter(min_fill=0.5), tries=3)
    with pytest.raises(InputError, match=r"another run \(filter"):
        start()


def test_a_try_is_a_function_of_pair_and_number_alone(start, monkeypatch, tmp_path):
    """Which other pairs of the batch failed must not matter, nor how large the batch is."""
    given = {"limits": PairFilter(min_fill=0.5), "tries": 3, "count": 4}
    found = []
    for name, failing, batch in (("one", (1,), 4), ("two", (0, 1, 3), 4), ("three", (1, 2), 2)):
        with monkeypatch.context() as patch:
            Limits(patch, {(number, 0): 0.0 for number in failing})
            out = start(out=tmp_path / name, settings=replace(FEW, batch=batch), **given).out
        found.append(read_photo(out / "image" / "000001.png").pixels.astype(int))
    assert all(np.abs(found[0] - other).max() <= 2 for other in found[1:])
    assert np.abs(found[0] - read_photo(out / "rejects" / "image" / "000001-0.png").pixels).max() > 2


def test_a_filtered_run_that_lost_files_ends_with_the_same(start, monkeypatch):
    fills = {(0, 0): 0.0, (3, 0): 0.0, (3, 1): 0.0}
    given = {"limits": PairFilter(min_fill=0.5), "tries": 2}

    def run():
        with monkeypatch.context() as patch:
            import adiff.generation.batch as module

            whole = module.Task._paint

            def paint(task, batch, ids, photos, attempt):
                tries = whole(task, batch, ids, photos, attempt)
                return [replace(t, reasons=("fill",) if (t.number, attempt) in fills else ()) for t in tries]

            patch.setattr(module.Task, "_paint", paint)
            return start(**given)

    out = run().out
    before = listing(out)
    (out / "pairs" / "000000.json").unlink()
    (out / "rejects" / "pairs" / "000003-1.json").unlink()
    (out / "rejects" / "image" / "000003-1.png").write_bytes(b"half")
    result = run()
    assert listing(out) == before and result.rejected == [3]


def test_a_normal_that_does_not_open_costs_its_pairs_until_it_does(start, normals, tmp_path):
    whole = start(out=tmp_path / "whole")
    lost = [i for i, record in enumerate(whole.pairs) if record["normal"] == "1.png"]
    assert 0 < len(lost) < 5
    kept, content = normals[1].read_bytes(), listing(whole.out)
    normals[1].write_bytes(kept[:50])
    result = start()
    assert [int(one["id"]) for one in result.broken] == lost and all(
        one["normal"] == "1.png" and "damaged or cut short" in one["reason"] for one in result.broken
    )
    made = listing(result.out)
    assert all(made[name] == content[name] for name in made if not name.startswith("broken"))  # the rest is the same
    assert start().broken == result.broken and listing(result.out) == made
    normals[1].write_bytes(kept)
    result = start()
    assert result.broken == [] and listing(result.out) == content and not (result.out / "broken").exists()


def test_a_run_whose_normals_are_all_broken_ends(start, normals, monkeypatch):
    reads, opened = [], []
    monkeypatch.setattr(files, "read_broken", lambda out: reads.append(1) or [])
    monkeypatch.setattr(files, "opens", lambda path: opened.append(path) or opens(path))
    for path in normals:
        path.write_bytes(b"x")
    result = start()
    assert len(result.broken) == 5 and result.pairs == []
    assert len(reads) == 1  # and not with each batch, which would take the square of the run's time
    assert len(start().broken) == 5 and len(opened) == len(set(opened)) > 0  # each photo once, not for each pair


def test_refined_masks_take_the_place_of_those_asked_for(start, masks):
    out = start(settings=replace(FEW, refine=True)).out
    for number in range(5):
        asked = read_mask(out / "mask" / f"{number:06d}_asked.png").mask
        assert np.array_equal(asked, read_mask(masks.paths[number % 2]).mask)
        written = read_mask(out / "mask" / f"{number:06d}_mask.png").mask
        record = json.loads((out / "pairs" / f"{number:06d}.json").read_text())
        assert not (written & ~asked).any() and record["leak"] == 0 and record["area"] == written.mean()
        assert record["refined_iou"] == pytest.approx(written.sum() / asked.sum())
    assert json.loads((out / "run.json").read_text())["settings"]["refine"] is True
    with pytest.raises(InputError, match="settings.refine True, now None"):
        start()


def test_a_run_from_before_there_were_limits_goes_on(start):
    out = start().out
    before, about = listing(out), json.loads((out / "run.json").read_text())
    del about["filter"], about["settings"]["refine"]
    (out / "run.json").write_text(json.dumps(about))
    (out / "pairs" / "000000.json").unlink()
    start()
    assert {k: v for k, v in listing(out).items() if k != "run.json"} == {
        k: v for k, v in before.items() if k != "run.json"
    }


@pytest.mark.parametrize("several", [False, True])
def test_a_run_from_before_there_was_denoise_goes_on(start, make_mask, dents, monkeypatch, several):
    """Its masks were sampled from noise, as those of a denoise of 1 are."""
    source = Sampler(monkeypatch, make_mask(4), {}).source
    given = {"masks": source, "also": [(DENT, FolderMasks(dents.paths[:1]))] if several else []}
    out = start(**given).out
    about = json.loads((out / "run.json").read_text())
    of_source = about["masks"][0] if several else about["masks"]
    assert of_source["sampling"].pop("denoise") == 1
    (out / "run.json").write_text(json.dumps(about))
    (out / "pairs" / "000003.json").unlink()
    assert len(start(**given).pairs) == 5
    other = replace(source, sampling=replace(source.sampling, denoise=0.6))
    named = f"masks.{'0.' * several}sampling.denoise 1.0, now 0.6"
    with pytest.raises(InputError, match=rf"another run \({named}\); choose another folder or"):
        start(**{**given, "masks": other})
    with pytest.raises(InputError, match=r"\(count 5, now 6\); choose another folder, and another seed"):
        start(**given, count=6)


def test_workers_share_a_run_and_end_with_the_files_of_one(start, tmp_path, monkeypatch):
    alone = listing(start(out=tmp_path / "alone", count=11).out)
    painted, whole = [], Task.make

    def make(task, batch, photos=None):
        painted.append(batch)
        return whole(task, batch, photos)

    monkeypatch.setattr(Task, "make", make)
    with ThreadPoolExecutor(3) as pool:
        results = [one.result() for one in [pool.submit(start, count=11) for _ in range(3)]]
    assert listing(tmp_path / "run") == alone and sorted(painted) == list(range(6))  # each batch once
    assert all(len(result.pairs) == 11 and not result.cancelled for result in results)


def test_what_stops_a_write_stops_the_run_and_leaves_it_resumable(start, tmp_path, monkeypatch):
    whole = listing(start(out=tmp_path / "whole").out)
    written, write = [], files.write_png

    def full(path, *given):
        written.append(path)
        if len(written) == 4:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, *given)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_png", full)
        with pytest.raises(OSError, match="No space left on device"):
            start()
    left = listing(tmp_path / "run")
    assert {name for name in left if name.startswith(".")} == set()  # no claim, no lock
    assert len([name for name in left if name.startswith("pairs")]) == 1
    assert listing(start().out) == whole


def test_out_of_memory_paints_the_same_pairs_in_parts(start, tmp_path, monkeypatch):
    settings, limit, sizes = replace(FEW, batch=4), 1, []
    whole, paint = start(out=tmp_path / "whole", settings=settings), pairs.sample_blended

    def small(backbone, y, *given):
        sizes.append(len(y))
        painted = paint(backbone, y, *given)
        if len(y) > limit:  # when the noise is drawn already
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return painted

    monkeypatch.setattr(pairs, "sample_blended", small)
    result = start(settings=settings)
    assert sizes == [4, 2, 1, 1, 1, 1, 1]  # learned in the first batch of 4, for the last of 1 too
    for one, other in zip(result.pairs, whole.pairs, strict=True):
        assert (one["normal"], one["mask"], one["box"]) == (other["normal"], other["mask"], other["box"])
        images = (read_photo(out / "image" / f"{one['id']}.png").pixels.astype(int) for out in (result.out, whole.out))
        assert np.abs(np.subtract(*images)).max() <= 2
    limit = 0
    with pytest.raises(InputError, match="out of memory with a single image"):
        start(out=tmp_path / "none")
