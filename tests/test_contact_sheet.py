"""The contact sheet shows the pictures it was given, where it says, and the change where it is."""

import numpy as np
import pytest
from PIL import Image

from adiff.contact_sheet import (
    CHANGE_OUTLINE,
    CHANGE_STOPS,
    EDGE,
    GAP,
    GUTTER,
    Block,
    Pair,
    StoredPairs,
    caption_of,
    change_picture,
    contact_sheet,
    draw_outline,
    measure_of,
    outline_tile,
    pick_evenly,
    read_pair,
    tiles_of,
    view_box,
)
from adiff.datasets.images import write_png
from adiff.errors import InputError


def make_pair(size: int = 48, seed: int = 0, **record) -> Pair:
    rng = np.random.default_rng(seed)
    normal = rng.integers(0, 256, (size, size, 3), np.uint8)
    mask = np.zeros((size, size), bool)
    mask[10:30, 12:34] = True
    generated = np.where(mask[..., None], 255 - normal, normal)
    return Pair(normal, mask, generated, {"id": f"{seed:05d}", "seed": seed, **record})


def find(page: np.ndarray, picture: np.ndarray) -> list[tuple[int, int]]:
    """Places (left, top) at which a picture stands in a page, pixel for pixel."""
    height, width = picture.shape[:2]
    first = np.argwhere((page[: -height + 1, : -width + 1] == picture[0, 0]).all(-1))
    return [(int(x), int(y)) for y, x in first if np.array_equal(page[y : y + height, x : x + width], picture)]


def test_no_change_is_plain_and_a_third_of_the_range_is_full():
    normal = np.full((1, 3, 3), 100, np.uint8)
    generated = normal.copy()
    generated[0, 1, 2] += 85
    generated[0, 2, 0] -= 17  # 17 * 3 / 255 = 0.2: two thirds of the way to the stop at 0.3
    picture = change_picture(normal, generated)
    colours = [np.array(colour) for _, colour in CHANGE_STOPS]
    assert tuple(picture[0, 0]) == CHANGE_STOPS[0][1]
    assert tuple(picture[0, 1]) == CHANGE_STOPS[-1][1]
    assert np.abs(picture[0, 2] - (colours[0] + 2 / 3 * (colours[1] - colours[0]))).max() <= 0.5 + 1e-6


def test_the_outline_lies_just_outside_the_mask():
    mask = np.zeros((6, 7), bool)
    mask[2:4, 3:5] = True
    drawn = np.asarray(draw_outline(Image.new("RGB", (7, 6)), mask, CHANGE_OUTLINE))
    outlined = (drawn == CHANGE_OUTLINE).all(-1)
    expected = np.zeros((6, 7), bool)
    expected[1:5, 2:6] = True
    assert np.array_equal(outlined, expected & ~mask)
    assert not drawn[~outlined].any()


def test_small_masks_are_shown_in_their_surroundings_and_others_in_the_whole():
    large = np.zeros((400, 600), bool)
    large[100:300, 100:300] = True
    assert tuple(view_box(large, 128)) == (0, 0, 600, 400)
    small = np.zeros((400, 600), bool)
    small[380:396, 590:598] = True
    box = view_box(small, 128)
    assert box.left <= 590 and box.top <= 380 and box.right >= 598 and box.bottom >= 396
    assert box.width < 200 and box.height < 200
    assert tuple(view_box(small[:100, :100], 128)) == (0, 0, 100, 100)  # no mask here


def test_the_tiles_are_normal_mask_generated_change():
    pair = make_pair()
    tiles = tiles_of(pair, 48)
    assert list(tiles) == ["normal", "mask", "generated", "change"]
    normal, mask, generated, change = (np.asarray(picture) for picture in tiles.values())
    assert np.array_equal(normal, pair.normal) and np.array_equal(generated, pair.generated)
    assert np.array_equal(mask[..., 0] > 128, pair.mask)
    plain = change_picture(pair.normal, pair.generated)
    assert np.array_equal(change[pair.mask], plain[pair.mask])
    assert (change != plain).any()


def test_small_pictures_are_enlarged_only_if_asked():
    assert {picture.size for picture in tiles_of(make_pair(), 128).values()} == {(128, 128)}
    assert {picture.size for picture in tiles_of(make_pair(), 128, enlarge=False).values()} == {(48, 48)}


def test_without_the_normal_image_there_is_no_change_to_show():
    pair = make_pair()
    alone = Pair(None, pair.mask, pair.generated, pair.record)
    assert list(tiles_of(alone, 48)) == ["mask", "generated"]


@pytest.mark.parametrize(("size", "shown"), [(48, (48, 48)), (70, (64, 64)), (96, (55, 55))])
def test_the_outline_tile_fits_over_the_tiles_that_are_not_enlarged(size, shown):
    pair = make_pair(size)
    tile = outline_tile(pair, 64)
    assert tile.size == tiles_of(pair, 64, enlarge=False)["generated"].size == shown and tile.mode == "RGBA"
    drawn = np.asarray(tile)[..., 3] > 0
    if size == 48:
        expected = np.zeros((48, 48), bool)
        expected[9:31, 11:35] = True
        assert np.array_equal(drawn, expected & ~pair.mask)
    assert drawn.any()


def test_the_sheet_holds_shots_and_pairs_in_their_places(tmp_path):
    pairs = [make_pair(seed=seed) for seed in range(3)]
    shot = make_pair(seed=9)
    block = Block("metal", "scratch", [(shot.normal, shot.mask)], pairs)
    out = contact_sheet([block], tmp_path / "a" / "sheet.png", tile=48)
    page = np.asarray(Image.open(out))
    width = 4 * 48 + 3 * GAP
    assert page.shape[1] == 2 * EDGE + 2 * width + GUTTER
    places = [find(page, pair.normal) for pair in pairs]
    assert [len(place) for place in places] == [1, 1, 1]
    (first,), (second,), (third,) = places
    assert first[0] == third[0] == EDGE and second[0] == EDGE + width + GUTTER
    assert first[1] == second[1] < third[1]
    assert find(page, pairs[0].generated) == [(first[0] + 2 * (48 + GAP), first[1])]
    (at_shot,) = find(page, shot.normal[11:29, 13:33])  # the shot's inside: its outline is drawn over the rest
    assert at_shot[1] < first[1]


def test_blocks_follow_each_other_and_non_square_images_fit(tmp_path):
    wide = Pair(np.zeros((20, 60, 3), np.uint8), np.ones((20, 60), bool), np.full((20, 60, 3), 9, np.uint8))
    one = contact_sheet([Block("a", "b", [], [wide])], tmp_path / "one.png", tile=48)
    blocks = [Block("a", "b", [], [wide]), Block("a", "c", [], [])]
    two = contact_sheet(blocks, tmp_path / "two.png", tile=48, title="T")
    assert Image.open(two).height > Image.open(one).height
    assert {picture.size for picture in tiles_of(wide, 48).values()} == {(48, 16)}


@pytest.mark.parametrize(("count", "limit", "picked"), [(3, 5, [0, 1, 2]), (10, 5, [0, 2, 4, 6, 8]), (7, 3, [0, 2, 4])])
def test_pairs_beyond_the_limit_are_picked_evenly(count, limit, picked):
    assert pick_evenly(range(count), limit) == picked


def test_the_caption_says_what_was_measured():
    assert caption_of(make_pair(seed=7, fill=0.876, novelty=0.5)) == "00007   fill 0.88   novelty 0.50   seed 7"
    assert caption_of(make_pair(seed=7)) == "00007   seed 7"
    assert measure_of({"fill": 0.0}, "fill") == 0.0
    assert measure_of({"mask": {"kind": "file"}}, "iou") is None
    assert measure_of({"mask": {"iou": 0.5}}, "iou") == 0.5


@pytest.mark.parametrize("value", [None, "0.5", True, [0.5], float("nan"), float("inf"), {"x": 1}])
def test_what_is_no_number_is_no_measure(value):
    assert measure_of({"fill": value, "mask": value}, "fill") is None


@pytest.fixture
def stored(tmp_path):
    """A pair as a run's files, with its normal image in the folder `good`."""
    pair = make_pair()
    write_png(tmp_path / "run" / "image" / "00000.png", pair.generated)
    write_png(tmp_path / "run" / "mask" / "00000_mask.png", pair.mask)
    write_png(tmp_path / "good" / "004.png", pair.normal)
    return pair


def test_a_pair_is_read_from_its_run(stored, tmp_path):
    record = {"id": "00000", "normal": "004.png"}
    read = read_pair(tmp_path / "run", record, tmp_path / "good")
    for name in ("normal", "mask", "generated"):
        assert np.array_equal(getattr(read, name), getattr(stored, name))
    assert read_pair(tmp_path / "run", record, None).normal is None


def test_a_normal_image_of_another_size_is_refused(stored, tmp_path):
    write_png(tmp_path / "good" / "004.png", stored.normal[:40])
    with pytest.raises(InputError, match=r"004.png is 48x40, pair 00000 of .*run 48x48; give the folder"):
        read_pair(tmp_path / "run", {"id": "00000", "normal": "004.png"}, tmp_path / "good")


def test_a_record_that_climbs_out_of_its_folder_finds_nothing(stored, tmp_path):
    write_png(tmp_path / "secret.png", stored.normal)
    with pytest.raises(InputError, match="image.secret.png does not exist"):
        read_pair(tmp_path / "run", {"id": "../../secret"}, None)
    with pytest.raises(InputError, match="good.secret.png does not exist"):
        read_pair(tmp_path / "run", {"id": "00000", "normal": "../secret.png"}, tmp_path / "good")


def test_stored_pairs_are_opened_when_they_are_asked_for(stored, tmp_path):
    records = [{"id": "99999", "fill": 0.25}, {"id": "00000", "fill": 0.75}]
    pairs = StoredPairs(tmp_path / "run", records)
    assert len(pairs) == 2 and np.array_equal(pairs[1].generated, stored.generated)
    assert Block("a", "b", [], pairs).records is records
    assert Block("a", "b", [], [stored]).records == [stored.record]
    with pytest.raises(InputError, match="99999.png does not exist"):
        pairs[0]


def test_of_a_large_photo_only_what_is_shown_is_drawn(monkeypatch):
    normal = np.zeros((600, 800, 3), np.uint8)
    mask = np.zeros((600, 800), bool)
    mask[300:310, 400:420] = True
    drawn = []
    monkeypatch.setattr(
        "adiff.contact_sheet.change_picture", lambda *both: drawn.append(both[0].shape) or change_picture(*both)
    )
    tiles_of(Pair(normal, mask, normal + 9), 64)
    ((height, width, _),) = drawn
    assert max(height, width) < 100
