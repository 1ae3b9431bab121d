"""Where normal images are looked for, and what is never taken for one."""

import numpy as np
import pytest
from PIL import Image

from adiff.cli.normals import normals_of
from adiff.errors import InputError


def save(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / name)
    return [folder / name for name in names]


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(60, 200, (16, 16), dtype=np.uint8)


@pytest.mark.parametrize("place", ["", "good", "normal", "train/good", "metal", "metal/train/good"])
def test_places(tmp_path, place):
    there = save(tmp_path / place, "1.png", "2.png")
    assert normals_of("metal", tmp_path) == there


@pytest.mark.parametrize("names", [("1.png", "1_mask.png"), ("1.jpg", "1_label.bmp"), ("1.jpg", "1.png")])
def test_photos_with_masks_are_no_normal_images(tmp_path, names):
    """The data folder that the photos were learned from: masks would be painted into, and photos of defects."""
    save(tmp_path, *names)
    with pytest.raises(InputError, match=r"holds masks beside its photos, which may show defects \(1") as told:
        normals_of("metal", tmp_path)
    assert names[1] in str(told.value) and str(told.value).endswith("give a folder of normal images alone")
    there = save(tmp_path / "normal", "3.png")
    assert normals_of("metal", tmp_path) == there


@pytest.mark.parametrize("twin", ["1.png", "1.bmp"])
def test_photos_that_a_camera_saved_twice_are_normal_images(tmp_path, twin, noise):
    there = save(tmp_path, "1.jpg", twin, "2.png")
    for path in there:
        Image.fromarray(noise).save(path)
    assert set(normals_of("metal", tmp_path)) == set(there)
    Image.fromarray(np.uint8(noise > 128) * 255).save(there[1])  # it could be a mask
    with pytest.raises(InputError, match=f"masks beside its photos, which may show defects .{twin}"):
        normals_of("metal", tmp_path)


def test_images_in_further_folders_are_not_taken_and_told(tmp_path, caplog):
    save(tmp_path / "day 1", "1.png"), save(tmp_path / "day 2", "1.png"), save(tmp_path / ".hidden", "1.png")
    (tmp_path / "notes").mkdir()
    with pytest.raises(InputError, match="normal or good; its folders hold some, .* alone: day 1, day 2$"):
        normals_of("metal", tmp_path)
    there = save(tmp_path, "1.png")
    assert normals_of("metal", tmp_path) == there
    assert caplog.messages == [f"{tmp_path}: the images in its folders are not taken: day 1, day 2"]


def test_a_link_that_leads_out_is_told_without_other_places(tmp_path):
    (photo,) = save(tmp_path / "elsewhere", "1.png")
    (tmp_path / "set" / "good").mkdir(parents=True)
    (tmp_path / "set" / "good" / "1.png").symlink_to(photo)
    for folder in (tmp_path / "set", tmp_path / "set" / "good"):
        with pytest.raises(InputError, match="leads out of the data folder.* or give the folder itself$"):
            normals_of("metal", folder)
