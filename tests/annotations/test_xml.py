"""Marks in XML: CVAT's own, and Pascal VOC's boxes, worked out by hand."""

import json

import numpy as np
import pytest

from adiff.annotations import is_annotated, read_annotations
from adiff.errors import InputError

SQUARE = np.zeros((12, 16), bool)
SQUARE[3:7, 2:6] = True
"""Columns 2 to 5, rows 3 to 6."""
POLYGON = '<polygon label="dent" points="2.00,3.00;5.90,3.10;5.00,6.00;2.00,6.50"></polygon>'


def cvat(folder, *shapes, attributes='height="12" width="16"', name="0.png"):
    image = f'<image id="0" name="{name}" {attributes}><tag label="seen"/>{"".join(shapes)}</image>'
    bare = '<image id="1" name="1.png" width="16" height="12"></image>'
    path = folder / "annotations.xml"
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?><annotations><meta/>{image}{bare}</annotations>')
    return path


@pytest.mark.parametrize(
    "shape",
    [
        POLYGON,
        '<box label="dent" xtl="2.0" ytl="3.0" xbr="6.0" ybr="7.0" z_order="0"><attribute name="a">1</attribute></box>',
        '<box label="dent" xtl="2.1" ytl="3.1" xbr="5.9" ybr="6.9" rotation="90.0"/>',
        '<mask label="dent" rle="6, 4, 1, 4, 1, 4, 1, 4" left="1" top="2" width="5" height="5"/>',
        '<mask label="dent" rle="0,16" left="2" top="3" width="4" height="4"/>',
    ],
)
def test_cvat(photos, shape):
    for given in (cvat(photos, shape), photos):
        first, second = read_annotations([given])
        assert first.image == photos / "0.png" and first.size == (12, 16)
        assert [mark.label for mark in first.marks] == ["dent"] and second.marks == ()
        assert np.array_equal(first.marks[0].draw((12, 16)), SQUARE)
        assert first.marks[0].box == shape.startswith("<box")
    assert is_annotated(photos)


def test_cvat_shapes_that_are_turned(photos):
    box = '<box label="dent" xtl="2.1" ytl="5.1" xbr="9.9" ybr="6.9" rotation="90"/>'
    ellipse = '<ellipse label="hole" cx="8" cy="6" rx="4.2" ry="0.2" rotation="90"/>'
    first, _ = read_annotations([cvat(photos, box, ellipse)])
    wanted = np.zeros((2, 12, 16), bool)
    wanted[0, 2:10, 5:7] = wanted[1, 1:11, 7:9] = True
    assert np.array_equal(first.marks[0].draw((12, 16)), wanted[0])
    assert np.array_equal(first.marks[1].draw((12, 16)), wanted[1])


def test_cvat_marks_without_an_area(photos):
    lines = ('<polyline label="a" points="1,2;3,4;5,6"/>', '<points label="b" points="1,2"/>',
             '<polygon label="c" points="1,2;3,4"/>', '<box label="d" xtl="3" ytl="3" xbr="3" ybr="9"/>')  # fmt: skip
    first, _ = read_annotations([cvat(photos, *lines)])
    assert [(mark.label, mark.draw) for mark in first.marks] == [(label, None) for label in "abcd"]


def test_cvat_photos_of_a_project(photos):
    (photos / "images" / "Train").mkdir(parents=True)
    (photos / "0.png").rename(photos / "images" / "Train" / "0.png")
    path = cvat(photos, POLYGON, attributes='subset="Train" height="12" width="16"')
    assert read_annotations([path])[0].image == photos / "images" / "Train" / "0.png"
    path = cvat(photos, POLYGON, attributes='subset="../.." height="12" width="16"')
    assert "its image '../../0.png' is not in" in refused(path)


def refused(path, images=None):
    with pytest.raises(InputError) as told:
        for one in read_annotations([path], images):
            for mark in one.marks:
                mark.draw((12, 16))
    return str(told.value)


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ('<polygon label="" points="1,2;3,4;5,6"/>', "image 0, shape 1 has the label ''"),
        ('<polygon label="a" points="1,2;3;5,6"/>', "image 0, shape 1 has a place that is no list of x and y"),
        ('<polygon label="a" points="1,2;3,x;5,6"/>', "has ['3', 'x']; expected pixels from the photo's corner"),
        ('<polygon label="a" points="1,2;3,1e30;5,6"/>', "expected pixels from the photo's corner"),
        ('<box label="a" xtl="1" ytl="nan" xbr="2" ybr="2"/>', "expected pixels from the photo's corner"),
        ('<mask label="a" rle="1,2" left="1" top="1" width="2" height="2"/>', "run lengths that are damaged: they do"),
        ('<mask label="a" rle="" left="1" top="1" width="0" height="2"/>', "run lengths that are damaged: 0 x 2"),
        ('<mask label="a" rle="1" left="1" top="1" width="99999" height="99999"/>', "run lengths that are damaged"),
    ],
)
def test_damaged_cvat(photos, shape, told):
    assert told in refused(cvat(photos, shape))


def test_other_xml(photos):
    path = cvat(photos, POLYGON)
    path.write_text("<annotations><track/></annotations>")
    assert "holds tracks of a video; export CVAT for images, or COCO" in refused(path)
    path.write_text("<annotations>")
    assert "is damaged (no XML: no element found" in refused(path)
    assert "mend it, or take it out" in refused(photos)
    path.write_text("<a/>")
    assert "no annotations in" in refused(photos) and "expected COCO's .json" in refused(path)


def voc(path, *objects, size="<size><width>16</width><height>12</height></size>"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation><filename>other.jpg</filename>{size}{''.join(objects)}</annotation>")
    return path


BOX = "<object><name>dent</name><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>6</xmax><ymax>7</ymax></bndbox></object>"
OUTLINE = BOX.replace("</bndbox>", "</bndbox><polygon><x1>2</x1><y1>3</y1><x2>5</x2><y2>3</y2><x3>5</x3><y3>6</y3>"
                      "<x4>2.0</x4><y4>6</y4></polygon>")  # fmt: skip


@pytest.mark.parametrize("place", ["{}.xml", "Annotations/{}.xml"])
@pytest.mark.parametrize(("marked", "is_box"), [(BOX, True), (OUTLINE, False)])
def test_voc_boxes(photos, place, marked, is_box, caplog):
    voc(photos / place.format(0), marked)
    voc(photos / place.format(1), size="<size><width>0</width><height>0</height></size>")
    (photos / "JPEGImages").mkdir()
    if "/" in place:
        (photos / "0.png").rename(photos / "JPEGImages" / "0.png")
    first, second = read_annotations([photos])
    assert first.image.name == "0.png" and first.size == (12, 16) and second.marks == () and second.size is None
    assert [(mark.label, mark.box) for mark in first.marks] == [("dent", is_box)]
    assert np.array_equal(first.marks[0].draw((12, 16)), SQUARE)
    assert "photos without an XML file: 2 of 4; they are left out" in caplog.text and is_annotated(photos)


def test_voc_boxes_with_their_photos_elsewhere(photos, tmp_path):
    path = voc(tmp_path / "xml" / "0.xml", BOX)
    assert len(read_annotations([path], photos)) == len(read_annotations([path.parent], photos)) == 1
    assert "its photo, which has its name, is not in" in refused(path)
    (photos / "a").mkdir()
    (photos / "a" / "0.jpg").write_bytes(b"")
    assert "its photo, which has its name, may be" in refused(path, photos)
    assert len(read_annotations([voc(photos / "0.xml", BOX)])) == 1  # beside its photo
    voc(tmp_path / "xml" / "b" / "3.xml", BOX)
    voc(tmp_path / "xml" / "a" / "3.xml", BOX)
    path.unlink()
    assert "and another file of its name tell of one photo" in refused(tmp_path / "xml", photos)


def test_damaged_voc_boxes(photos):
    for change, told in (
        (("dent", " "), "object 0 has the label ' '"),
        (("<xmin>3</xmin>", ""), "object 0 has [None, '4', '6', '7']; expected pixels"),
        (("<ymax>7", "<ymax>x"), "object 0 has ['3', '4', '6', 'x']; expected pixels"),
    ):
        assert told in refused(voc(photos / "0.xml", BOX.replace(*change)))


def test_json_counts_before_xml(photos, labelme):
    voc(photos / "0.xml", BOX)
    labelme(0, ("scratch", "rectangle", [[1, 1], [3, 3]]))
    found = {one.image.name: one.marks for one in read_annotations([photos])}
    assert found["0.png"][0].label == "scratch" and len(found) == 4


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ([{"id": 1, "data": {"image": "/data/upload/1/0.png"}, "annotations": []}], "Label Studio's own"),
        ([{"id": 1, "image": "/data/upload/1/0.png", "annotation_id": 1}], "Label Studio's JSON-MIN"),
        ({"0.png123": {"filename": "0.png", "size": 123, "regions": []}}, "VIA's"),
        ({"_via_img_metadata": {"0.png123": {"filename": "0.png", "regions": []}}}, "VIA's"),
        ({"name": "project", "assets": {}}, "VoTT's"),
        ({"info": {}, "categories": {"label": {}}, "items": []}, "Datumaro's"),
    ],
)
def test_what_other_programs_write(photos, content, kind):
    path = photos / "project.json"
    path.write_text(json.dumps(content))
    for given in (path, photos):
        told = refused(given)
        assert f"project.json is in {kind} format, which is not read; export COCO from that program instead" in told
    assert is_annotated(photos)  # so that a graph says it too
    cvat(photos, POLYGON)
    path.unlink()
    assert len(read_annotations([photos])) == 2
