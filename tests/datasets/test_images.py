"""Photos and masks as files: each kind comes back exactly, or is refused by name."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from adiff.datasets import images
from adiff.datasets.images import Photo, read_mask, read_photo, write_png
from adiff.errors import InputError

RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 256, size=(6, 9), dtype=np.uint8)
RGB = RNG.integers(0, 256, size=(6, 9, 3), dtype=np.uint8)
RGBA = RNG.integers(0, 256, size=(6, 9, 4), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, size=(6, 9), dtype=np.uint16)
DEEP[0, 0] = 65535


def raw_png(depth, colour, channels, height=2, width=3):
    """A PNG of a kind that Pillow cannot write, all bytes 0x81."""

    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    row = b"\0" + b"\x81" * (width * channels * depth // 8)
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row * height)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def raw_tiff(bits, samples=1, photometric=1, sample_format=1, height=2, width=3):
    """A little-endian TIFF of a kind that Pillow cannot write, all bytes 1."""
    data = b"\1" * (height * width * samples * bits // 8)
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 0),
            (277, 3, samples), (278, 4, height), (279, 4, len(data)), (339, 3, sample_format)]  # fmt: skip
    extra = 8 + 2 + 12 * len(tags) + 4
    lists = b""
    entries = b""
    for tag, kind, value in tags:
        if tag in (258, 339) and samples > 1:
            entries += struct.pack("<HHII", tag, kind, samples, extra + len(lists))
            lists += struct.pack(f"<{samples}H", *[value] * samples)
        else:
            entries += struct.pack("<HHII", tag, kind, 1, value if tag != 273 else extra + 4 * samples)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return head + entries + struct.pack("<I", 0) + lists.ljust(4 * samples) + data


# photos


@pytest.mark.parametrize("array", [GREY, RGB, RGBA, DEEP], ids=["grey", "rgb", "rgba", "grey16"])
@pytest.mark.parametrize("suffix", ["png", "PNG", "tif", "TIFF"])
def test_lossless_kinds_come_back_exactly(tmp_path, array, suffix):
    Image.fromarray(array).save(tmp_path / f"x.{suffix}")
    pixels = read_photo(tmp_path / f"x.{suffix}").pixels
    assert pixels.dtype == array.dtype and np.array_equal(pixels, array)


@pytest.mark.parametrize("array", [GREY, RGB], ids=["grey", "rgb"])
def test_bmp_comes_back_exactly(tmp_path, array):
    Image.fromarray(array).save(tmp_path / "x.BMP")
    assert np.array_equal(read_photo(tmp_path / "x.BMP").pixels, array)


def test_webp_and_jpeg(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "x.webp", lossless=True)
    assert np.array_equal(read_photo(tmp_path / "x.webp").pixels, RGB)
    Image.new("RGB", (9, 6), (40, 90, 200)).save(tmp_path / "x.JPG", "JPEG", quality=95)
    pixels = read_photo(tmp_path / "x.JPG").pixels.astype(int)
    assert pixels.shape == (6, 9, 3) and abs(pixels - (40, 90, 200)).max() <= 3


def test_big_endian_16_bit_tiff(tmp_path):
    Image.frombytes("I;16B", (9, 6), DEEP.astype(">u2").tobytes()).save(tmp_path / "x.tif")
    pixels = read_photo(tmp_path / "x.tif").pixels
    assert pixels.dtype == np.uint16 and np.array_equal(pixels, DEEP)


def test_palette_cmyk_and_one_bit_are_converted(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png")
    assert read_photo(tmp_path / "p.png").pixels.tolist() == [[[10, 20, 30], [200, 100, 50]]]
    palette.save(tmp_path / "t.png", transparency=0)
    assert read_photo(tmp_path / "t.png").pixels.tolist() == [[[10, 20, 30, 0], [200, 100, 50, 255]]]
    Image.new("CMYK", (2, 2), (0, 255, 255, 0)).save(tmp_path / "c.tif")
    assert (read_photo(tmp_path / "c.tif").pixels == (255, 0, 0)).all()
    Image.fromarray(GREY > 127).save(tmp_path / "b.png")
    assert np.array_equal(read_photo(tmp_path / "b.png").pixels, np.where(GREY > 127, 255, 0))


def test_grey_with_alpha_keeps_both(tmp_path):
    Image.fromarray(np.stack([GREY, GREY.T.reshape(6, 9)], axis=2), "LA").save(tmp_path / "x.png")
    pixels = read_photo(tmp_path / "x.png").pixels
    assert np.array_equal(pixels[:, :, 0], GREY) and np.array_equal(pixels[:, :, 3], GREY.T.reshape(6, 9))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("array", [RGB, DEEP, GREY], ids=["rgb", "grey16", "grey"])
def test_exif_rotation_is_applied(tmp_path, array, suffix):
    image = Image.fromarray(array)
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(tmp_path / f"x.{suffix}", exif=exif)
    assert np.array_equal(read_photo(tmp_path / f"x.{suffix}").pixels, np.rot90(array, -1))


@pytest.mark.parametrize(
    "data, name, said",
    [
        (raw_png(16, 2, 3), "x.png", "16-bit colour"),
        (raw_png(16, 6, 4), "x.png", "16-bit colour"),
        (raw_png(16, 4, 2), "x.png", "16-bit colour"),
        (raw_tiff(16, samples=3, photometric=2), "x.tif", "16-bit colour"),
        (raw_tiff(16, photometric=0), "x.tif", "white as 0"),
        (raw_tiff(16, sample_format=2), "x.tif", "signed or floating-point"),
        (raw_tiff(32, sample_format=3), "x.tif", "signed or floating-point"),
        (raw_tiff(32), "x.tif", "32-bit grey"),
    ],
)
def test_what_would_be_reduced_is_refused_by_name(tmp_path, data, name, said):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=f"{name}.*{said}"):
        read_photo(tmp_path / name)


def test_raw_files_of_the_test_are_sound(tmp_path):
    """The hand-made files differ from the refused ones in kind only."""
    (tmp_path / "x.png").write_bytes(raw_png(16, 0, 1))
    assert (read_photo(tmp_path / "x.png").pixels == 0x8181).all()
    (tmp_path / "x.tif").write_bytes(raw_tiff(8, samples=3, photometric=2))
    assert read_photo(tmp_path / "x.tif").pixels.tolist() == [[[1, 1, 1]] * 3] * 2
    (tmp_path / "y.tif").write_bytes(raw_tiff(16))
    assert (read_photo(tmp_path / "y.tif").pixels == 0x0101).all()


def test_several_pages_are_refused(tmp_path):
    page = Image.fromarray(GREY)
    page.save(tmp_path / "x.tif", save_all=True, append_images=[page, page])
    with pytest.raises(InputError, match="x.tif holds 3 pages"):
        read_photo(tmp_path / "x.tif")


def test_a_phones_jpeg_is_its_first_picture(tmp_path):
    first = Image.new("RGB", (9, 6), (40, 90, 200))
    first.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (4, 4))])
    assert read_photo(tmp_path / "x.jpg").size == (6, 9)


def test_runs_of_a_bmp_that_claims_more_than_its_bytes_can_tell_are_not_looked_for(tmp_path):
    """438 bytes, run-length encoded by their header, of 8,388,618 x 12 pixels: half a minute of Pillow's."""
    path = tmp_path / "a.bmp"
    Image.fromarray(np.zeros((12, 10, 3), np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    content[18:22], content[30:34] = (8_388_618).to_bytes(4, "little"), (1).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged or cut short: 8388618x12 pixels in 438 bytes"):
        read_photo(path)


def test_a_file_that_asks_for_more_memory_than_there_is_is_named(tmp_path, monkeypatch):
    """As a PNG of 82 bytes whose last chunk claims four gigabytes, on a machine that has fewer."""
    def load(self):
        raise MemoryError

    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    with pytest.raises(InputError, match="a.png asks for more memory than there is; it is too large, or damaged"):
        read_photo(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_truncated_and_empty_files_are_named(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(RNG.integers(0, 256, size=(64, 64, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    for part in (whole[: len(whole) // 2], whole[:20], b"", b"not an image at all"):
        path.write_bytes(part)
        with pytest.raises(InputError, match=f"x.{suffix}"):
            read_photo(path)


@given(place=st.floats(0, 1), value=st.integers(0, 255), suffix=st.sampled_from(["png", "jpg", "tif", "bmp", "webp"]))
@settings(deadline=None, max_examples=150)
def test_damaged_files_are_read_or_refused_in_words(tmp_path_factory, place, value, suffix):
    path = tmp_path_factory.getbasetemp() / f"damaged.{suffix}"
    Image.fromarray(RGB).save(path)
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] = value
    path.write_bytes(data)
    try:
        assert read_photo(path).pixels.ndim in (2, 3)
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(InputError, match="gone.png does not exist"):
        read_photo(tmp_path / "gone.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match="folder.png"):
        read_photo(tmp_path / "folder.png")


def test_other_formats_are_no_photos(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "x.png", "GIF")
    with pytest.raises(InputError, match="x.png is no image this reads"):
        read_photo(tmp_path / "x.png")


def test_bombs_are_refused_with_their_size(tmp_path, monkeypatch):
    Image.fromarray(GREY).save(tmp_path / "x.png")
    monkeypatch.setattr(images, "LARGEST", 53)
    with pytest.raises(InputError, match="x.png is 9x6 pixels; at most 53"):
        read_photo(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(InputError, match="x.png is too large: Image size \\(54 pixels\\)"):
        read_photo(tmp_path / "x.png")


def test_dark_16_bit_photos_are_pointed_out(tmp_path, caplog):
    write_png(tmp_path / "x.png", DEEP // 16)
    for _ in range(2):  # a run reads its photos again and again
        read_photo(tmp_path / "x.png")
    assert f"brightest {DEEP.max() // 16} of 65535" in caplog.text and len(caplog.records) == 1


# for the model, and back


def test_rgb_of_each_kind(tmp_path):
    assert np.array_equal(Photo(RGBA, tmp_path).rgb, RGBA[:, :, :3])
    assert np.array_equal(Photo(GREY, tmp_path).rgb, np.stack([GREY] * 3, axis=2))
    deep = np.array([[0, 128, 129, 257, 65535]], dtype=np.uint16)
    assert Photo(deep, tmp_path).rgb[0, :, 1].tolist() == [0, 0, 1, 1, 255]


@pytest.mark.parametrize("array", [GREY, RGB, RGBA, DEEP], ids=["grey", "rgb", "rgba", "grey16"])
def test_composite_keeps_kind_and_everything_outside(tmp_path, array):
    photo = Photo(array, tmp_path)
    alpha = np.zeros((6, 9), dtype=np.float32)
    alpha[2:4, 3:7] = 1
    out = photo.composite(255 - photo.rgb, alpha)
    assert out.dtype == array.dtype and out.shape == array.shape
    assert np.array_equal(out[alpha == 0], array[alpha == 0])
    assert not np.array_equal(out, array)
    if array is RGBA:
        assert np.array_equal(out[:, :, 3], RGBA[:, :, 3])


def test_composite_of_grey_takes_the_luma(tmp_path):
    generated = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 10, 10]]], dtype=np.uint8)
    ones = np.ones((1, 4), dtype=np.float32)
    grey = Photo(np.zeros((1, 4), dtype=np.uint8), tmp_path)
    assert grey.composite(generated, ones).tolist() == [[76, 150, 29, 10]]
    deep = Photo(np.zeros((1, 4), dtype=np.uint16), tmp_path)
    assert deep.composite(generated, ones).tolist() == [[19595, 38469, 7471, 2570]]


def test_composite_refuses_another_size(tmp_path):
    with pytest.raises(ValueError, match="expected \\(6, 9, 3\\) uint8"):
        Photo(GREY, tmp_path).composite(np.zeros((6, 8, 3), dtype=np.uint8), np.zeros((6, 9)))


# masks


def square(level=255, dtype=np.uint8):
    array = np.zeros((6, 9), dtype=dtype)
    array[1:3, 2:5] = level
    return array


@pytest.mark.parametrize("array", [square(), square() > 0, square(65535, np.uint16)], ids=["8 bit", "1 bit", "16 bit"])
def test_binary_masks(tmp_path, array):
    Image.fromarray(array).save(tmp_path / "m.png")
    read = read_mask(tmp_path / "m.png", (6, 9))
    assert np.array_equal(read.mask, square() > 0) and not read.grey


def test_grey_masks_are_cut_at_half_and_said(tmp_path):
    array = square()
    array[4, 3:7] = (1, 127, 128, 254)
    write_png(tmp_path / "m.png", array)
    read = read_mask(tmp_path / "m.png")
    assert read.grey and read.mask.sum() == 8 and read.mask[4].nonzero()[0].tolist() == [5, 6]
    deep = square(65535, np.uint16)
    deep[4, 3:5] = (32767, 32768)
    write_png(tmp_path / "d.png", deep)
    assert read_mask(tmp_path / "d.png").grey and read_mask(tmp_path / "d.png").mask[4].nonzero()[0].tolist() == [4]


def test_coloured_masks_count_and_transparent_paint_does_not(tmp_path):
    red = np.zeros((6, 9, 3), dtype=np.uint8)
    red[1:3, 2:5, 0] = 255
    write_png(tmp_path / "r.png", red)
    assert np.array_equal(read_mask(tmp_path / "r.png").mask, square() > 0)
    layer = np.full((6, 9, 4), 255, dtype=np.uint8)
    layer[:, :, 3] = square()
    write_png(tmp_path / "l.png", layer)
    read = read_mask(tmp_path / "l.png")
    assert np.array_equal(read.mask, square() > 0) and not read.grey


def test_numbers_of_classes_are_no_mask(tmp_path):
    """0 and 1 with a white line around the class would teach the line; soft edges are no classes."""
    labels = np.zeros((40, 40), np.uint8)
    labels[8:32, 8:32] = 255
    labels[10:30, 10:30] = 1
    write_png(tmp_path / "labels.png", labels)
    with pytest.raises(InputError, match="holds 1 in 400 of 576 pixels that are not black, and marks start"):
        read_mask(tmp_path / "labels.png")
    Image.fromarray(np.where(labels, 255, 0).astype(np.uint8)).save(tmp_path / "lifted.jpg", quality=70)  # black is 1
    assert read_mask(tmp_path / "lifted.jpg").mask.sum() == 576
    y, x = np.mgrid[:40, :40] - 20.0
    soft = np.rint(255 * np.exp(-(x**2 + y**2) / 40)).astype(np.uint8)
    write_png(tmp_path / "soft.png", soft)
    assert (soft > 0).sum() > 4 * read_mask(tmp_path / "soft.png").mask.sum() > 0


def test_a_mask_on_its_side_is_told(tmp_path):
    Image.fromarray(square()).resize((30, 20)).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match="is 30x20, its image 20x30; .* one of them lies on its side"):
        read_mask(tmp_path / "mask.png", (30, 20))


def test_masks_of_another_size_empty_or_full_are_refused(tmp_path):
    write_png(tmp_path / "m.png", square())
    with pytest.raises(InputError, match="m.png is 9x6, its image 9x7"):
        read_mask(tmp_path / "m.png", (7, 9))
    write_png(tmp_path / "e.png", square(0))
    with pytest.raises(InputError, match="e.png \\(9x6\\) is empty;"):
        read_mask(tmp_path / "e.png")
    write_png(tmp_path / "f.png", square(0) + 255)
    with pytest.raises(InputError, match="f.png \\(9x6\\) marks the whole image"):
        read_mask(tmp_path / "f.png")
    write_png(tmp_path / "one.png", square(1))
    with pytest.raises(InputError, match="marks start at 128; if it counts in 0 and 1, multiply it by 255, or let"):
        read_mask(tmp_path / "one.png")


# writing


@given(data=st.data(), kind=st.sampled_from(["grey", "rgb", "rgba", "deep"]))
@settings(deadline=None, max_examples=40)
def test_png_round_trip(tmp_path_factory, data, kind):
    height, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    shape = (height, width) + {"rgb": (3,), "rgba": (4,)}.get(kind, ())
    dtype = np.uint16 if kind == "deep" else np.uint8
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    array = rng.integers(0, np.iinfo(dtype).max + 1, size=shape, dtype=dtype)
    path = tmp_path_factory.getbasetemp() / "round.png"
    write_png(path, array)
    back = read_photo(path).pixels
    assert back.dtype == dtype and np.array_equal(back, array)


def test_write_png_makes_folders_and_leaves_nothing_else(tmp_path):
    write_png(tmp_path / "a" / "b" / "x.png", square() > 0)
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["x.png"]
    assert np.array_equal(read_photo(tmp_path / "a" / "b" / "x.png").pixels, square())


def test_write_png_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    write_png(tmp_path / "x.png", GREY)

    def full(self, file, format, pnginfo):
        file.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space"):
        write_png(tmp_path / "x.png", RGB)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
    assert np.array_equal(read_photo(tmp_path / "x.png").pixels, GREY)


@pytest.mark.parametrize("array", [GREY.astype(np.float32), RGB[:, :, :2], np.zeros((2, 2, 3), np.uint16)])
def test_write_png_refuses_what_a_png_would_change(tmp_path, array):
    with pytest.raises(ValueError, match="expected uint8 grey"):
        write_png(tmp_path / "x.png", array)
    assert not (tmp_path / "x.png").exists()


def test_a_mask_s_path_may_be_text(tmp_path):
    mask = np.eye(6, dtype=bool)
    write_png(tmp_path / "m.png", mask)
    assert np.array_equal(read_mask(str(tmp_path / "m.png")).mask, mask)
