"""What the front end asks for: pictures of defects and changes of libraries, by names of the lists, never by paths."""

import io
import json
import urllib.error
import urllib.request
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from adiff.library import load_library, save_library
from tests.e2e.libraries import make_many


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


def test_a_picture_comes_in_the_size_asked_for_and_once(server):
    label = quote("demo (built in) / metal / scratch", safe="")
    for size in (16, 48, 512):
        with Image.open(io.BytesIO(server.fetch(f"/adiff/preview?defect={label}&size={size}")[2])) as picture:
            assert max(picture.size) == min(size, 96)
    for size in ("", "15", "513", "-1", "1e2", "9" * 40, "\u0663\u0662"):
        assert server.fetch(f"/adiff/preview?defect={label}&size={quote(size)}")[0] == 400, size
    with urllib.request.urlopen(f"{server.url}/adiff/preview?defect={label}") as answer:
        known = answer.headers["ETag"]
    status, _, content = ask(server, f"/adiff/preview?defect={label}", headers={"If-None-Match": known})
    assert (status, content) == (304, b"")


def ask(server, path, body=None, headers=None, **fields):
    """Send a request as it is: its status, its JSON (or None), its content. fields: a body in JSON."""
    data = json.dumps(fields).encode() if fields else body
    sent = {"Content-Type": "application/json"} if data is not None else {}
    request = urllib.request.Request(server.url + path, data, sent | (headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            status, content = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, content = error.code, error.read()
    try:
        return status, json.loads(content), content
    except ValueError:
        return status, None, content


class Shelf:
    """A library's file in ComfyUI's models folder, and what the panel asks about it."""

    def __init__(self, server, name):
        self.server, self.name = server, name
        self.path = server.base / "models" / "adiff_libraries" / name

    def look(self):
        """The listing's entry of this library."""
        _, listing, _ = ask(self.server, "/adiff/library")
        return next(one for one in listing["libraries"] if one["name"] == self.name)

    def send(self, what, headers=None, **fields):
        """Ask for a change of the library as it is now; returns the status and what came back."""
        known = {"library": self.name, "seen": self.look()["state"]}
        if what == "undo":
            known.pop("seen")
        status, answer, _ = ask(self.server, f"/adiff/library/{what}", headers=headers, **(known | fields))
        return status, answer

    def held(self):
        """What the file holds now."""
        library = load_library(self.path)
        return [(entry.name, entry.info, entry.anomaly.tolist()) for entry in library.defects.values()]


@pytest.fixture
def shelf(server):
    """Three defects: metal/scratch 1, wood/scratch 1 and tile/scratch 1."""
    shelf = Shelf(server, "curated.safetensors")
    save_library(shelf.path, make_many(3))
    yield shelf
    shelf.path.unlink()


def test_the_listing_tells_all_libraries(server, shelf):
    status, listing, content = ask(server, "/adiff/library")
    libraries = {one["name"]: one for one in listing["libraries"]}
    assert status == 200
    assert set(libraries) >= {"demo (built in)", "curated.safetensors", "things.safetensors", "plain.safetensors"}
    assert libraries["demo (built in)"]["locked"] == "pack"
    (damaged,) = listing["damaged"]
    assert damaged["name"] == "damaged.safetensors" and "not a whole safetensors file" in damaged["why"]
    assert str(server.base).encode() not in content
    first, second, third = libraries["curated.safetensors"]["defects"]
    assert (first["product"], first["defect"], first["shots"], first["tags"]) == ("metal", "scratch 1", 1, [])
    assert second["notes"] == {"author": "Ada", "licence": "CC-BY-4.0"} and third["tags"] == ["surface", "structural"]
    assert first["label"] in json.loads(server.page("/object_info/ADiffLoadDefect"))["ADiffLoadDefect"]["input"][
        "required"]["defect"][1]["options"]  # fmt: skip


def test_an_edit_changes_the_file_and_is_taken_back(server, shelf):
    before = shelf.held()
    seen = shelf.look()
    wanted = {"name": "oak/scratch", "notes": {"licence": "", "notes": "line 3"}, "tags": ["new", "x"]}
    status, answer = shelf.send("edit", edits={"wood/scratch 1": wanted})
    assert status == 200 and answer["library"] == shelf.look() and answer["names"] == ["oak/scratch"]
    assert answer["library"]["state"] != seen["state"]
    info = {"shots": ["0.png", "1.png"], "author": "Ada", "notes": "line 3", "tags": ["new", "x"]}
    assert shelf.held() == [before[0], ("oak/scratch", info, before[1][2]), before[2]]
    old = next(one["label"] for one in seen["defects"] if one["product"] == "wood")
    assert preview(server, old)[0] == 200  # a graph that was saved with the old name goes on
    status, answer = shelf.send("undo", edit=answer["edit"])
    assert (status, answer["names"]) == (200, ["wood/scratch 1"])
    assert shelf.held() == before


def test_a_removed_defect_comes_back_whole(shelf):
    before = shelf.held()
    _, first = shelf.send("remove", defects=["wood/scratch 1"])
    _, second = shelf.send("remove", defects=["metal/scratch 1"])
    assert shelf.held() == before[2:]
    assert shelf.send("remove", defects=["tile/scratch 1"])[0] == 400  # nothing would be left
    for one in (first, second):
        assert shelf.send("undo", edit=one["edit"])[0] == 200
    assert sorted(shelf.held()) == sorted(before)
    assert shelf.send("undo", edit=second["edit"])[0] == 410


def test_several_are_changed_at_once_and_taken_back_at_once(server, shelf):
    save_library(shelf.path, make_many(5))
    before, states = shelf.held(), [shelf.look()["state"]]
    names = [name for name, _, _ in before]
    wanted = {names[3]: {"tags": ["a"]}, names[0]: {"tags": ["b"], "notes": {"author": ""}}}
    _, tagged = shelf.send("edit", edits=wanted)
    assert tagged["names"] == [names[3], names[0]] and tagged["library"] == shelf.look()
    told = [(one["tags"], one["notes"].get("author")) for one in tagged["library"]["defects"]]
    kept = [(info["tags"], "Ada") for _, info, _ in before]
    assert told == [(["b"], None), *kept[1:3], (["a"], "Ada"), kept[4]]
    _, removed = shelf.send("remove", defects=[names[4], names[1], names[0]])
    assert [name for name, _, _ in shelf.held()] == names[2:4] and removed["names"] == []
    states += [tagged["library"]["state"], removed["library"]["state"]]
    status, answer = shelf.send("undo", edit=tagged["edit"])  # one of the two is not there now
    assert status == 409 and f"{names[0]} has been changed or removed" in answer["error"]
    status, answer = shelf.send("undo", edit=removed["edit"])
    assert (status, answer["names"]) == (200, [names[4], names[1], names[0]])
    assert [name for name, _, _ in shelf.held()] == names
    assert shelf.send("undo", edit=tagged["edit"])[1]["names"] == [names[3], names[0]]
    assert shelf.held() == before and len(set(states)) == 3


@pytest.mark.parametrize("what", ["edit", "remove"])
def test_what_another_process_has_changed_is_not_written_over(shelf, what):
    seen = shelf.look()["state"]
    save_library(shelf.path, make_many(4))
    status, answer = shelf.send(what, seen=seen, **CHANGES[what])
    assert status == 409 and "changed by somebody else" in answer["error"]
    assert len(shelf.held()) == 4
    assert shelf.send(what, **CHANGES[what])[0] == 200


def test_an_edit_somebody_else_went_on_with_is_not_taken_back(shelf):
    _, first = shelf.send("edit", edits={"wood/scratch 1": {"tags": ["mine"]}})
    _, second = shelf.send("edit", edits={"wood/scratch 1": {"tags": ["theirs"]}})
    status, answer = shelf.send("undo", edit=first["edit"])
    assert status == 409 and "changed or removed since" in answer["error"]
    assert shelf.send("undo", edit=second["edit"])[0] == 200
    assert shelf.send("undo", edit=first["edit"])[0] == 200


CHANGES = {
    "edit": {"edits": {"wood/scratch 1": {"tags": ["x"]}, "tile/scratch 1": {"tags": ["x"]}}},
    "remove": {"defects": ["wood/scratch 1", "tile/scratch 1"]},
    "undo": {"edit": "0" * 32},
}
ELSEWHERE = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://comfy.example.evil.example", "Host": "comfy.example"},
    {"Origin": "https://comfy.example:444", "Host": "comfy.example"},
    {"Origin": "https://comfy.example@evil.example", "Host": "comfy.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Host": "comfy.example", "Origin": "https://comfy.example"},
]


@pytest.mark.parametrize("headers", ELSEWHERE, ids=str)
def test_other_sites_pages_are_refused_on_every_route(server, shelf, headers):
    before = shelf.path.read_bytes()
    headers = {"Host": server.url.removeprefix("http://")} | headers
    for what, fields in CHANGES.items():
        assert shelf.send(what, headers=headers, **fields)[0] == 403
    assert ask(server, "/adiff/library", headers=headers)[0] == 403
    label = quote(shelf.look()["defects"][0]["label"])
    assert ask(server, f"/adiff/preview?defect={label}", headers=headers)[0] == 403
    assert shelf.path.read_bytes() == before


def test_comfyui_s_own_page_is_let_in_by_any_name(server, shelf):
    for host in (server.url.removeprefix("http://"), "comfy.example", "COMFY.example:8188"):
        headers = {"Host": host, "Origin": f"http://{host.lower()}", "Sec-Fetch-Site": "same-origin"}
        assert shelf.send("edit", headers=headers, edits={"wood/scratch 1": {"tags": [host[:20]]}})[0] == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "text/json"]
)
def test_what_is_no_json_is_refused_on_every_route(server, shelf, kind):
    before = shelf.path.read_bytes()
    for what, fields in CHANGES.items():
        assert shelf.send(what, headers={"Content-Type": kind}, **fields)[0] == 415
    assert shelf.path.read_bytes() == before


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{", 400), (b"\xff\xfe", 400), (b'"edit"', 400), (b"[]", 400), (b"null", 400), (b"{}", 400),
        (b"[" * 60_000, 400), (b'{"x": "' + b"x" * (1 << 20) + b'"}', 413),
        (b'{"library": 1, "defects": 2, "edits": 3, "edit": 4, "seen": 5}', 400),
        (b'{"library": "curated.safetensors", "seen": "", "edit": "", "defects": [], "path": "/etc/passwd"}', 400),
    ],
    ids=lambda value: str(value)[:24],
)  # fmt: skip
def test_bodies_that_do_not_do_are_refused_on_every_route(server, shelf, body, status):
    before = shelf.path.read_bytes()
    for what in CHANGES:
        got, answer, _ = ask(server, f"/adiff/library/{what}", body)
        assert (got, list(answer)) == (status, ["error"])
    assert shelf.path.read_bytes() == before


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"tags": "x"}, {"tags": [1]}, {"tags": [["x"]]}, {"tags": ["a,b"]}, {"tags": ["x" * 41]}, {"notes": ["x"]},
        {"notes": {"author": None}}, {"notes": {"author": {}}}, {"notes": {"steps": "9"}},
        {"notes": {"notes": "x" * 4001}}, {"notes": {"notes": "\ud800"}}, {"name": ""}, {"name": None},
        {"name": "metal/scratch 1"}, {"defect": "metal/scratch 1"}, [], None, "tags", 1,
    ],
    ids=lambda fields: ascii(fields)[:40],
)  # fmt: skip
def test_edits_that_do_not_do_are_refused(shelf, fields):
    """Alone, and with a sound one before it."""
    before = shelf.path.read_bytes()
    for others in ({}, {"tile/scratch 1": {"tags": ["x"]}}):
        status, answer = shelf.send("edit", edits=others | {"wood/scratch 1": fields})
        assert (status, list(answer)) == (400, ["error"])
    assert shelf.path.read_bytes() == before


SOUND = {"tags": ["x"]}
MANY = [f"metal/{number}" for number in range(201)]


@pytest.mark.parametrize(
    ("what", "fields", "why"),
    [
        ("edit", {"edits": {}}, "0 defects"),
        ("edit", {"edits": ["wood/scratch 1"]}, "edits is of type list"),
        ("edit", {"edits": {"wood/scratch 1": SOUND, "a/b": SOUND}}, "a/b"),
        ("edit", {"edits": {"wood/scratch 1": SOUND, "../b/c": SOUND}}, "../b/c"),
        ("edit", {"edits": {"wood/scratch 1": SOUND, "tile/scratch 1": {"name": "oak/x"}}}, "rename one at a time"),
        ("edit", {"edits": dict.fromkeys(MANY, SOUND)}, "201 defects in one edit; expected 1 to 200"),
        ("edit", {"edits": {"wood/scratch 1": SOUND}, "defects": ["tile/scratch 1"]}, "expected an object with"),
        ("remove", {"defects": []}, "0 defects"),
        ("remove", {"defects": {"wood/scratch 1": {}}}, "defects is of type dict"),
        ("remove", {"defects": "wood/scratch 1"}, "defects is of type str"),
        ("remove", {"defects": ["wood/scratch 1", 1]}, "names of defects are texts"),
        ("remove", {"defects": ["wood/scratch 1", ["tile/scratch 1"]]}, "names of defects are texts"),
        ("remove", {"defects": ["wood/scratch 1", "wood/scratch 1"]}, "named twice"),
        ("remove", {"defects": ["wood/scratch 1", "a/b"]}, "a/b"),
        ("remove", {"defects": ["wood/scratch 1", "\0"]}, "is not PRODUCT/DEFECT"),
        ("remove", {"defects": ["wood/scratch 1", "tile/scratch 1", "metal/scratch 1"]}, "nothing would be left"),
        ("remove", {"defects": MANY}, "201 defects in one edit; expected 1 to 200"),
    ],
    ids=lambda value: ascii(value)[:50],
)
def test_of_several_all_are_changed_or_none(shelf, what, fields, why):
    before = shelf.path.read_bytes()
    status, answer = shelf.send(what, **fields)
    assert status == 400 and why in answer["error"]
    assert shelf.path.read_bytes() == before


@pytest.mark.parametrize(
    "name",
    [
        "../x", "wood/..", "/etc/passwd", "wood/../../x", "C:\\x/y", "wood\\x/y", "wood/\0", "wood/a\nb", "wood/CON",
        "nul/x", "wood/lpt1.txt", "wood/x.", " wood/x", "wood/" + "x" * 65, "wood/\uff0fx", "wood/\u2215x",
        "\uff0e\uff0e/x", "wood/\uff23\uff2f\uff2e", "wood/COM\u00b9", "wood/x\u202egnp", "wood/\u200bx",
        "METAL/Scratch 1", "wood/\ud800",
    ],
    ids=ascii,
)  # fmt: skip
def test_names_that_could_lead_elsewhere_are_not_given(shelf, name):
    before = shelf.path.read_bytes()
    status, answer = shelf.send("edit", edits={"wood/scratch 1": {"name": name}})
    assert (status, list(answer)) == (400, ["error"])
    assert shelf.path.read_bytes() == before


@pytest.mark.parametrize(
    "name",
    [
        "", "../adiff_libraries/curated.safetensors", "./curated.safetensors", "{folder}/curated.safetensors",
        "..\\adiff_libraries\\curated.safetensors", "curated.safetensors\0", "curated", "CURATED.safetensors",
        "curated.safetensors.", "\uff43urated.safetensors", "NUL", "../../../elsewhere/plain.safetensors",
        "damaged.safetensors/..", "x" * 5000,
    ],
    ids=lambda name: ascii(name[:40]),
)  # fmt: skip
def test_only_libraries_of_the_list_are_changed(shelf, name):
    folder = shelf.path.parent
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for what, fields in CHANGES.items():
        status, answer = shelf.send(what, library=name.replace("{folder}", str(folder)), **fields)
        assert (status, list(answer)) == (404, ["error"])
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_the_pack_s_own_library_stays_as_it_is(server, shelf):
    own = Shelf(server, "demo (built in)")
    for what, fields in CHANGES.items():
        status, answer = own.send(what, **fields)
        assert status == 400 and "comes with the pack" in answer["error"]


def test_a_link_out_of_the_model_folders_is_not_written_through(server, shelf, tmp_path):
    outside = tmp_path / "outside.safetensors"
    save_library(outside, make_many(3))
    before = outside.read_bytes()
    link = Shelf(server, "link.safetensors")
    link.path.symlink_to(outside)
    try:
        assert link.look()["locked"] == "link"
        for what, fields in CHANGES.items():
            status, answer = link.send(what, **fields)
            assert status == 400 and "outside the model folders" in answer["error"]
        assert outside.read_bytes() == before and link.path.is_symlink() and len(list(tmp_path.iterdir())) == 1
    finally:
        link.path.unlink()


def test_a_link_within_the_model_folders_stays_a_link(server, shelf):
    link = Shelf(server, "link.safetensors")
    link.path.symlink_to(shelf.path)
    try:
        assert link.look()["locked"] is None
        assert link.send("remove", defects=["wood/scratch 1"])[0] == 200
        assert link.path.is_symlink() and len(shelf.held()) == 2
    finally:
        link.path.unlink()


def test_a_state_is_not_lent_to_another_library(server, shelf):
    _, answer = shelf.send("remove", defects=["wood/scratch 1"])
    other = Shelf(server, "things.safetensors")
    before = other.path.read_bytes()
    assert other.send("undo", edit=answer["edit"])[0] == 410
    assert other.path.read_bytes() == before
