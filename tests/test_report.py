"""The report stands alone, shows what it was given, and escapes it."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from adiff.contact_sheet import Block, Pair
from adiff.report import Report, summarise, write_report


class Page(HTMLParser):
    """Tags with their attributes, and the text outside style."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.text, self._open = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" not in self._open:
            self.text += data


def make_pair(index: int, fill: float | None = 0.5) -> Pair:
    rng = np.random.default_rng(index)
    normal = rng.integers(0, 256, (40, 40, 3), np.uint8)
    mask = np.zeros((40, 40), bool)
    mask[5:30, 5:30] = True
    measures = {} if fill is None else {"fill": fill, "leak": 0.0, "area": 0.4}
    record = {"id": f"{index:05d}", "seed": 1, **measures}
    return Pair(normal, mask, np.where(mask[..., None], 0, normal), record)


def make_report(blocks, **changes) -> Report:
    content = {
        "title": "Defects", "lead": "What was done.", "blocks": blocks, "command": "adiff demo --out 'a & b'",
        "settings": {"Generation": {"steps": 30, "mode": "<balanced>"}}, "seconds": {"load": 30.0, "generate": 90.0},
    }  # fmt: skip
    return Report(**{**content, **changes})


def read(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_nothing_outside_the_page_is_needed(tmp_path):
    shots = [(make_pair(8).normal, make_pair(8).mask)]
    blocks = [Block("metal", "scratch", shots, [make_pair(0)])]
    page = read(write_report(tmp_path / "new" / "r.html", make_report(blocks)))
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 5
    for source in images:
        kind, data = source.split(",", 1)
        assert kind == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (40, 40)
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object")]
    assert not [value for _, attributes in page.tags for name, value in attributes.items() if name == "href"]


def test_pictures_come_back_as_they_were(tmp_path):
    pair = make_pair(0)
    page = read(write_report(tmp_path / "r.html", make_report([Block("metal", "scratch", [], [pair])])))
    sources = {attributes["alt"]: attributes["src"] for tag, attributes in page.tags if tag == "img"}
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(sources["generated"].split(",", 1)[1]))))
    assert np.array_equal(decoded, pair.generated)


def test_names_and_settings_are_escaped(tmp_path):
    block = Block("<b>metal</b>", 'scra"tch&', [], [make_pair(0)])
    path = write_report(tmp_path / "r.html", make_report([block]))
    page = read(path)
    assert "<b>metal</b>" not in path.read_text(encoding="utf-8")
    for said in ("<b>metal</b>", 'scra"tch&', "<balanced>", "adiff demo --out 'a & b'"):
        assert said in page.text


def test_numbers_phases_and_hidden_pairs_are_told(tmp_path):
    pairs = [make_pair(i, fill) for i, fill in enumerate((0.2, 0.6, 0.7))]
    page = read(write_report(tmp_path / "r.html", make_report([Block("metal", "scratch", [], pairs)]), limit=2))
    text = " ".join(page.text.split())
    assert "0.60" in text and "0.20" in text and "40.0 %" in text
    assert "2 min 00 s" in text and "load 30.0 s" in text and "generate 1 min 30 s" in text
    assert "1 more is in the run's folder" in text
    widths = [a["style"] for tag, a in page.tags if tag == "i" and a.get("style", "").startswith("width:25")]
    assert widths == ["width:25.00%"]  # 30 s of 120 s


def test_what_was_not_measured_shows_as_a_dash(tmp_path):
    page = read(write_report(tmp_path / "r.html", make_report([Block("a", "b", [], [make_pair(0, None)])], seconds={})))
    assert "–" in page.text and "None" not in page.text
    assert read(write_report(tmp_path / "e.html", make_report([]))).text.count("–") >= 3


def test_the_summary_is_median_lowest_and_largest():
    records = [
        {"fill": 0.2, "leak": 0.0, "area": 0.01, "mask": {"iou": 0.5}},
        {"fill": 0.9, "leak": 3.0, "area": 0.03, "mask": {"iou": 0.9}},
        {"fill": 0.8, "leak": 0.0, "area": 0.02, "mask": {"kind": "file"}},
    ]
    assert summarise(records) == {"pairs": 3, "fill": 0.8, "fill_low": 0.2, "leak": 3.0, "area": 0.02, "iou": 0.7}
    assert summarise([]) == {"pairs": 0, "fill": None, "fill_low": None, "leak": None, "area": None, "iou": None}


def test_a_failing_write_leaves_the_old_page(tmp_path):
    path = write_report(tmp_path / "r.html", make_report([]))
    before = path.read_bytes()
    torn = Pair(np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), bool), np.zeros((5, 4, 3), np.uint8))
    with pytest.raises(ValueError):
        write_report(path, make_report([Block("a", "b", [], [torn])]))
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
