"""Which font writes a text."""

from PIL import ImageFont

from adiff import fonts
from adiff.fonts import font_for


class Letters:
    """A font that has these letters."""

    def __init__(self, letters):
        self.letters = letters

    def getmask(self, letter):
        return letter.encode() if letter in self.letters else b"box"


def test_the_first_font_that_has_all_letters(monkeypatch):
    there = {None: Letters("abc"), fonts.OF_SYSTEMS[1]: Letters("abcö"), fonts.OF_SYSTEMS[3]: Letters("abcö裂")}
    monkeypatch.setattr(fonts, "_opened", lambda name, size: there.get(name))
    for text, name in (("a b", None), ("ca ö", fonts.OF_SYSTEMS[1]), ("裂 b", fonts.OF_SYSTEMS[3]), ("ж", None)):
        assert font_for(text, 12) is there[name]


def test_without_such_a_font_that_with_most_letters(monkeypatch):
    there = {None: Letters("abc"), fonts.OF_SYSTEMS[1]: Letters("abcö"), fonts.OF_SYSTEMS[2]: Letters("abcöü")}
    monkeypatch.setattr(fonts, "_opened", lambda name, size: there.get(name))
    assert font_for("ö 划痕", 12) is there[fonts.OF_SYSTEMS[1]]
    assert font_for("öü 划痕", 12) is there[fonts.OF_SYSTEMS[2]]


def test_pillows_own_writes_plain_names():
    assert font_for("metal/scratch, 3 pairs", 14).getname() == ImageFont.load_default(14).getname()
    assert fonts._covered(ImageFont.load_default(14), set("Röhre")) == 4
