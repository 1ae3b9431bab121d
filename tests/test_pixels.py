import numpy as np
import torch

from adiff.pixels import as_images, as_pixels


def test_pixels_become_images_and_come_back():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(2, 8, 16, 3)[:, ::-1]  # a view, as of a flipped picture
    images = as_images(pixels)
    assert images.shape == (2, 3, 8, 16) and images.dtype == torch.float32
    assert images.min() == -1 and images.max() == 1 and images[0, 1, 7, 5] == 5 / 127.5 - 1
    assert np.array_equal(as_pixels(images), pixels)
    assert np.array_equal(as_pixels(torch.tensor((-3.0, 3.0, 0.0)).view(1, 3, 1, 1)).ravel(), (0, 255, 128))


def test_one_picture_and_levels_between_two_pixels():
    assert as_images(np.full((4, 6, 3), 127.5, np.float32)).shape == (3, 4, 6)
    assert (as_images(np.full((2, 4, 6, 3), 127.5, np.float32)) == 0).all()
