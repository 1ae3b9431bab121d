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
    """The first font that has all letters of a text, Pillow's own if there is none. size: pixels."""
    own = _opened(None, size)
    fonts = (own, *(font for name in OF_SYSTEMS if (font := _opened(name, size)) is not None))
    return next((font for font in fonts if _has(font, text)), own)


@lru_cache
def _opened(name: str | None, size: int) -> Font | None:
    """A font of the system's, None if it is not there; no name: Pillow's own."""
    try:
        return ImageFont.load_default(size) if name is None else ImageFont.truetype(name, size)
    except OSError:
        return None


def _has(font: Font, text: str) -> bool:
    missing = bytes(font.getmask(NO_LETTER))
    return all(bytes(font.getmask(letter)) != missing for letter in set(text) if not letter.isspace())
