"""The font of pictures with words in them: Pillow's own, or one of the system's for names that it cannot write."""

from __future__ import annotations

from functools import lru_cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

OF_SYSTEMS = (
    "DejaVuSans.ttf", "arial.ttf", "Arial.ttf", "NotoSansCJK-Regular.ttc", "msyh.ttc", "malgun.ttf", "YuGothM.ttc",
    "PingFang.ttc", "Hiragino Sans GB.ttc", "Arial Unicode.ttf",
)  # fmt: skip
"""Files of fonts that Linux, Windows and macOS have, those of Chinese, Korean and Japanese last."""
NO_LETTER = "\U0010ffff"
"""What no font has: it is drawn as every letter that a font lacks."""


def font_for(text: str, size: int) -> Font:
    """The font that has most letters of a text, the first of those that have as many. size: pixels."""
    letters = {letter for letter in text if not letter.isspace()}
    best, most = None, -1
    for name in (None, *OF_SYSTEMS):
        if (font := _opened(name, size)) is not None and (count := _covered(font, letters)) > most:
            best, most = font, count
        if most == len(letters):
            break
    return best


@lru_cache
def _opened(name: str | None, size: int) -> Font | None:
    """A font of the system's, None if it is not there; no name: Pillow's own."""
    try:
        return ImageFont.load_default(size) if name is None else ImageFont.truetype(name, size)
    except OSError:
        return None


def _covered(font: Font, letters: set[str]) -> int:
    missing = bytes(font.getmask(NO_LETTER))
    return sum(bytes(font.getmask(letter)) != missing for letter in letters)
