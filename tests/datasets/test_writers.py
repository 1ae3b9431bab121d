"""Pairs written in MVTec's layout come back through the reader."""

import numpy as np
import pytest

from adiff.datasets.readers import read_dataset, read_shot
from adiff.datasets.writers import write_mvtec_good, write_mvtec_pair
from adiff.errors import InputError

RNG = np.random.default_rng(2)
IMAGE = RNG.integers(0, 256, size=(7, 9, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, size=(7, 9), dtype=np.uint16)
MASK = np.zeros((7, 9), dtype=bool)
MASK[1:3, 4:6] = True


@pytest.mark.parametrize("image", [IMAGE, DEEP], ids=["rgb", "grey16"])
def test_what_is_written_is_read_again(tmp_path, image):
    paths = write_mvtec_pair(tmp_path, "tile", "crack", "0001", image, MASK)
    assert paths == (tmp_path / "tile/test/crack/0001.png", tmp_path / "tile/ground_truth/crack/0001_mask.png")
    good = write_mvtec_good(tmp_path, "tile", "train", "n1", image)
    write_mvtec_good(tmp_path, "tile", "test", "n2", image)
    data = read_dataset(tmp_path)
    (shot,) = data.shots["tile", "crack"]
    photo, marked = read_shot(shot)
    assert np.array_equal(photo.pixels, image) and photo.pixels.dtype == image.dtype
    assert np.array_equal(marked.mask, MASK) and not marked.grey
    assert data.normals["tile"] == (good,)


@pytest.mark.parametrize(
    "names", [("..", "crack", "1"), ("tile", "a/b", "1"), ("tile", "crack", "x\\y"), ("tile", "good", "1")]
)
def test_names_that_are_no_folders_write_nothing(tmp_path, names):
    with pytest.raises(InputError):
        write_mvtec_pair(tmp_path / "out", *names, IMAGE, MASK)
    assert not list(tmp_path.iterdir())


def test_pairs_that_do_not_fit_write_nothing(tmp_path):
    with pytest.raises(ValueError, match="image of 9x7 with a mask of 9x6"):
        write_mvtec_pair(tmp_path / "out", "tile", "crack", "1", IMAGE, MASK[:6])
    with pytest.raises(InputError, match="tile/crack/1 is empty"):
        write_mvtec_pair(tmp_path / "out", "tile", "crack", "1", IMAGE, np.zeros((7, 9), dtype=bool))
    with pytest.raises(ValueError, match="split 'valid'"):
        write_mvtec_good(tmp_path / "out", "tile", "valid", "1", IMAGE)
    assert not list(tmp_path.iterdir())
