import json
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from adiff.datasets.images import Photo, read_photo, write_png
from adiff.errors import InputError
from adiff.generation import FolderMasks, GenerationSettings, fit_guidance, generate_run, make_pairs
from adiff.generation.batch import Task
from adiff.generation.guidance import GAIN, LADDER, PAIRS, descend
from adiff.generation.seeds import generator_for
from adiff.library import Defect, Library
from adiff.object_storage import ObjectFolder, ObjectRun
from adiff.progress import Cancelled, NullProgress
from adiff.scoring import ShotReference, describe
from adiff.storage import host_name
from adiff.workers import CLAIMS

HOLE, DENT = ("metal", "hole"), ("metal", "dent")
FEW = GenerationSettings(steps=2, reweighting="off", batch=2)


def valley(lowest, seen):
    def height(value):
        seen.append(value)
        return 1 + abs(value - lowest)

    return height


@pytest.mark.parametrize("lowest", LADDER)
def test_the_lowest_value_of_a_valley_is_found_from_anywhere_and_none_is_looked_at_twice(lowest):
    for start in LADDER:
        seen = []
        found, heights = descend(LADDER, start, valley(lowest, seen))
        assert found == lowest and len(seen) == len(set(seen)) and set(heights) == set(seen)
    assert len(descend(LADDER, 2.0, valley(2.0, []))[1]) == 3


def test_a_step_that_gains_too_little_is_not_taken():
    heights = {1.0: 2.0, 2.0: 1.0, 3.0: 1 - GAIN / 2, 4.0: 0.1}
    assert descend(list(heights), 2.0, heights.get)[0] == 2.0
    assert descend(list(heights), 2.0, {**heights, 3.0: 1 - 2 * GAIN}.get)[0] == 4.0


@pytest.fixture
def photos():
    rng = np.random.default_rng(1)
    return [Photo(rng.integers(0, 255, (64, 64, 3), np.uint8), Path(f"{i}.png")) for i in range(5)]


@pytest.fixture
def masks(make_mask):
    return [make_mask(4 + 8 * i) for i in range(5)]


@pytest.fixture
def embedding():
    return torch.randn(8, 768, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def shots_of(backbone, photos, masks, encoder):
    """Shots that look as pairs do that are painted with a guidance."""

    def make(guidance, embedding, seed=7):
        noise = [generator_for(seed, "guidance", i) for i in range(5)]
        painting = replace(FEW, guidance=guidance)
        pairs = make_pairs(backbone, photos, masks, embedding, encoder, painting, noise)
        return ShotReference(None, describe(backbone, [pair.image for pair in pairs], masks))

    return make


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_guidance_that_the_shots_were_painted_with_is_found(
    backbone, photos, masks, embedding, encoder, shots_of, guidance
):
    def paint(value):
        noise = [generator_for(7, "guidance", i) for i in range(5)]
        painting = replace(FEW, guidance=value)
        return [pair.image for pair in make_pairs(backbone, photos, masks, embedding, encoder, painting, noise)]

    fit = fit_guidance(paint, masks, shots_of(guidance, embedding), backbone, start=2.0)
    assert fit.guidance == guidance and fit.gaps[guidance] == pytest.approx(0, abs=1e-5) and fit.shots == 5
    assert fit.record()["value"] == guidance and list(map(float, fit.record()["gaps"])) == sorted(fit.gaps)


def test_shots_of_which_nothing_is_known_are_told(backbone, masks):
    with pytest.raises(InputError, match=r"cannot be fitted to wood/knot: the library does not say .* give a number"):
        fit_guidance(None, masks, ShotReference(), backbone, start=2.0, name="wood/knot")


@pytest.fixture
def start(backbone, encoder, embedding, photos, masks, shots_of, tmp_path):
    """A run of which a hole looks as with guidance 3, a dent as with 1."""
    places = {"normals": [photo.pixels for photo in photos], "masks": masks}
    for name, pictures in places.items():
        for number, picture in enumerate(pictures):
            write_png(tmp_path / name / f"{number}.png", picture)
    normals, files = (sorted((tmp_path / name).glob("*.png")) for name in places)
    looks = {HOLE: 3.0, DENT: 1.0}
    learned = {
        key: Defect(*key, anomaly=embedding, likeness=torch.from_numpy(shots_of(look, embedding).descriptors))
        for key, look in looks.items()
    }
    library = Library(learned, backbone.fingerprint, "tiny", 768)

    def run(key=HOLE, masks=None, **options):
        given = {"count": 3, "out": tmp_path / "run", "settings": FEW, "seed": 7, "fit": True, **options}
        masks = masks or FolderMasks(files)
        return generate_run(backbone, given.pop("library", library), key, encoder, normals, masks, **given)

    return run


def plan_of(result):
    return json.loads((result.out / "run.json").read_text())


def test_a_run_is_painted_with_the_guidance_that_suits_its_defect_and_tells_it(start, tmp_path):
    result = start()
    plan = plan_of(result)
    value = plan["guidance"]["value"]
    assert plan["settings"]["guidance"] == value and plan["guidance"]["shots"] == 5
    told = start(fit=False, settings=replace(FEW, guidance=value), out=tmp_path / "told")
    assert "guidance" not in plan_of(told)
    for name in ("image/000000.png", "image/000002.png"):
        assert (result.out / name).read_bytes() == (told.out / name).read_bytes()


def test_a_run_goes_on_with_the_guidance_that_it_began_with(start, monkeypatch):
    out = start().out
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (out / "pairs" / "000001.json").unlink()
    monkeypatch.setattr("adiff.generation.batch.fit_guidance", None)
    start()
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_that_another_process_has_begun_meanwhile_has_its_guidance(start, monkeypatch, tmp_path):
    begun = start(out=tmp_path / "other").out / "run.json"
    other = json.loads(begun.read_text())
    other["guidance"]["value"] = other["settings"]["guidance"] = 6.0
    fits = Task.fits

    def slow(task, progress):
        (tmp_path / "run" / "run.json").write_text(json.dumps(other))
        return fits(task, progress)

    monkeypatch.setattr(Task, "fits", slow)
    assert plan_of(start())["settings"]["guidance"] == 6.0


class Waiting(NullProgress):
    """Tells, by an event, that a process waits for what another one finds."""

    def __init__(self):
        self.waits = threading.Event()

    def start(self, total, what):
        if what == "guidance metal/hole, in another process":
            self.waits.set()


@pytest.mark.parametrize(("is_stored", "fails"), [(False, False), (True, False), (False, True)])
def test_of_two_processes_that_begin_a_run_one_finds_its_guidance(start, monkeypatch, tmp_path, is_stored, fails):
    began, fits, progress, fit = threading.Event(), [], Waiting(), Task.fits

    def slow(task, listener):
        fits.append(task)
        began.set()
        assert progress.waits.wait(60)
        if fails and len(fits) == 1:
            raise InputError("a full disk")
        return fit(task, listener)

    def work(number, listener):
        local = tmp_path / f"here{number}"
        stored = {"out": local, "shared": ObjectRun(ObjectFolder(f"memory://bucket/{tmp_path.name}", local))}
        return start(progress=listener, **(stored if is_stored else {}))

    monkeypatch.setattr(Task, "fits", slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(work, 1, NullProgress())
        assert began.wait(60)
        second = pool.submit(work, 2, progress).result()
        assert isinstance(first.exception(), InputError) is fails
    assert len(fits) == 1 + fails and len(second.pairs) == 3
    assert fails or plan_of(second) == plan_of(first.result())
    assert not list(second.out.glob(f"{CLAIMS}/*"))


def test_a_process_that_was_killed_while_it_was_fitting_holds_nobody_up(start, tmp_path):
    claim = tmp_path / "run" / CLAIMS / "guidance.json"
    claim.parent.mkdir(parents=True)
    claim.write_text(json.dumps({"pid": os.getpid(), "host": host_name(), "worker": "of another life"}))
    progress = Waiting()
    assert len(start(progress=progress).pairs) == 3 and not progress.waits.is_set() and not claim.exists()


def test_who_waits_for_the_guidance_can_stop(start, tmp_path):
    class Stopped(Waiting):
        def update(self, done, **info):
            assert self.waits.is_set()
            raise Cancelled

    claim = tmp_path / "run" / CLAIMS / "guidance.json"
    claim.parent.mkdir(parents=True)
    claim.write_text(json.dumps({"pid": os.getppid(), "host": host_name(), "worker": "x"}))
    assert start(progress=Stopped()).cancelled and claim.exists()


def test_a_place_that_is_taken_is_told_before_anything_is_fitted(start, monkeypatch, tmp_path):
    monkeypatch.setattr(Task, "fits", None)
    start(fit=False, settings=replace(FEW, guidance=1.25))
    with pytest.raises(InputError, match=r"another run \(settings.guidance 1.25, now auto\); choose another folder"):
        start()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(InputError, match="not empty and holds no run"):
        start(out=tmp_path / "full")


def test_a_run_that_is_stopped_while_it_is_fitted_is_a_stopped_run(start, monkeypatch, tmp_path):
    class Stopped(NullProgress):
        def update(self, done, total=None):
            raise Cancelled

    result = start(progress=Stopped())
    assert result.cancelled and not result.pairs and not (tmp_path / "run").exists()


def test_a_severity_does_not_change_what_is_found(start, tmp_path):
    found = plan_of(start())["guidance"]
    strong = plan_of(start(settings=replace(FEW, severity=2.0), out=tmp_path / "strong"))
    assert strong["guidance"] == found and strong["settings"]["severity"] == 2.0


def test_each_of_two_defects_of_an_image_has_its_own(start, tmp_path, make_mask):
    for number in range(5):
        write_png(tmp_path / "far" / f"{number}.png", make_mask(4 + 8 * number, 48, 8, 8))
    far = FolderMasks(sorted((tmp_path / "far").glob("*.png")))
    plan = plan_of(start(also=[(DENT, far)], count=2))
    assert [one["value"] for one in plan["guidance"]] == plan["settings"]["guidance"]
    assert len(plan["guidance"]) == 2
    told = plan_of(start(also=[(DENT, far)], count=2, fit=False, out=tmp_path / "told"))
    assert told["settings"]["guidance"] == FEW.guidance and "guidance" not in told
    with pytest.raises(InputError, match=r"run holds another run \(defect hole\+dent, now hole; settings.guidance"):
        start(count=2)


def test_a_library_without_descriptors_leaves_no_folder(start, backbone, embedding, tmp_path):
    bare = Library({HOLE: Defect(*HOLE, anomaly=embedding)}, backbone.fingerprint, "tiny", 768)
    with pytest.raises(InputError, match=r"cannot be fitted to metal/hole"):
        start(library=bare)
    assert not (tmp_path / "run").exists()


def test_normals_that_do_not_open_are_left_out_of_the_fit(start, tmp_path):
    for number in range(4):
        (tmp_path / "normals" / f"{number}.png").write_bytes(b"no picture")
    found = start(count=PAIRS)
    assert plan_of(found)["guidance"]["value"] in LADDER and found.broken
    (tmp_path / "normals" / "4.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"no guidance can be fitted to metal/hole: none of the run's first 16 pairs"):
        start(count=PAIRS, out=tmp_path / "none")


def test_what_a_fit_does_first_is_shown(start):
    said = []

    class Listener(NullProgress):
        def start(self, total, what):
            said.append((what, total))

    start(progress=Listener())
    assert said == [("masks metal/hole", 3), ("guidance metal/hole", len(LADDER)), ("pairs metal/hole", 3)]


def test_masks_behind_those_that_a_run_wants_are_not_looked_at(start, tmp_path):
    """A run reads as many masks as it has pairs: what comes behind may be damaged, or placed on photos not given."""
    (tmp_path / "masks" / "4.png").write_bytes(b"no picture")
    plan_of(start(count=2))
    files = sorted((tmp_path / "masks").glob("*.png"))
    placed = FolderMasks(files[:4], ["0.png", "1.png", "2.png", "gone.png"])
    plan_of(start(count=2, masks=placed, out=tmp_path / "placed"))


def test_a_fit_holds_no_more_photos_than_a_batch_of_the_run(start, monkeypatch):
    """Whoever makes large photos one at a time has no memory for sixteen."""
    alive = weakref.WeakSet()
    most = []

    def counted(path):
        photo = read_photo(path)
        alive.add(photo)
        most.append(len(alive))
        return photo

    monkeypatch.setattr("adiff.generation.batch.read_photo", counted)
    monkeypatch.setattr("adiff.generation.batch.fit_guidance", first_pairs)
    with pytest.raises(InputError, match="16 painted"):
        start(count=PAIRS, settings=replace(FEW, batch=1))
    assert len(most) == 2 * PAIRS and max(most) <= 2  # the next one is read before the last is let go


def first_pairs(paint, *_, **__):
    raise InputError(f"{len(list(paint(2.0)))} painted")
