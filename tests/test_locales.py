"""Translations: whole, and readable by the front end's vue-i18n."""

import json
import re

import pytest

from tools.templates.schema import OURS, ROOT, read_snapshot

LANGUAGES = {"zh": r"[\u4e00-\u9fff]", "ko": r"[\uac00-\ud7a3]", "ja": r"[\u3040-\u30ff\u4e00-\u9fff]"}
"""Each with what its words are written in."""
SAME_IN_ALL = {"VAE", "cfg", "Latent", "U-Net"}


@pytest.fixture(scope="module")
def schema():
    return read_snapshot(OURS)


@pytest.fixture(params=LANGUAGES)
def language(request):
    return request.param


@pytest.fixture
def translated(language):
    return json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text("utf-8"))


def texts_of(translated):
    for node in translated.values():
        yield node["display_name"]
        yield node["description"]
        for slot in (*node.get("inputs", {}).values(), *node.get("outputs", {}).values()):
            yield from slot.values()


def test_every_node_and_nothing_else(schema, translated):
    assert list(translated) == list(schema)


def test_every_input_and_output(schema, translated):
    for name, definition in schema.items():
        node = translated[name]
        assert set(node.get("inputs", {})) == {one.name for one in definition.inputs}, name
        assert list(node.get("outputs", {})) == [str(index) for index in range(len(definition.outputs))], name
        for slot in (*node.get("inputs", {}).values(), *node.get("outputs", {}).values()):
            assert set(slot) == {"name", "tooltip"}, name


def test_every_text_is_in_its_language(translated, language):
    for text in texts_of(translated):
        assert text == text.strip() and text
        assert text in SAME_IN_ALL or re.search(LANGUAGES[language], text), text


def test_no_text_holds_what_vue_i18n_would_interpret(translated):
    for text in texts_of(translated):
        assert not re.search(r"[{}@|]", text), text


def test_choices_keep_their_names(schema, translated):
    """Options of a list are not translated, so a tooltip must name them as they stand there."""
    for name in ("ADiffApplyReweighting", "ADiffKSampler"):
        for one in schema[name].inputs:
            if one.name in ("reweighting", "distance"):
                tooltip = translated[name]["inputs"][one.name]["tooltip"]
                assert [option for option in one.options["options"] if option not in tooltip] == []
