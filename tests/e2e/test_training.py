"""Training in a graph: a library comes out, the MODEL stays, a cancel loses nothing, and what is wrong is said."""

import json
import os
import re
import shutil
import socket
import struct
import threading
import time
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from adiff.backbone import prompt_context
from adiff.embedding import OFF
from adiff.library import load_library
from adiff.spatial_encoder import load_encoder
from adiff.training import AnomalySettings, MaskSettings
from adiff.training.settings import FULL_STEPS, UNWATCHED_STEPS
from tests.e2e.comfyui import RUN_LIMIT, Graph, GraphError
from tests.e2e.scenes import masks

DRAWN = "built in: metal/scratch"
SETTINGS = {"steps": 4, "batch": 2, "learning_rate": 0.02, "seed": 0, "early_stop": False, "preview_every": 0}
PREVIEW = 1
"""ComfyUI's number of a live picture among what it sends as bytes."""


class Listener:
    """What the server tells a browser: seen, (name, data) of events, a live picture as ("preview", picture)."""

    def __init__(self, url):
        host, _, port = url.removeprefix("http://").partition(":")
        self._socket = socket.create_connection((host, int(port)))
        key = "GET /ws?clientId=listener HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        secret = "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        self._socket.sendall((key.format(host) + secret).encode())
        self._file = self._socket.makefile("rb")
        while self._file.readline().strip():
            pass
        self.seen = []
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.shutdown(socket.SHUT_RDWR)

    def wait_for(self, wanted):
        """Wait until an event is `wanted`(name, data)."""
        deadline = time.monotonic() + RUN_LIMIT
        while not any(wanted(*event) for event in list(self.seen)):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def steps(self, node, total):
        """The steps of so many that a node's bar has shown; before them it counts views."""
        told = [data for kind, data in list(self.seen) if kind == "progress"]
        return [data["value"] for data in told if (data["node"], data["max"]) == (node.node, total)]

    def wait_for_step(self, node, step, total):
        """Wait until a node's bar has come to a step; a newer ComfyUI shows ten changes a second at most."""
        self.wait_for(lambda *_: any(shown >= step for shown in self.steps(node, total)))

    def _listen(self):
        while len(start := self._file.read(2)) == 2:
            kind, length = start
            if length >= 126:
                length = int.from_bytes(self._file.read(2 if length == 126 else 8), "big")
            content = self._file.read(length)
            if kind & 15 == 1:
                event = json.loads(content)
                self.seen.append((event["type"], event["data"]))
            elif kind & 15 == 2 and struct.unpack(">I", content[:4])[0] == PREVIEW:
                self.seen.append(("preview", Image.open(BytesIO(content[8:]))))


def demo(graph):
    loader = graph("ADiffLoadDemoModel")
    return {"model": loader, "vae": loader[1], "empty": loader[2]}


def drawn(graph, data=DRAWN, shots=2):
    return graph("ADiffLoadDefectDataset", data=data, product="", defect="", shots=shots)


def train(graph, base, dataset, encoder="demo (built in)", **changes):
    """Train Defects: [0] library, [1] encoder, [2] curve, [3] report."""
    frozen = encoder and graph("ADiffLoadSpatialEncoder", encoder=encoder)
    return graph("ADiffTrainDefects", dataset=dataset, encoder=frozen, **base, **SETTINGS | changes)


def save(graph, library, name, overwrite=False, encoder=None):
    return graph("ADiffSaveLibrary", library=library, name=name, overwrite=overwrite, encoder=encoder)


def stored(server, name):
    return load_library(server.base / "models" / "adiff_libraries" / f"{name}.safetensors")


def offered(server, node, name):
    """What a combo offers now."""
    about = json.loads(server.page(f"/object_info/{node}"))
    return about[node]["input"]["required"][name][1]["options"]


def states(server):
    folder = server.base / "output" / "adiff_training"
    return sorted(folder.iterdir()) if folder.exists() else []


def break_off_and_go_on(server, graph, learned, report, at, steps):
    """Cancel a training at a step, run the graph again, and see that it goes on from there and leaves no state."""
    told = graph("PreviewAny", source=report)
    with Listener(server.url) as events:
        name = server.queue(graph)
        events.wait_for_step(learned, at, steps)
        server.interrupt()
        result = server.wait(name)
    assert [kind for kind, _ in result.events][-1] == "execution_interrupted"
    assert len(states(server)) == 1
    with Listener(server.url) as events:
        text = server.run(graph).text(told)
        events.wait_for_step(learned, steps, steps)
    assert min(events.steps(learned, steps)) >= at and not states(server)
    assert 0 < int(re.search(rf"{steps} steps, the last (\d+) in \d+ s", text)[1]) <= steps - at


def test_from_photos_to_a_library_to_a_pair(server, graph):
    base = demo(graph)
    dataset = drawn(graph, shots=4)
    learned = train(graph, base, dataset, early_stop=True, preview_every=2)
    both = graph("ADiffTrainMasks", library=learned, **base, **SETTINGS)
    written = save(graph, both, "from photos", encoder=learned[1])
    sheet, curve = (graph("SaveImage", images=one, filename_prefix="e2e") for one in (dataset[1], learned[2]))
    report = graph("PreviewAny", source=learned[3])
    photo = graph("ADiffDrawSurface", product="metal", count=1, size=128, seed=1)
    mask = masks(graph, [[4, 4, 8, 6]], 16, 16)
    condition = graph(
        "ADiffAnomalyConditioning", defect=graph("ADiffPickDefect", library=both, defect="metal/scratch"), mask=mask,
        encoder=learned[1], strength=1.0,
    )  # fmt: skip
    latent = graph(
        "ADiffKSampler", model=base["model"], positive=condition, negative=base["empty"], mask=mask, seed=1, steps=2,
        normal=graph("VAEEncode", pixels=photo, vae=base["vae"]), cfg=1.0, sampler_name="euler", scheduler="normal",
        denoise=1.0, reweighting="off", reweighting_strength=1.0, distance="latent", blending="fixed noise",
    )  # fmt: skip
    pair = graph(
        "ADiffFinishPair", normal=photo, samples=latent, mask=mask, vae=base["vae"], feather_radius=1.5, refine=False
    )
    measures = graph("PreviewAny", source=pair[3])
    with Listener(server.url) as events:
        result = server.run(graph)
        events.wait_for_step(both, 4, 4)
    assert {1, 4} <= set(events.steps(learned, 4)) <= {1, 2, 3, 4}
    pictures = [data for kind, data in events.seen if kind == "preview"]
    assert len(pictures) >= 2 and all(min(one.size) >= 128 for one in pictures)
    sizes = [one.size for one in pictures if one.size != (512, 512)]  # which the samplers' own are
    assert sizes[-1] == (768, 432)  # the loss curve: a browser goes on showing the last live picture
    (measured,) = json.loads(result.text(measures))
    assert measured["leak"] == 0
    entry = stored(server, "from photos").defects["metal", "scratch"]
    assert entry.anomaly.shape == (8, 768) and entry.mask.shape == (4, 768)
    assert entry.info["anomaly"]["steps"] == 4 and entry.shot_masks.shape == (4, 128, 128)
    assert stored(server, "from photos").base_name == "demo"
    assert "metal/scratch: 4 shots, metal/test/scratch/003.png kept aside" in result.text(report)
    for picture in (result.images(sheet), result.images(curve)):
        assert len(np.unique(picture)) > 20
    assert result.outputs[written.node]["text"][0].endswith("its encoder: demo (built in)")
    (label,) = [one for one in offered(server, "ADiffLoadDefect", "defect") if one.startswith("from photos")]
    assert label.startswith("from photos.safetensors / metal / scratch @")
    again = Graph()
    picked = again("ADiffLoadDefect", defect=label)
    again("PreviewAny", source=again("ADiffAnomalyConditioning", defect=picked, mask=masks(again, [[1, 1, 3, 3]]),
                                     encoder=again("ADiffLoadSpatialEncoder", encoder="demo (built in)"), strength=1.0))
    server.run(again)
    assert not states(server)


def test_the_model_is_bit_identical_and_its_lora_stays(server):
    def scene():
        graph = Graph()
        loader = graph("CheckpointLoaderSimple", ckpt_name="sd15.safetensors")
        model = graph("LoraLoaderModelOnly", model=loader, lora_name="random.safetensors", strength_model=0.7)
        empty = graph("ProbeTokens", seed=1, tokens=77, rows=1, width=768)
        return graph, {"model": model, "vae": loader[2], "empty": empty}

    graph, base = scene()
    before = graph("PreviewAny", source=graph("ProbeWeights", model=base["model"]))
    first = server.run(graph).text(before)
    graph, base = scene()
    learned = train(graph, base, drawn(graph, shots=1), "small.safetensors", steps=1, batch=1)
    written = save(graph, learned, "on a LoRA")
    after = graph("PreviewAny", source=graph("ProbeWeights", model=base["model"], after=learned[3]))
    result = server.run(graph)
    assert result.text(after) == first
    assert stored(server, "on a LoRA").base_name == "sd15"
    assert "its encoder: small.safetensors" in result.outputs[written.node]["text"][0]


def test_a_cancelled_training_goes_on_to_the_same_result(server):
    """The node's place in the graph and its previews do not matter; a new encoder is learned, so its state counts."""

    def build(name, others, preview_every):
        graph = Graph()
        for number in range(others):
            graph("PreviewAny", source=f"another node {number}")
        learned = train(graph, demo(graph), drawn(graph), None, steps=12, preview_every=preview_every)
        save(graph, learned, name, encoder=learned[1])
        return graph, learned

    graph, learned = build("broken", 0, 2)
    break_off_and_go_on(server, graph, learned, learned[3], at=5, steps=12)
    whole, learned = build("unbroken", 3, 0)
    report = whole("PreviewAny", source=learned[3])
    assert re.search(r": 12 steps in \d+ s, all steps done", server.run(whole).text(report))
    folder = server.base / "models" / "adiff_libraries"
    one, other = (load_file(folder / f"{name}.safetensors") for name in ("broken", "unbroken"))
    assert list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)
    broken, unbroken = stored(server, "broken"), stored(server, "unbroken")
    assert broken.defects["metal", "scratch"].info == unbroken.defects["metal", "scratch"].info
    assert broken.encoder_fingerprint == unbroken.encoder_fingerprint
    encoders = offered(server, "ADiffLoadSpatialEncoder", "encoder")  # one and the same, so the second is not written
    assert "broken.safetensors" in encoders and "unbroken.safetensors" not in encoders


def test_a_training_in_a_loop_goes_on_from_a_state_of_its_own_model_alone(server):
    """Its node is not in the graph that was queued; two rounds of a loop may differ in a LoRA's strength alone."""
    settings = SETTINGS | {"steps": 1000, "batch": 1}
    for others, strength in enumerate((0.0, 0.5)):
        graph = Graph()
        of = demo(graph)
        model = graph("ADiffLoadDemoModel")
        of["model"] = graph("RescaleCFG", model=model, multiplier=strength)
        encoder = graph("ADiffLoadSpatialEncoder", encoder="demo (built in)")
        loop = graph("ProbeLoop", **of, dataset=drawn(graph), encoder=encoder, settings=json.dumps(settings))
        save(graph, loop, "loop")
        with Listener(server.url) as events:
            name = server.queue(graph)
            events.wait_for(lambda kind, data: kind == "progress" and data["max"] == 1000 and data["value"] > 2)
            server.interrupt()
            server.wait(name)
        assert len(states(server)) == others + 1
    for state in states(server):
        state.unlink()


def test_a_library_saved_anew_leaves_the_encoder_that_others_need(server):
    for name, seed in (("first", 31), ("second", 31), ("first", 32)):
        graph = Graph()
        learned = train(graph, demo(graph), drawn(graph), None, steps=1, seed=seed)
        save(graph, learned, name, overwrite=True, encoder=learned[1])
        server.run(graph)
    needed = [stored(server, name).encoder_fingerprint for name in ("first", "second")]
    folder = server.base / "models" / "adiff_encoders"
    there = {load_encoder(path)[1]["fingerprint"] for path in folder.glob("*.safetensors")}
    assert needed[0] != needed[1] and set(needed) <= there
    encoders = offered(server, "ADiffLoadSpatialEncoder", "encoder")
    assert {"first.safetensors", f"first-{needed[0][:8]}.safetensors"} <= set(encoders)


def test_the_model_stays_on_a_card_on_which_the_whole_batch_has_no_room(server, graph):
    """Room for the batch is made if that can be; ComfyUI keeps the model outside only for the least part of it."""
    base = demo(graph)
    watched = graph("ProbeLoads", model=base["model"], name="loads")
    graph("PreviewAny", source=train(graph, base | {"model": watched}, drawn(graph), steps=1, batch=8)[3])
    server.run(graph)
    loads = json.loads((server.base / "output" / "loads.json").read_text())
    assert loads and all(least == whole // 4 > 0 for whole, least in loads)


def write_photos(folder, count=3, size=64):
    """A folder of images/ and masks/: grey photos with a bright square that the mask marks."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number in range(count):
        photo = np.full((size, size, 3), 90 + number, np.uint8)
        mask = np.zeros((size, size), np.uint8)
        mask[20:36, 24:44] = 255
        photo[mask > 0] = 230
        Image.fromarray(photo).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")


def test_a_folder_of_photos_is_listed_read_and_read_again_when_it_changes(server):
    folder = server.base / "input" / "my photos"
    write_photos(folder)
    assert "my photos" in offered(server, "ADiffLoadDefectDataset", "data")

    def look(defect="dent"):
        graph = Graph()
        dataset = graph("ADiffLoadDefectDataset", data="my photos", product="", defect=defect, shots=2)
        report = graph("PreviewAny", source=dataset[2])
        graph("SaveImage", images=dataset[1], filename_prefix="e2e")
        result = server.run(graph)
        return result.text(report), dataset.node in result.cached

    found = "my photos/dent: 2 shots of 64 x 64, masks 7.81 to 7.81 % of the image, 1 more left for tests"
    assert look() == (found, False)
    assert look() == (found, True)
    mask = np.asarray(Image.open(folder / "masks" / "0.png")).copy()
    mask[36:40, 24:44] = 255
    Image.fromarray(mask).save(folder / "masks" / "0.png")
    os.utime(folder / "masks" / "0.png", (1, 1))
    assert look() == (found.replace("to 7.81", "to 9.77"), False)
    Image.fromarray(255 - mask).save(folder / "masks" / "0.png")
    told, _ = look()
    assert "masks 7.81 to 90.2 % of the image; 1 mark more than 75 %: white marks the defect, else invert them" in told


def test_an_annotated_folder_is_read_as_the_data_set_it_becomes(server):
    folder = server.base / "input" / "marked"
    write_photos(folder)
    shutil.rmtree(folder / "masks")
    for path in (folder / "images").iterdir():
        points = [[24, 20], [43, 20], [43, 35], [24, 35]]
        shape = {"label": "dent", "shape_type": "polygon", "points": points}
        (folder / f"{path.stem}.json").write_text(json.dumps({"imagePath": path.name, "shapes": [shape]}))
        path.rename(folder / path.name)
    (folder / "images").rmdir()
    before = sorted(folder.iterdir())

    def look():
        graph = Graph()
        dataset = graph("ADiffLoadDefectDataset", data="marked", product="", defect="", shots=2)
        report = graph("PreviewAny", source=dataset[2])
        return server.run(graph).text(report)

    found = "marked/dent: 2 shots of 64 x 64, masks 7.81 to 7.81 % of the image, 1 more left for tests"
    assert look() == found and sorted(folder.iterdir()) == before
    (folder / "0.json").write_text((folder / "0.json").read_text().replace("dent", "hole"))
    assert look().startswith("marked/dent: 2 shots of")
    (folder / "masks").mkdir()
    with pytest.raises(GraphError, match="no images of defects in|no images found in"):
        look()  # masks that do not fit are not passed over for annotations
    (folder / "masks").rmdir()
    (folder / "0.json").write_text("{")
    with pytest.raises(GraphError, match="0.json is damaged .* mend it"):
        look()


def test_shots_wrap_into_rows_of_four(server, graph):
    sheet = graph("SaveImage", images=drawn(graph, shots=6)[1], filename_prefix="e2e")
    (picture,) = server.run(graph).images(sheet)
    assert picture.shape[:2] == (8 + 30 + 2 * 168, 8 + 4 * 168)
    for row, shown in ((0, 4), (1, 2)):
        line = picture[38 + 168 * row + 80, 8 + 80 :: 168]  # the middle of each tile
        assert [bool((pixel < 250).all()) for pixel in line] == [True] * shown + [False] * (4 - shown)


def test_libraries_are_merged(server):
    graph = Graph()
    base = demo(graph)
    sets = (drawn(graph, data) for data in (DRAWN, "built in: tile/stain"))
    metal, tile = (train(graph, base, one, steps=1) for one in sets)
    both = graph("ADiffMergeLibraries", first=metal, second=tile, prefer="refuse")
    name = graph("PreviewAny", source=save(graph, both, "both"))
    assert server.run(graph).text(name) == "both.safetensors"
    assert list(stored(server, "both").defects) == [("metal", "scratch"), ("tile", "stain")]
    again = Graph()
    saved = again("ADiffLoadLibrary", library="both.safetensors")
    first = again("ADiffMergeLibraries", first=again("ADiffLoadLibrary", library="demo (built in)"), second=saved,
                  prefer="first")  # fmt: skip
    save(again, first, "both", overwrite=True)
    server.run(again)
    assert len(stored(server, "both").defects) > 2


def test_the_defaults_are_the_methods(server):
    for node, settings in (("ADiffTrainDefects", AnomalySettings()), ("ADiffTrainMasks", MaskSettings())):
        inputs = server.object_info()[node]["input"]["required"]
        for name, value in (("steps", 0), ("batch", settings.batch), ("learning_rate", 0)):
            assert inputs[name][1]["default"] == value, (node, name)
        assert f"0: {settings.steps} on the demo model, {FULL_STEPS} on" in (told := inputs["steps"][1]["tooltip"])
        assert f"or {UNWATCHED_STEPS} without" in told


def test_steps_and_rate_of_zero_are_those_of_the_model(server):
    graph = Graph()
    learned = train(graph, demo(graph), drawn(graph, shots=1), steps=0, learning_rate=0, batch=1)
    save(graph, learned, "of the model")
    server.run(graph)
    (entry,) = stored(server, "of the model").defects.values()
    assert entry.info["anomaly"]["steps"] == AnomalySettings().steps


def test_on_a_checkpoint_tokens_start_beside_its_empty_prompt(server):
    graph, name = Graph(), "sd15_text.safetensors"
    loader = graph("CheckpointLoaderSimple", ckpt_name=name)
    base = {"model": loader, "vae": loader[2], "empty": graph("CLIPTextEncode", clip=loader[1], text="")}
    save(graph, train(graph, base, drawn(graph, shots=1), steps=1, batch=1, learning_rate=1e-5), "beside")
    server.run(graph)
    (entry,) = stored(server, "beside").defects.values()
    empty = prompt_context(str(server.base / "models" / "checkpoints" / name), torch.zeros(0, 768))
    assert (entry.anomaly - empty[:8]).std() == pytest.approx(OFF, rel=0.1)


def trained(graph):
    return train(graph, demo(graph), drawn(graph), steps=1)


def folder_is_missing(server, graph):
    return graph("ADiffLoadDefectDataset", data="nothing here", product="", defect="", shots=2)


def folder_leads_out(server, graph):
    return graph("ADiffLoadDefectDataset", data="../models", product="", defect="", shots=2)


def folder_is_of_loose_photos(server, graph):
    folder = server.base / "input" / "loose"
    if not folder.exists():
        folder.mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "one.png")
    return graph("ADiffLoadDefectDataset", data="loose", product="", defect="", shots=2)


def photo_has_no_mask(server, graph):
    folder = server.base / "input" / "unmasked"
    if not folder.exists():
        write_photos(folder)
        (folder / "masks" / "1.png").unlink()
    return graph("ADiffLoadDefectDataset", data="unmasked", product="", defect="", shots=2)


def defect_is_not_in_the_folder(server, graph):
    folder = server.base / "input" / "kinds"
    if not folder.exists():
        write_photos(folder / "dent")
    return graph("ADiffLoadDefectDataset", data="kinds", product="", defect="scratch", shots=2)


def drawn_set_is_unknown(server, graph):
    return drawn(graph, "built in: metal/rust")


def model_is_sd2(server, graph):
    loader = graph("CheckpointLoaderSimple", ckpt_name="sd20.safetensors")
    return train(graph, demo(graph) | {"model": loader}, drawn(graph))


def nothing_to_learn_masks_from(server, graph):
    return graph("ADiffTrainMasks", **demo(graph), **SETTINGS)


def all_masks_are_learned(server, graph):
    library = graph("ADiffLoadLibrary", library="demo (built in)")
    return graph("ADiffTrainMasks", library=library, **demo(graph), **SETTINGS)


def library_is_of_another_base(server, graph):
    library = graph("ADiffLoadLibrary", library="things.safetensors")
    return graph("ADiffTrainMasks", library=library, dataset=drawn(graph), **demo(graph), **SETTINGS)


def library_is_not_there(server, graph):
    return graph("ADiffPickDefect", library=graph("ADiffLoadLibrary", library="../things.safetensors"), defect="")


def defect_is_not_in_the_library(server, graph):
    library = graph("ADiffLoadLibrary", library="things.safetensors")
    return graph("ADiffPickDefect", library=library, defect="metal/dent")


def names_conflict(server, graph):
    one, other = (graph("ADiffLoadLibrary", library="demo (built in)") for _ in range(2))
    return graph("ADiffMergeLibraries", first=one, second=other, prefer="refuse")


def bases_differ(server, graph):
    one, other = (graph("ADiffLoadLibrary", library=name) for name in ("demo (built in)", "things.safetensors"))
    return graph("ADiffMergeLibraries", first=one, second=other, prefer="first")


def name_is_a_path(server, graph):
    library = graph("ADiffLoadLibrary", library="things.safetensors")
    return save(graph, library, "../things", overwrite=True)


def name_is_taken(server, graph):
    return save(graph, graph("ADiffLoadLibrary", library="demo (built in)"), "things.safetensors")


def name_is_taken_elsewhere(server, graph):
    return save(graph, graph("ADiffLoadLibrary", library="demo (built in)"), "plain", overwrite=True)


def encoder_is_another_one(server, graph):
    encoder = graph("ADiffLoadSpatialEncoder", encoder="other.safetensors")
    return save(graph, graph("ADiffLoadLibrary", library="things.safetensors"), "new", encoder=encoder)


def encoder_is_in_no_file(server, graph):
    return save(graph, train(graph, demo(graph), drawn(graph), None, steps=1), "new")


def photo_changed(server, graph):
    folder = server.base / "input" / "edited"
    write_photos(folder)
    first = Graph()
    learned = train(first, demo(first), drawn(first, "edited"), steps=1)
    save(first, learned, "edited", overwrite=True)
    server.run(first)
    Image.fromarray(np.full((64, 64, 3), 7, np.uint8)).save(folder / "images" / "1.png")
    library = graph("ADiffLoadLibrary", library="edited.safetensors")
    return graph("ADiffTrainMasks", library=library, dataset=drawn(graph, "edited"), **demo(graph), **SETTINGS)


CASES = {
    photo_changed: r"images/1\.png changed since the library's edited/defect was learned from it; put back",
    folder_is_missing: r"there is no folder 'nothing here' in ComfyUI's input folder; .*images/.*masks/",
    folder_leads_out: r"'\.\./models' is no folder in ComfyUI's input folder",
    folder_is_of_loose_photos: r"1 image files directly in it.*expected S\.png with S_mask\.png, images/ and masks/",
    photo_has_no_mask: r"1 of 3 images in \S+ have no mask in \S+: 1\.png",
    defect_is_not_in_the_folder: r"no defect 'scratch' in \S+kinds; there: dent",
    drawn_set_is_unknown: r"there is no 'built in: metal/rust'; choose one of built in: metal/scratch",
    model_is_sd2: r"the model is SD20; this node works on SD 1\.x models",
    nothing_to_learn_masks_from: r"there are no masks to learn from; connect a dataset, or a library",
    all_masks_are_learned: r"all defects of the library \(demo \(built in\)\) have masks already",
    library_is_of_another_base: r"the library \(things\.safetensors\) was learned on base 'random', not on this model",
    library_is_not_there: r"there is no library '\.\./things\.safetensors' in models/adiff_libraries",
    defect_is_not_in_the_library: r"the library holds no 'metal/dent'; it holds metal/scratch, wood/hole",
    names_conflict: r"the first library \(demo.*\) and the second \(demo.*\) both hold \w+/\w+",
    bases_differ: r"was learned on base 'demo' \(\w+\), the second .* on 'random'",
    name_is_a_path: r"file name '\.\./things' has '/' in it",
    name_is_taken: r"things\.safetensors is in models/adiff_libraries already; .*turn overwrite on",
    name_is_taken_elsewhere: r"plain\.safetensors lies in \S+, which this node does not write to",
    encoder_is_another_one: r"the encoder is \w{8}, the library belongs to \w{8}; connect what trained it",
    encoder_is_in_no_file: r"the library's encoder \w{8} lies in no file in models/adiff_encoders.*connect Train Def",
}


@pytest.mark.parametrize("build", CASES, ids=lambda build: build.__name__)
def test_the_node_says_what_is_wrong(server, graph, build):
    graph("PreviewAny", source=build(server, graph))
    with pytest.raises(GraphError) as raised:
        server.run(graph)
    assert re.search(CASES[build], str(raised.value)), str(raised.value)
    assert not (server.base / "models" / "adiff_libraries" / "new.safetensors").exists()


def test_a_file_that_another_folders_hides_is_not_written(server, graph):
    """Load Defect would go on with the other one, of extra_model_paths.yaml."""
    hidden = server.base / "models" / "adiff_libraries" / "plain.safetensors"
    shutil.copy(server.elsewhere / hidden.name, hidden)
    try:
        name_is_taken_elsewhere(server, graph)
        with pytest.raises(GraphError, match=CASES[name_is_taken_elsewhere]):
            server.run(graph)
    finally:
        hidden.unlink()
