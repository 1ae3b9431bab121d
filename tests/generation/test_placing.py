"""Masks placed while a run goes on: on the object of each photo, drawn again where one does not fit."""

from pathlib import Path, PurePath

import numpy as np
import pytest

from adiff.datasets.images import Photo, write_png
from adiff.errors import InputError
from adiff.generation import ShotMasks
from adiff.generation.placing import LEARNED, MOVE, FoundObjects, GivenObjects, PlacedMasks, find_objects
from adiff.generation.sources import Batch, NoMask


def photo(name="a.png", top=40, left=60, size=100):
    """A dark object of 30 x 24 pixels on grey."""
    pixels = np.full((size, size, 3), 200, np.uint8)
    pixels[top : top + 30, left : left + 24] = 60
    return Photo(pixels, Path(name))


def inside(one):
    return (one.pixels == 60).all(2)


class Squares:
    """Masks of a side for each draw, in the picture's corner."""

    def __init__(self, *sides):
        self.sides, self.asked = iter(sides), []

    def masks(self, backbone, photos, batch):
        self.asked.append(batch)
        drawn = []
        for one in photos:
            mask, side = np.zeros(one.size, bool), next(self.sides)
            mask[:side, :side] = True
            drawn.append((mask, {"kind": "square"}))
        return drawn

    def record(self, base):
        return {"kind": "squares"}


@pytest.fixture
def objects(tmp_path):
    """Where the object is, as two photos of it show."""
    for name in ("a", "b"):
        write_png(tmp_path / f"{name}.png", photo().pixels)
    return find_objects([tmp_path / "a.png", tmp_path / "b.png"])


def test_each_mask_lies_on_the_object_of_its_own_photo(objects):
    photos = [photo("a.png", 5, 5), photo("b.png", 60, 70)]
    source = PlacedMasks.of(Squares(10, 12), objects, MOVE, [])
    made = source.masks(None, photos, Batch(3, 0, [0, 1]))
    for one, (mask, record), area in zip(photos, made, (100, 144), strict=True):
        assert mask.sum() == area and not (mask & ~inside(one)).any()
        assert record == {"kind": "square", "placed": {"turn": 0.0, "scale": 1.0}}
    again = PlacedMasks.of(Squares(12), objects, MOVE, []).masks(None, photos[1:], Batch(3, 0, [1]))
    assert np.array_equal(again[0][0], made[1][0])  # whatever else is in the batch
    assert source.record(None)["on"] == {"kind": "found", "way": "border colour"}


def test_a_mask_that_does_not_fit_is_drawn_again_for_its_pair_alone(objects):
    squares = Squares(10, 40, 40, 20)
    made = PlacedMasks.of(squares, objects, MOVE, []).masks(None, [photo("a.png"), photo("b.png")], Batch(0, 5, [7, 8]))
    assert [mask.sum() for mask, _ in made] == [100, 400]
    assert [(list(asked.ids), len({asked.seed, 0})) for asked in squares.asked] == [([7, 8], 1), ([8], 2), ([8], 2)]


def test_without_a_place_or_an_object_there_is_no_mask(objects):
    empty = Photo(np.full((100, 100, 3), 200, np.uint8), Path("empty.png"))
    large, none = PlacedMasks.of(Squares(*[40] * 9), objects, MOVE, []).masks(
        None, [photo(), empty], Batch(0, 0, [0, 1])
    )
    assert large == NoMask("none of 8 masks fits on the object in a.png: larger than the object (8)")
    assert isinstance(none, NoMask) and none.reason.startswith("no object to place a mask on in empty.png: ")


def test_sizes_and_turns_follow_the_shots_if_asked_for(objects):
    shot = np.zeros((100, 100), bool)
    shot[10:13, 10:30] = True
    source = PlacedMasks.of(ShotMasks([shot]), objects, LEARNED, [shot])
    ((mask, record),) = source.masks(None, [photo()], Batch(0, 0, [0]))
    assert mask.sum() == pytest.approx(60, rel=0.25) and not (mask & ~inside(photo())).any()
    assert set(record["placed"]) == {"turn", "scale"} and source.record(None)["spread"]["area"] == (0.006, 0.006)


def test_objects_are_looked_for_once(objects, monkeypatch):
    looked = []
    monkeypatch.setattr(objects.finder.__class__, "find", lambda self, image: looked.append(1) or image[..., 0] == 60)
    found = FoundObjects(objects.finder)
    for name in ("a.png", "b.png", "a.png"):
        assert np.array_equal(found.find(photo(name)), inside(photo()))
    assert len(looked) == 2
    monkeypatch.setattr("adiff.generation.placing.KEPT", 2 * 100 * 100 // 8)  # two photos' worth, the first goes
    for name in ("c.png", "b.png", "a.png"):
        assert np.array_equal(found.find(photo(name)), inside(photo()))
    assert len(looked) == 4


def test_normals_that_do_not_open_do_not_decide(tmp_path):
    write_png(tmp_path / "a.png", photo().pixels)
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert find_objects([tmp_path / "b.png", tmp_path / "a.png"]).finder.way == "border colour"


def test_many_given_objects_are_found_in_linear_time(monkeypatch):
    paths, asked = [Path(f"objects/{number}.png") for number in range(200)], []
    stem = PurePath.stem.fget
    monkeypatch.setattr(PurePath, "stem", property(lambda path: asked.append(path) or stem(path)))
    objects = GivenObjects(paths)
    monkeypatch.setattr("adiff.generation.placing.read_foreground", lambda _: np.ones((8, 8), bool))
    objects.check([Path(f"normals/{number}.jpg") for number in range(200)])
    assert len(asked) <= 400


def test_given_objects_go_by_name_and_a_single_one_is_for_all(tmp_path):
    for name in ("a", "b"):
        write_png(tmp_path / f"{name}.png", inside(photo(top=20 if name == "a" else 50, size=200))[::2, ::2])
    both = GivenObjects([tmp_path / "a.png", tmp_path / "b.png"])
    both.check([Path("x/a.jpg"), Path("x/b.jpg")])
    assert both.find(photo("x/a.jpg", size=200))[22:48, 62:82].all()  # resized to its photo
    with pytest.raises(InputError, match=r"none of 2 masks of the object in .* is named c; name them as the normal"):
        both.check([Path("a.png"), Path("c.png")])
    single = GivenObjects([tmp_path / "b.png"])
    assert single.find(photo("c.png")).sum() == 15 * 12
    with pytest.raises(InputError, match="mask b.png is 100 x 100, its photo c.png 50 x 100"):
        single.find(Photo(np.zeros((100, 50, 3), np.uint8), Path("c.png")))
    write_png(tmp_path / "b.png", np.zeros((100, 100), bool))
    with pytest.raises(InputError, match="is empty; mark the object in white on black"):
        single.check([Path("c.png")])
    with pytest.raises(InputError, match="no masks of the object were given"):
        GivenObjects([])
