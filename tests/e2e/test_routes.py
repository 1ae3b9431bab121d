"""The picture of a defect, as the front end asks for it: found by its label alone, never by a path."""

import io
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image


def preview(server, label):
    return server.fetch(f"/adiff/preview?defect={quote(label, safe='')}")


def test_a_known_defect_has_a_picture(server):
    label = server.option("ADiffLoadDefect", "defect", "demo (built in) / metal / scratch")
    status, kind, content = preview(server, label)
    assert (status, kind) == (200, "image/png")
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "PNG" and picture.mode == "RGB" and min(picture.size) >= 32
        assert len(np.unique(np.asarray(picture))) > 100
    bare = label.partition(" @")[0]  # as a template names it
    assert preview(server, bare)[2] == content


def test_a_defect_without_a_picture_says_so(server):
    label = server.option("ADiffLoadDefect", "defect", "things.safetensors / metal / scratch")
    assert preview(server, label) == (404, "text/plain", b"this defect has no picture")


@pytest.mark.parametrize(
    "label",
    [
        "", " ", "x", " /  / ", "metal/scratch", "things.safetensors", "\0", "\N{BUG} / a / b",
        "{root}/models/adiff_libraries/things.safetensors / metal / scratch",
        "../adiff_libraries/things.safetensors / metal / scratch",
        "..\\adiff_libraries\\things.safetensors / metal / scratch",
        "../../../elsewhere/plain.safetensors / metal / scratch",
        "damaged.safetensors / metal / scratch", "foreign.pt / metal / scratch", "/etc/passwd / root / x @12345678",
        "x" * 4000, f"things.safetensors / metal / {'s' * 4000}", f"things.safetensors{' / x' * 300}",
    ],
    ids=lambda label: ascii(label[:30]),
)  # fmt: skip
def test_what_is_no_label_of_the_list_is_not_found(server, label):
    status, kind, content = preview(server, label.replace("{root}", str(server.base)))
    assert (status, kind) == (404, "text/plain")
    assert content == b"no library holds this defect"


def test_no_label_at_all_is_not_found(server):
    assert server.fetch("/adiff/preview")[0] == 404
    assert server.fetch("/adiff/preview?defect=%ff%fe")[0] == 404
    assert server.fetch("/adiff/preview?library=things.safetensors")[0] == 404
