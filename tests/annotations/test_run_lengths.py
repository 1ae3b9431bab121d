"""Run lengths in a CSV, as of Severstal's steel, worked out by hand; and Label Studio's brush labels, refused."""

import numpy as np
import pytest
from PIL import Image

from adiff.annotations import is_annotated, read_annotations, write_dataset
from adiff.errors import InputError

SIZE = (12, 16)


def write(folder, *rows, head="ImageId,ClassId,EncodedPixels", name="train.csv"):
    (folder / name).write_text("\n".join((head, *rows)) + "\n")
    return folder / name


def marked(path, images=None):
    """Photo -> label -> (first pixel, pixels marked)."""
    found = {}
    for one in read_annotations([path], images):
        drawn = {mark.label: mark.draw(SIZE) for mark in one.marks}
        found[one.image.name] = {k: (tuple(np.argwhere(m)[0].tolist()), int(m.sum())) for k, m in drawn.items()}
    return found


def test_runs_go_down_the_columns_from_one_on(photos):
    path = write(photos, "0.png,1,1 2 13 1", "2.png,3,192 1", "2.png,4,15 3")
    mask = read_annotations([path])[0].marks[0].draw(SIZE)
    assert {tuple(place) for place in np.argwhere(mask).tolist()} == {(0, 0), (1, 0), (0, 1)}
    wanted = {"0.png": {"1": ((0, 0), 3)}, "2.png": {"3": ((11, 15), 1), "4": ((2, 1), 3)}, "1.png": {}, "3.png": {}}
    assert marked(path) == marked(photos) == wanted
    path = write(photos.parent, *path.read_text().splitlines()[1:])
    with pytest.raises(InputError, match="its image '0.png' is not in"):
        read_annotations([path])
    assert marked(path, photos) == wanted
    photos.rename(photos.parent / "train_images")
    assert marked(path) == wanted
    made = write_dataset(read_annotations([path]), photos.parent / "out")
    assert made.shots == {"1": 1, "3": 1, "4": 1} and made.normals == 2


def test_the_columns_of_older_files_and_of_one_defect(photos):
    rows = ('"0.png_1","15 3"', '"0.png_2",', "", '"1.png_1",')
    assert marked(write(photos, *rows, head="ImageId_ClassId,EncodedPixels")) == {
        "0.png": {"1": ((2, 1), 3)}, "1.png": {}, "2.png": {}, "3.png": {},
    }  # fmt: skip
    assert marked(write(photos, "0.png,15 3", head="\ufeffImageId,EncodedPixels"))["0.png"] == {"defect": ((2, 1), 3)}


@pytest.mark.parametrize(
    "runs", ["0 1", "1", "1 0", "192 2", "1 193", "x 1", "1.5 1", "9" * 30 + " 1", f"1 {2**63 - 1}"]
)
def test_runs_that_cannot_be(photos, runs):
    photo, *_ = read_annotations([write(photos, "1.png,1,1 1", f"0.png,1,{runs}")])[1:]
    with pytest.raises(InputError, match=r"train.csv: line 3 has .* for run lengths; expected start and length"):
        photo.marks[0].draw(SIZE)


def test_what_is_refused(photos):
    with pytest.raises(InputError, match="line 2 has 2 cells, the first line 3"):
        read_annotations([write(photos, "0.png,1 1")])
    write(photos, "0.png,1,1 1")
    write(photos, "3.png,0,1 1", name="sample_submission.csv")
    with pytest.raises(InputError, match="sample_submission.csv and .*train.csv hold run lengths; give the one with"):
        read_annotations([photos])
    assert is_annotated(photos)
    with pytest.raises(InputError, match="no annotations in .*other.csv; expected COCO's"):
        read_annotations([write(photos, "1,2", head="a,b", name="other.csv")])
    for name in ("train.csv", "sample_submission.csv"):
        (photos / name).unlink()
    (photos / "other.csv").write_bytes(b"\xff\xfe\x00")
    assert not is_annotated(photos)


def test_brush_labels_of_label_studio_tell_what_to_export(photos):
    Image.new("L", SIZE[::-1]).save(photos / "task-1-annotation-2-by-1-tag-dent-0.png")
    for given in ([photos], [photos, photos]):
        with pytest.raises(InputError, match="does not tell its photo; export Brush labels to COCO instead"):
            read_annotations(given[:1], *given[1:])
    assert is_annotated(photos)
