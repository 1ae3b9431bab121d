"""A page taken apart, and pairs to show."""

from html.parser import HTMLParser

import numpy as np
import pytest

from adiff.contact_sheet import Pair

VOID = {"meta", "img", "input", "link", "br"}


class Page(HTMLParser):
    """Tags with their attributes, the text outside style and script, and whatever was closed that was not open."""

    def __init__(self, text: str):
        super().__init__()
        self.source, self.tags, self.text, self.astray, self._open = text, [], "", [], []
        self.feed(text)
        self.close()
        self.astray += self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if self._open and self._open[-1] == tag:
            self._open.pop()
        else:
            self.astray.append(f"/{tag}")

    def handle_data(self, data):
        if not {"style", "script"} & set(self._open):
            self.text += data

    def all(self, tag, **attributes):
        """Attributes of each such tag; class_: one of its classes."""
        wanted = attributes.pop("class_", None)
        found = [a for name, a in self.tags if name == tag and attributes.items() <= a.items()]
        return [a for a in found if wanted is None or wanted in a.get("class", "").split()]

    @property
    def words(self):
        return " ".join(self.text.split())


@pytest.fixture(scope="session")
def read_page():
    """Read a page's file."""
    return lambda path: Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def make_pair():
    """A maker of pairs: 40 x 40 pixels of noise, black inside the mask."""

    def make(index: int = 0, fill: float | None = 0.5, size: int = 40, **record) -> Pair:
        rng = np.random.default_rng(index)
        normal = rng.integers(0, 256, (size, size, 3), np.uint8)
        mask = np.zeros((size, size), bool)
        mask[5:30, 5:30] = True
        measures = {} if fill is None else {"fill": fill, "leak": 0.0, "area": 0.4}
        about = {"id": f"{index:05d}", "seed": 1, **measures, **record}
        return Pair(normal, mask, np.where(mask[..., None], np.uint8(0), normal), about)

    return make
