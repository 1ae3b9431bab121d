"""Which normal image a mask belongs on, by the record that `adiff masks` leaves beside its masks."""

import json
import logging
from pathlib import Path

import pytest

from adiff.cli.generated import tell_missing
from adiff.cli.jobs import are_models_own, of_their_names, placed_on, recorded
from adiff.errors import InputError
from adiff.generation.run import RunResult

FILES = [f"{number:03d}.png" for number in range(3)]
NORMALS = [Path("normals") / name for name in ("a.jpg", "b.jpg", "c.jpg")]


@pytest.fixture
def found(tmp_path):
    """`placed_on` with a record of some masks."""
    def look(*masks):
        told = [{"file": file, **one} for file, one in zip(FILES, masks, strict=False)]
        (tmp_path / "masks.json").write_text(json.dumps({"masks": told}))
        return placed_on([tmp_path / name for name in FILES], NORMALS, recorded(tmp_path))

    return look


def test_masks_belong_on_the_normals_that_the_record_names(found):
    placed = [{"foreground": name, "normal": name} for name in ("b.jpg", "gone.jpg")]
    assert found(*placed) == ["b.jpg", "gone.jpg", None]  # one that is not there is refused with the run


def test_masks_on_the_user_s_foregrounds_belong_on_normals_of_the_same_stem(found):
    assert found({"foreground": "c.png"}, {"foreground": "d.png"}, {}) == ["c.jpg", "d.png", None]
    assert found({"foreground": "object.png"}, {"foreground": "object.png"}) == []  # one foreground for all


@pytest.mark.parametrize("text", ['{"masks": []}', '{"masks": [1, {"file": 2}]}', '{"other": 1}'])
def test_other_records_say_nothing(tmp_path, text):
    paths = [tmp_path / name for name in FILES]
    assert placed_on(paths, NORMALS, recorded(tmp_path)) == []
    (tmp_path / "masks.json").write_text(text)
    assert placed_on(paths, NORMALS, recorded(tmp_path)) == []


def test_masks_that_adiff_masks_placed_on_nothing_are_the_model_s_own(tmp_path):
    paths = [tmp_path / name for name in FILES]
    assert not are_models_own(paths, recorded(tmp_path))
    for told, own in ([{}] * 3, True), ([{}, {}, {"foreground": "a.png"}], False), ([{}] * 2, False):
        masks = [{"file": file, **one} for file, one in zip(FILES, told, strict=False)]
        (tmp_path / "masks.json").write_text(json.dumps({"masks": masks}))
        assert are_models_own(paths, recorded(tmp_path)) is own


def test_masks_of_the_names_of_normals():
    assert of_their_names([Path("m/c.png"), Path("m/a_MASK.png")], NORMALS) == ["c.jpg", "a.jpg"]
    with pytest.raises(InputError, match="normals holds a.jpg and another image of that name"):
        of_their_names([Path("m/c.png")], [*NORMALS, Path("normals/a.png")])
    with pytest.raises(InputError, match="mask m.d.png has the name of no normal image in normals; call"):
        of_their_names([Path("m/c.png"), Path("m/d.png")], NORMALS)


def test_a_damaged_or_unfinished_record_is_said(tmp_path):
    (tmp_path / "masks.json").write_text('{"masks": [')
    with pytest.raises(InputError, match="masks.json is damaged.*remove it to use the masks beside it"):
        recorded(tmp_path)
    (tmp_path / "masks.json").write_text('{"settings": {}, "finished": false}')
    with pytest.raises(InputError, match="lacks masks: `adiff masks` was interrupted there"):
        recorded(tmp_path)


def test_pairs_that_were_rejected_by_hand_are_not_said_to_break_limits(caplog):
    with caplog.at_level(logging.WARNING, "adiff"):
        tell_missing([RunResult(Path("run"), [], 0.0, rejected=[2])], 9)
    assert "1 of 9 pairs were rejected, " in caplog.text and "limits" not in caplog.text


def test_pairs_without_a_mask_are_told_and_broken_normals_are_an_error(caplog):
    lacking = {"id": "000003", "no_mask": True, "reason": "only 1 of 2 masks passed"}
    with caplog.at_level(logging.WARNING, "adiff"):
        tell_missing([RunResult(Path("run"), [], 0.0, broken=[lacking])], 9)
    assert "1 of 9 pairs have no mask and are missing, the first as only 1 of 2 masks passed" in caplog.text
    with pytest.raises(InputError, match="pairs that were not made: 1, as cut short"):
        tell_missing([RunResult(Path("run"), [], 0.0, broken=[lacking, {"reason": "cut short"}])], 9)
    many = [{"reason": f"{number // 2}.png is cut short"} for number in range(14)]
    with pytest.raises(InputError, match="made: 14, as 0.png is cut short; 1.png .*4.png is cut short and 2 more; put"):
        tell_missing([RunResult(Path("run"), [], 0.0, broken=many)], 20)
