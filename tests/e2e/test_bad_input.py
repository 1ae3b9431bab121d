"""Bad input: the node says what came, what was expected and what to do, and the queue goes on."""

import json
import re
import shutil

import pytest

from tests.e2e.comfyui import Graph, GraphError
from tests.e2e.scenes import make_scene, masks, tokens


def library(name):
    def build(server, scene):
        label = server.option("ADiffLoadDefect", "defect", name) if name.startswith(("things", "plain")) else name
        return scene.graph("ADiffLoadDefect", defect=label)

    return build


def defect_is_gone(server, scene):
    return scene.condition(scene.mask, defect=library("gone.safetensors / metal / dent @0123abcd")(server, scene))


def defect_is_no_label(server, scene):
    return scene.condition(scene.mask, defect=library("")(server, scene))


def library_is_damaged(server, scene):
    return scene.condition(scene.mask, defect=library("damaged.safetensors / metal / scratch")(server, scene))


def label_leads_elsewhere(server, scene):
    return scene.condition(scene.mask, defect=library("../../things.safetensors / metal / scratch")(server, scene))


def encoder_of_another_library(server, scene):
    other = scene.graph("ADiffLoadSpatialEncoder", encoder="other.safetensors")
    return scene.condition(scene.mask, encoder=other)


def encoder_is_gone(server, scene):
    other = scene.graph("ADiffLoadSpatialEncoder", encoder="gone.safetensors")
    return scene.condition(scene.mask, encoder=other)


def library_without_encoder(server, scene):
    return scene.condition(scene.mask, defect=library("plain.safetensors / metal / scratch")(server, scene))


def defect_without_appearance(server, scene):
    return scene.condition(scene.mask, defect=library("things.safetensors / wood / hole")(server, scene))


def prompt_of_another_width(server, scene):
    return scene.condition(scene.mask, tokens(scene.graph, 1, width=1024))


def prompt_of_another_batch(server, scene):
    return scene.condition(masks(scene.graph, [(1, 1, 3, 3)] * 3), tokens(scene.graph, 1, rows=2))


def mask_is_empty(server, scene):
    return scene.ours(mask=masks(scene.graph, [None]))


def mask_covers_everything(server, scene):
    return scene.ours(mask=masks(scene.graph, [(0, 0, 8, 8)]))


def second_mask_is_empty(server, scene):
    return scene.condition(masks(scene.graph, [(1, 1, 3, 3), None]))


def mask_is_in_the_border_that_the_vae_cuts(server, scene):
    return scene.ours(mask=scene.graph("ProbeMasks", width=68, height=68, boxes="[[10, 0, 40, 2]]"))


def mask_of_another_shape(server, scene):
    return scene.ours(mask=masks(scene.graph, [(1, 1, 3, 3)], columns=12))


def mask_of_another_shape_to_patch(server, scene):
    mask = masks(scene.graph, [(1, 1, 3, 3)], rows=12)
    given = {"reweighting": "balanced", "reweighting_strength": 1.0, "distance": "latent"}
    model = scene.graph("ADiffApplyReweighting", model=scene.model, mask=mask, normal=scene.normal, **given)
    return scene.stock(model=model)


def mask_of_another_shape_to_finish(server, scene):
    photo = scene.graph("VAEDecode", samples=scene.normal, vae=scene.vae)
    given = {"vae": scene.vae, "feather_radius": 0.0, "refine": False}
    mask = masks(scene.graph, [(1, 1, 3, 3)], columns=10)
    return scene.graph("ADiffFinishPair", normal=photo, samples=scene.normal, mask=mask, **given)


def masks_do_not_fit_the_normals(server, scene):
    normal = scene.graph("ProbeNormal", seed=1, batch=3, rows=8, columns=8)
    return scene.ours(mask=masks(scene.graph, [(1, 1, 3, 3)] * 2), normal=normal)


def conditioning_does_not_fit_the_masks(server, scene):
    two = scene.condition(masks(scene.graph, [(1, 1, 3, 3)] * 2))
    return scene.ours(positive=two, mask=masks(scene.graph, [(1, 1, 3, 3)] * 3))


def model_is_sd2(server, scene):
    loader = scene.graph("CheckpointLoaderSimple", ckpt_name="sd20.safetensors")
    return scene.ours(model=loader)


def model_is_sd2_to_patch(server, scene):
    loader = scene.graph("CheckpointLoaderSimple", ckpt_name="sd20.safetensors")
    return scene.stock(model=scene.reweighted(loader))


def model_is_for_inpainting(server, scene):
    loader = scene.graph("CheckpointLoaderSimple", ckpt_name="sd15_inpainting.safetensors")
    return scene.ours(model=loader)


def positive_of_another_width(server, scene):
    return scene.ours(positive=tokens(scene.graph, 1, width=1024))


def negative_of_another_width(server, scene):
    return scene.ours(negative=tokens(scene.graph, 1, width=2048))


def vae_is_missing(server, scene):
    return scene.ours(distance="vae")


def normal_of_another_size(server, scene):
    other = scene.graph("ProbeNormal", seed=1, batch=1, rows=6, columns=8)
    return scene.stock(model=scene.reweighted(normal=other))


def mode_is_unknown(server, scene):
    return scene.ours(reweighting="strong")


def no_mask_passes(server, scene):
    given = {"min_area": 0.5, "max_area": 1.0, "max_parts": 1, "max_border": 1.0}
    kept = scene.graph("ADiffFilterMasks", masks=scene.mask, **given)
    return scene.ours(mask=kept)


def two_foregrounds_for_one_mask(server, scene):
    given = {"min_area": 0.0, "max_area": 1.0, "max_parts": 9, "max_border": 1.0}
    grounds = masks(scene.graph, [(0, 0, 8, 8), (2, 2, 6, 6)])
    return scene.ours(mask=scene.graph("ADiffFilterMasks", masks=scene.mask, foreground=grounds, **given))


def no_mask_is_found(server, scene):
    given = {"count": 1, "seed": 1, "steps": 1, "cfg": 1.0, "threshold": 0.95, "tries": 1}
    made = scene.graph(
        "ADiffGenerateMasks", defect=scene.defect, model=scene.model, vae=scene.vae, empty=scene.negative, **given
    )
    return scene.ours(mask=made)


def masks_from_a_library_of_another_width(server, scene):
    loader = scene.graph("CheckpointLoaderSimple", ckpt_name="sd20.safetensors")
    given = {"count": 1, "seed": 1, "steps": 1, "cfg": 1.0, "threshold": 0.5, "tries": 1}
    made = scene.graph(
        "ADiffGenerateMasks", defect=scene.defect, model=loader, vae=scene.vae, empty=scene.negative, **given
    )
    return scene.ours(mask=made)


def schedule_of_fifty_levels(server, scene):
    changed = scene.graph("ModelSamplingDiscrete", model=scene.model, sampling="lcm", zsnr=False)
    given = {"count": 1, "seed": 1, "steps": 1, "cfg": 1.0, "threshold": 0.5, "tries": 1}
    made = scene.graph(
        "ADiffGenerateMasks", defect=scene.defect, model=changed, vae=scene.vae, empty=scene.negative, **given
    )
    return scene.ours(mask=made)


def images_are_taken_apart(server, scene):
    windows = {"context_length": 2, "context_overlap": 1, "context_schedule": "standard_static", "context_stride": 1}
    how = windows | {"closed_loop": False, "fuse_method": "pyramid", "dim": 0}
    newer = {"freenoise": False, "cond_retain_index_list": "", "split_conds_to_windows": False,
             "latent_retain_index_list": "", "causal_window_fix": True}  # fmt: skip
    mask = masks(scene.graph, [(1, 1, 3, 3)] * 3)
    model = scene.graph("ContextWindowsManual", model=scene.model, **how, **newer)
    return scene.ours(model=model, mask=mask, positive=scene.condition(mask))


def sampler_of_another_pack(server, scene):
    return scene.ours(sampler_name="res_2s_of_elsewhere")


def scheduler_of_another_pack(server, scene):
    return scene.ours(scheduler="bong_tangent")


def blending_is_unknown(server, scene):
    return scene.ours(blending="fresh")


CHOOSE = "is not in this ComfyUI; choose one of"
NOT_IN_LIST = r"^(sampler_name|scheduler|blending): '\w+' not in "
"""What a newer ComfyUI says itself, before the node is asked."""

CASES = {
    defect_is_gone: r"no library holds metal/dent with fingerprint 0123abcd.*gone\.safetensors.*models/adiff_libraries",
    defect_is_no_label: r"names no defect; expected 'library / product / defect'",
    library_is_damaged: r"damaged\.safetensors is not a whole safetensors file",
    label_leads_elsewhere: r"no library holds metal/scratch.*'\.\./\.\./things\.safetensors'",
    encoder_of_another_library: r"was learned with encoder \w+, 'other\.safetensors' is \w+; load the encoder",
    encoder_is_gone: r"there is no spatial encoder 'gone\.safetensors' in models/adiff_encoders; put it there",
    library_without_encoder: r"was learned without a spatial encoder; leave the encoder input open",
    defect_without_appearance: r"wood/hole in things\.safetensors has masks only",
    prompt_of_another_width: r"token widths differ",
    prompt_of_another_batch: r"the prompt has 2 rows for 3 masks",
    mask_is_empty: r"mask 1 of 1 marks nothing",
    mask_covers_everything: r"mask 1 of 1 covers the whole image",
    second_mask_is_empty: r"mask 2 of 2 marks nothing",
    mask_is_in_the_border_that_the_vae_cuts: r"mask 1 of 1 lies in the border of the 68 x 68 image",
    mask_of_another_shape: r"the mask is 96 x 64, the image 64 x 64; draw the mask on this image, or scale it",
    mask_of_another_shape_to_patch: r"the mask is 64 x 96, the image 64 x 64",
    mask_of_another_shape_to_finish: r"the mask is 80 x 64, the image 64 x 64",
    masks_do_not_fit_the_normals: r"2 masks for a batch of 3; give one, or one for each image",
    conditioning_does_not_fit_the_masks: r"the positive conditioning has 2 rows for a batch of 3",
    model_is_sd2: r"the model is SD20; this node works on SD 1\.x models",
    model_is_sd2_to_patch: r"the model is SD20; this node works on SD 1\.x models",
    model_is_for_inpainting: r"the model takes 9 channels \(an inpainting model\?\)",
    positive_of_another_width: r"the positive conditioning has tokens of width 1024; SD 1\.x's are 768 wide",
    negative_of_another_width: r"the negative conditioning has tokens of width 2048",
    vae_is_missing: r"distance 'vae' needs the vae input",
    normal_of_another_size: r"the normal latent is \(6, 8\), the sampled one \(8, 8\); encode the same image",
    mode_is_unknown: r"'strong'",
    sampler_of_another_pack: rf"sampler 'res_2s_of_elsewhere' {CHOOSE} euler, |{NOT_IN_LIST}",
    scheduler_of_another_pack: rf"scheduler 'bong_tangent' {CHOOSE} simple,|{NOT_IN_LIST}",
    blending_is_unknown: rf"blending 'fresh' {CHOOSE} fixed noise, fresh noise|{NOT_IN_LIST}",
    no_mask_passes: r"none of 1 masks passes: \w+",
    two_foregrounds_for_one_mask: r"2 foregrounds for 1 masks; connect one for all or one for each",
    no_mask_is_found: r"only 0 of 1 masks passed in \d+ tries; .* or use the shots' own masks, varied, or drawn ones$",
    masks_from_a_library_of_another_width: r"the model is SD20",
    images_are_taken_apart: r"the model sees 2 of 3 images at a time; .*leave the node out that takes them apart",
    schedule_of_fifty_levels: r"noise schedule has 50 levels, not 1000; connect the model from before the node",
}


@pytest.mark.parametrize("build", CASES, ids=lambda build: build.__name__)
def test_the_node_says_what_is_wrong_and_the_queue_goes_on(server, graph, build):
    scene = make_scene(server, graph)
    last = build(server, scene)
    graph("PreviewAny", source=last)
    with pytest.raises(GraphError) as raised:
        server.run(graph)
    assert re.search(CASES[build], str(raised.value)), str(raised.value)
    after = Graph()
    shown = after("PreviewAny", source="on")
    assert server.run(after).text(shown) == "on"


def test_an_error_is_named_by_the_pack_not_by_its_folder(server, graph):
    """The page begins its report with that name."""
    graph("PreviewAny", source=encoder_of_another_library(server, make_scene(server, graph)))
    events = server.wait(server.queue(graph)).events
    (told,) = [data["exception_type"] for event, data in events if event == "execution_error"]
    assert told == "adiff.errors.InputError"


def test_without_any_library_the_list_is_empty_and_the_message_says_where_files_go(server, graph):
    defect = graph("ADiffLoadDefect", defect="demo (built in) / metal / scratch")
    graph("PreviewAny", source=defect)
    libraries = server.base / "models" / "adiff_libraries"
    demo = server.pack / "adiff" / "backbone" / "demo" / "library.safetensors"
    hidden = [demo, *libraries.glob("*.safetensors"), *server.elsewhere.glob("*.safetensors")]
    for path in hidden:
        path.rename(path.with_suffix(".away"))
    try:
        about = json.loads(server.page("/object_info/ADiffLoadDefect"))["ADiffLoadDefect"]
        with pytest.raises(GraphError, match=r"no library holds metal/scratch.*Put that file into models/adiff_librar"):
            server.run(graph)
    finally:
        for path in hidden:
            path.with_suffix(".away").rename(path)
    assert about["input"]["required"]["defect"][1]["options"] == []
    assert "models/adiff_libraries" in about["description"]
    server.run(graph)


def test_the_distance_vae_warns_that_it_may_swap_models(server, graph):
    scene = make_scene(server, graph)
    scene.save(scene.ours(distance="vae", vae=scene.vae, steps=1))
    before = server.log.count("swaps model and VAE")
    server.run(graph)
    assert server.log.count("swaps model and VAE") == before + 1


def test_a_renamed_library_is_found_again(server, graph):
    scene = make_scene(server, graph)
    label = server.option("ADiffLoadDefect", "defect", "things.safetensors / metal / scratch")
    renamed = graph("ADiffLoadDefect", defect=label.replace("things", "my old things"))
    there, found = (
        scene.save(scene.ours(positive=scene.condition(scene.mask, defect=one))) for one in (scene.defect, renamed)
    )
    result = server.run(graph)
    assert (result.latent(there) == result.latent(found)).all()
    assert "library my old things.safetensors is not there" in server.log


def test_a_choice_may_come_from_a_node(server, graph):
    """It is not known when the graph is checked."""
    label = server.option("ADiffLoadDefect", "defect", "things.safetensors / metal / scratch")
    for kind, name, choice in (
        ("ADiffLoadDefect", "defect", label), ("ADiffLoadSpatialEncoder", "encoder", "small.safetensors"),
    ):  # fmt: skip
        words = graph("ProbeWords", words=json.dumps([choice]))
        graph("PreviewAny", source=graph(kind, **{name: words}))
    server.run(graph)
    gone = graph("ADiffLoadDefect", defect=graph("ProbeWords", words='["gone.safetensors / metal / dent @0123abcd"]'))
    graph("PreviewAny", source=gone)
    with pytest.raises(GraphError, match="gone.safetensors"):
        server.run(graph)


def test_a_library_s_name_may_hold_the_fingerprint_s_sign(server, graph):
    libraries = server.base / "models" / "adiff_libraries"
    other = libraries / "line @2.safetensors"
    shutil.copy(libraries / "things.safetensors", other)
    try:
        label = server.option("ADiffLoadDefect", "defect", "things.safetensors / metal / scratch")
        graph("PreviewAny", source=graph("ADiffLoadDefect", defect=label.replace("things", other.stem)))
        server.run(graph)
    finally:
        other.unlink()


def test_an_encoder_s_file_that_was_replaced_is_opened_anew(server, graph):
    encoders = server.base / "models" / "adiff_encoders"
    own = encoders / "own.safetensors"
    scene = make_scene(server, graph)
    encoder = graph("ADiffLoadSpatialEncoder", encoder=own.name)
    graph("PreviewAny", source=scene.condition(scene.mask, encoder=encoder))
    try:
        shutil.copyfile(encoders / "other.safetensors", own)
        with pytest.raises(GraphError, match="was learned with encoder"):
            server.run(graph)
        shutil.copyfile(encoders / "small.safetensors", own)
        server.run(graph)
    finally:
        own.unlink()


def test_a_damaged_library_is_left_out_of_the_list_and_named(server):
    assert not [option for option in server.options("ADiffLoadDefect", "defect") if option.startswith("damaged")]
    assert re.search(r"left out of the list: .*damaged\.safetensors", server.log)
