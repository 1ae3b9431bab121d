"""The page stands alone, shows what it was given, and escapes it."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from adiff.contact_sheet import Block, Pair
from adiff.report import Report, write_report
from adiff.report.places import CELLS


def make_report(blocks, **changes) -> Report:
    content = {
        "title": "Defects", "lead": "What was done.", "blocks": blocks, "command": "adiff demo --out 'a & b'",
        "settings": {"Generation": {"steps": 30, "mode": "<balanced>", "crop": None, "lookahead": False}},
        "seconds": {"load": 30.0, "generate": 90.0},
    }  # fmt: skip
    return Report(**{**content, **changes})


@pytest.fixture
def write(tmp_path, read_page):
    """Write a report of blocks and read the page."""
    return lambda blocks, limit=24, **changes: read_page(
        write_report(tmp_path / "new" / "r.html", make_report(blocks, **changes), limit=limit)
    )


def decoded(source: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1])))


def test_nothing_outside_the_page_is_needed(write, make_pair):
    shot = make_pair(8)
    page = write([Block("metal", "scratch", [(shot.normal, shot.mask)], [make_pair()])])
    sources = [a["src"] for a in page.all("img")]
    assert all(source.startswith("data:") for source in sources)
    pictures = [source for source in sources if source != "data:,"]
    assert len(pictures) == 7 and {decoded(source).size for source in pictures} == {(40, 40), (CELLS, CELLS)}
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "embed", "base")]
    assert not [a for _, a in page.tags if set(a) & {"href", "xlink:href", "srcset", "action"}]
    assert all("src" not in a for a in page.all("script"))
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", page.source)


def test_the_page_is_well_formed_with_any_number_of_pairs(write, make_pair):
    for blocks in ([], [Block("a", "b", [], [])], [Block("a", d, [], [make_pair(i) for i in range(2)]) for d in "bc"]):
        page = write(blocks)
        assert page.astray == [] and page.all("html") and page.all("title")


def test_small_pictures_come_back_as_they_were_and_large_ones_nearly(write, make_pair):
    (small,) = write([Block("a", "b", [], [make_pair()])]).all("img", class_="generated")
    assert np.array_equal(np.asarray(decoded(small["src"])), make_pair().generated)
    smooth = np.broadcast_to(np.linspace(40, 200, 300).astype(np.uint8)[:, None, None], (300, 300, 3)).copy()
    mask = np.zeros((300, 300), bool)
    mask[50:250, 50:250] = True
    page = write([Block("a", "b", [], [Pair(smooth, mask, smooth, {"id": "x"})])])
    (large,), (drawn,) = page.all("img", class_="generated"), page.all("img", alt="mask")
    assert large["src"].startswith("data:image/jpeg") and decoded(large["src"]).size == (300, 300)
    assert np.abs(np.asarray(decoded(large["src"])).astype(int) - smooth).max() < 12
    assert np.array_equal(np.asarray(decoded(drawn["src"]))[..., 0] > 128, mask)


def test_names_and_settings_are_escaped(write, make_pair):
    name = "\"><script>alert(1)</script>"
    page = write([Block("<b>metal</b>", 'scra"tch&', [], [make_pair(id=name, normal=name)])])
    assert "<b>metal</b>" not in page.source and "<script>alert" not in page.source and page.astray == []
    for said in ("<b>metal</b>", 'scra"tch&', "<balanced>", "adiff demo --out 'a & b'", name):
        assert said in page.text
    (card,) = page.all("figure", class_="pair")
    assert card["data-id"] == name and card["data-defect"] == '<b>metal</b>/scra"tch&'


def test_settings_are_told_for_people(write):
    page = write([])
    values = dict(re.findall(r"<dt>(\w+)</dt><dd>(.*?)</dd>", page.source))
    assert values["steps"] == "30" and values["crop"] == "–" and values["lookahead"] == "no"


def test_numbers_and_phases_are_told(write, make_pair):
    page = write([Block("metal", "scratch", [], [make_pair(i, fill) for i, fill in enumerate((0.2, 0.6, 0.7))])])
    assert "0.60" in page.words and "0.20" in page.words and "40.0 %" in page.words
    assert "2 min 00 s" in page.words and "load 30.0 s" in page.words and "generate 1 min 30 s" in page.words
    assert [a["style"] for a in page.all("i") if a.get("style", "").startswith("width:25")] == ["width:25.00%"]


def test_pairs_beyond_the_limit_are_counted_and_their_measures_drawn(write, make_pair):
    pairs = [make_pair(i, i / 10) for i in range(10)]
    page = write([Block("metal", "scratch", [], pairs)], limit=4)
    assert [card["data-id"] for card in page.all("figure", class_="pair")] == ["00000", "00002", "00005", "00007"]
    assert "4 of 10 shown" in page.words
    titles = re.findall(r"<title>([^<]*)</title></rect>", page.source)
    assert sum(int(told.rsplit(": ", 1)[1]) for told in titles) == 10  # of fill; area and leak are all the same
    assert "shown, evenly picked" not in write([Block("metal", "scratch", [], pairs)]).words


def test_pairs_can_be_filtered_by_what_they_carry(write, make_pair):
    blocks = [
        Block("metal", "scratch", [], [make_pair(1, 0.25, normal="n 7.png", seam=1.5, novelty=0.1)]),
        Block("wood", "hole", [], [make_pair(2, None)]),
    ]
    page = write(blocks)
    one, two = page.all("figure", class_="pair")
    assert (one["data-defect"], one["data-fill"], one["data-seam"]) == ("metal/scratch", "0.25", "1.5")
    assert {"00001", "n", "7.png", "1"} == set(one["data-text"].split())
    assert (two["data-defect"], two["data-fill"], two["data-novelty"]) == ("wood/hole", "", "")
    assert page.all("select", class_="by-defect") and page.all("input", class_="by-fill", type="range")
    assert page.all("input", class_="by-text", type="search")
    assert [a["value"] for a in page.all("option") if "value" in a] == ["", "", "fill asc", "seam desc", "novelty asc"]
    assert page.all("form", class_="filter")[0].keys() >= {"hidden"}  # shown by the script, without which it is idle
    assert not write(blocks[:1]).all("select", class_="by-defect")


def test_the_slider_needs_the_normal_images(write, make_pair):
    pair = make_pair()
    with_normal = write([Block("a", "b", [], [pair])])
    (slider,) = with_normal.all("input", class_="slider")
    assert slider["type"] == "range" and with_normal.all("img", class_="before")
    assert with_normal.all("img", alt="change") and "No comparison" not in with_normal.words
    alone = write([Block("a", "b", [], [Pair(None, pair.mask, pair.generated, pair.record)])])
    assert not alone.all("input", class_="slider") and not alone.all("img", class_="before")
    assert not alone.all("img", alt="change") and alone.all("img", alt="mask")
    assert alone.words.count("No comparison of before and after: the normal images were not given") == 1


def test_what_was_not_measured_shows_as_a_dash_or_not_at_all(write, make_pair):
    page = write([Block("a", "b", [], [make_pair(0, None)])], seconds={})
    assert "–" in page.text and "None" not in page.text and "NaN" not in page.text
    assert not page.all("figure", class_="histogram") and "Time" not in page.words
    assert "–" in write([]).text


def test_likeness_stands_beside_that_of_the_shots(write, make_pair):
    page = write([Block("a", "b", [], [make_pair(0, likeness=1.25, likeness_shots=0.5)])])
    assert "1.25 (0.50)" in page.words and "median distance to a shot, 0.50 among the shots" in page.words


def test_a_failing_write_leaves_the_old_page(tmp_path):
    path = write_report(tmp_path / "r.html", make_report([]))
    before = path.read_bytes()
    torn = Pair(np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), bool), np.zeros((3, 4, 3), np.uint8))
    with pytest.raises(ValueError):
        write_report(path, make_report([Block("a", "b", [], [torn])]))
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
