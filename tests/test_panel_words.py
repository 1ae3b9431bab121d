"""The library panel's words: each in every language, with the same places to fill in."""

import json
import re

import pytest

from tools.templates.schema import ROOT

FOLDER = ROOT / "web" / "library"
WORDS = dict(re.findall(r'^  (\w+): "(.*)",$', (FOLDER / "words.js").read_text("utf-8"), re.MULTILINE))


@pytest.fixture(params=["zh", "ko", "ja"])
def translated(request):
    return json.loads((ROOT / "locales" / request.param / "main.json").read_text("utf-8"))["adiffPanel"]


def test_every_word_and_nothing_else_is_translated(translated):
    assert len(WORDS) > 40 and list(translated) == list(WORDS)
    for key, text in translated.items():
        assert sorted(re.findall(r"{\w+}", text)) == sorted(re.findall(r"{\w+}", WORDS[key])), key
        assert text.strip() and not re.search(r"[@|]", text), key


def test_the_panel_says_what_it_has_words_for():
    source = "".join(path.read_text("utf-8") for path in FOLDER.parent.rglob("*.js"))
    said = set(re.findall(r'"(\w+)"', " ".join(re.findall(r"say\(([^)]*)", source))))
    assert said == set(WORDS)
