"""The graphs themselves, one function each; its docstring is no more than the file's name."""

from .crops import large_photo
from .dual import both_methods, generate_dual, train_a_dual_model
from .evaluation import train_a_localizer
from .filtering import filter_pairs
from .graph import OWN_SHOTS, Graph
from .guidance import fit_guidance
from .painting import BUILT_IN, SHAPES, SIZE, complete, condition, drawn, finish, load, load_defect, photos
from .placing import place_masks, vary_masks

OWN_MODEL = """
**Your own model:** put *Load Checkpoint* (any SD 1.5 checkpoint) in the place of *Load Demo Model*, a *CLIP Text
Encode* with an empty text in the place of its `empty`, and choose a defect and an encoder that were learned on that
checkpoint. Photos should then be 512 pixels or more."""
OWN_PHOTO = """
**Your own photo:** put *Load Image* in the place of *Draw Surface*. Right-click it, *Open in MaskEditor*, paint where
the defect goes, and let its `MASK` take the place of *GrowMask* (Shift and drag moves all links of an output)."""


def drawn_mask(schema: dict) -> Graph:
    """Generate from a drawn mask."""
    graph = Graph(
        schema,
        f"""
Paints a learned scratch into a photo, where the mask says, and saves image and mask in the layout of MVTec AD under
`output/adiff`. Runs as it is: the model, the encoder and the defect come with the pack.
{OWN_PHOTO}

**Another defect:** choose it in *Load Defect*, and the surface it belongs to in *Draw Surface*.
{OWN_MODEL}
""",
    )
    model, vae, empty, defect, encoder = load(graph, "metal", "scratch")
    normal = photos(graph, "metal", seed=3)
    mask = drawn(graph, SIZE, left=36, top=62, width=56, height=1, grow=2)
    graph.stage("4. Condition")
    positive, latent = condition(graph, vae=vae, defect=defect, encoder=encoder, normal=normal, mask=mask)
    graph.stage("5. Paint")
    sampler = graph.node(
        "ADiffKSampler", model=model, positive=positive, negative=empty, normal=latent, mask=mask, seed=3
    )
    finish(
        graph, "metal", "scratch", sampler["weight maps"], normal=normal, samples=sampler["latent"], mask=mask,
        vae=vae, defect=defect, model=model,
    )  # fmt: skip
    return graph


def learned_masks(schema: dict) -> Graph:
    """Generate with learned masks."""
    graph = Graph(
        schema,
        f"""
Makes masks in the manner of the defect's real ones, paints the defect into a photo each, and saves the pairs under
`output/adiff`. Runs as it is.

**More pairs:** raise `count` in *Draw Surface* and in *Generate Masks* alike. If *Filter Masks* is made stricter and
leaves fewer masks, draw as many photos as are left.

**Your own photos:** put *Load Image* in the place of *Draw Surface*; one photo serves all masks.
{OWN_MODEL}
""",
    )
    model, vae, empty, defect, encoder = load(graph, "wood", "hole")
    normal = photos(graph, "wood", seed=1, count=4)
    graph.stage("3. Masks")
    made = graph.node(
        "ADiffGenerateMasks", defect=defect, model=model, vae=vae, empty=empty, image=normal, seed=1, denoise=SHAPES
    )
    graph.column()
    kept = graph.node("ADiffFilterMasks", masks=made["masks"], defect=defect)
    mask = kept["masks"]
    graph.stage("4. Condition")
    positive, latent = condition(graph, vae=vae, defect=defect, encoder=encoder, normal=normal, mask=mask)
    graph.stage("About the masks", below=True)
    graph.node("PreviewAny", "Likeness to the real masks", source=made["report"])
    graph.node("PreviewAny", "What became of each mask", source=kept["report"])
    graph.stage("5. Paint")
    sampler = graph.node(
        "ADiffKSampler", model=model, positive=positive, negative=empty, normal=latent, mask=mask, seed=1
    )
    finish(
        graph, "wood", "hole", sampler["weight maps"], normal=normal, samples=sampler["latent"], mask=mask,
        vae=vae, defect=defect, model=model,
    )  # fmt: skip
    return graph


def stock_sampler(schema: dict) -> Graph:
    """Stock KSampler re-weighted."""
    graph = Graph(
        schema,
        f"""
The same with ComfyUI's own *KSampler*: *Set Latent Noise Mask* keeps what is outside the mask, *Apply Attention
Re-weighting* gives a MODEL that any sampler node takes (KSampler Advanced and SamplerCustom too). Runs as it is.

**A LoRA, a ControlNet:** put them between the model and *Apply Attention Re-weighting*, or at the conditioning, as
usual.
{OWN_PHOTO}
{OWN_MODEL}
""",
    )
    model, vae, empty, defect, encoder = load(graph, "tile", "stain")
    normal = photos(graph, "tile", seed=2)
    mask = drawn(graph, SIZE, left=52, top=54, width=20, height=16, grow=12)
    graph.stage("4. Condition")
    positive, latent = condition(graph, vae=vae, defect=defect, encoder=encoder, normal=normal, mask=mask)
    graph.stage("5. Paint")
    weighted = graph.node("ADiffApplyReweighting", model=model, mask=mask, normal=latent)["model"]
    masked = graph.node("SetLatentNoiseMask", samples=latent, mask=mask)["LATENT"]
    graph.column()
    sampler = graph.node(
        "KSampler", model=weighted, positive=positive, negative=empty, latent_image=masked, seed=2, steps=20, cfg=2.0,
        sampler_name="euler", scheduler="normal",
    )  # fmt: skip
    finish(
        graph, "tile", "stain", normal=normal, samples=sampler["LATENT"], mask=mask,
        vae=vae, defect=defect, model=model,
    )  # fmt: skip
    return graph


def compare_modes(schema: dict) -> Graph:
    """Compare re-weighting modes."""
    modes = ("off", "uniform", "balanced", "release")
    order = ", ".join(modes)
    graph = Graph(
        schema,
        f"""
One photo, one mask, one seed, four modes of re-weighting. In every row of results they stand in the order {order}.

*Weight maps*: grey is weight 1, lighter is more, darker is less. *Measures*: `fill` is the share of the mask that
really changed; the higher, the less of the mask is left normal. Runs as it is.

**What to try:** another `Seed for all`, another `distance`, a `reweighting_strength` of 2, another mask.
{OWN_MODEL}
""",
    )
    model, vae, empty, defect, encoder = load(graph, "wood", "hole")
    normal = photos(graph, "wood", seed=2)
    mask = drawn(graph, SIZE, left=56, top=58, width=16, height=10, grow=12)
    graph.stage("4. Condition")
    positive, latent = condition(graph, vae=vae, defect=defect, encoder=encoder, normal=normal, mask=mask)
    seed = graph.node("PrimitiveInt", "Seed for all", value=2, control="fixed")["INT"]
    graph.stage("5. Paint four times")
    painted = []
    for number, mode in enumerate(modes):
        if number == 2:
            graph.column()
        painted.append(
            graph.node(
                "ADiffKSampler", f"Re-weighting: {mode}", model=model, positive=positive, negative=empty, normal=latent,
                mask=mask, seed=seed, reweighting=mode, control="fixed",
            )
        )  # fmt: skip
    graph.stage("6. Side by side")
    halves = [
        graph.node("LatentBatch", samples1=painted[i]["latent"], samples2=painted[i + 1]["latent"])["LATENT"]
        for i in (0, 2)
    ]
    maps = [
        graph.node("ImageBatch", image1=painted[i]["weight maps"], image2=painted[i + 1]["weight maps"])["IMAGE"]
        for i in (0, 2)
    ]
    graph.column()
    four = graph.node("LatentBatch", samples1=halves[0], samples2=halves[1])["LATENT"]
    weights = graph.node("ImageBatch", image1=maps[0], image2=maps[1])["IMAGE"]
    graph.column()
    pair = graph.node("ADiffFinishPair", normal=normal, samples=four, mask=mask, vae=vae, defect=defect, model=model)
    graph.stage("7. Look", width=900)  # wide enough for four pictures in a row
    graph.node("PreviewImage", f"Images: {order}", images=pair["image"])
    graph.node("PreviewImage", f"Weight maps: {order}", images=weights)
    graph.node("PreviewImage", f"Change, brightened: {order}", images=pair["change"])
    graph.node("PreviewAny", f"Measures: {order}", source=pair["measures"])
    return graph


def prompt_and_lora(schema: dict) -> Graph:
    """Defect in a prompt with a LoRA."""
    graph = Graph(
        schema,
        """
**Needs files:** an SD 1.5 checkpoint with its text encoder (CLIP) in `models/checkpoints`, and an SD 1.5 LoRA in
`models/loras`. Choose both; without a LoRA bypass *Load LoRA* (Ctrl+B).

The prompt says what the photo shows, the LoRA gives the look of your line, and *Anomaly Conditioning* appends the
defect to the prompt.

**Choose a defect that was learned on this checkpoint**, and its encoder. The one that comes with the pack was learned
on the demo model: it runs here, but looks like nothing.

**Your own photo:** put *Load Image* in the place of *Draw Surface*, with a mask from its mask editor in the place of
*GrowMask*.
""",
    )
    graph.stage("1. Load")
    checkpoint = graph.node("CheckpointLoaderSimple", ckpt_name="v1-5-pruned-emaonly.safetensors")
    vae = checkpoint["VAE"]
    defect, encoder = load_defect(graph, "metal", "scratch")
    graph.column()
    lora = graph.node(
        "LoraLoader", model=checkpoint["MODEL"], clip=checkpoint["CLIP"], lora_name="your_lora.safetensors"
    )
    normal = photos(graph, "metal", seed=1, size=512)
    mask = drawn(graph, 512, left=144, top=248, width=224, height=4, grow=8)
    graph.stage("4. Condition")
    prompt = graph.node(
        "CLIPTextEncode", "Prompt", clip=lora["CLIP"], text="a close-up photo of a brushed metal plate"
    )["CONDITIONING"]
    negative = graph.node("CLIPTextEncode", "Negative prompt", clip=lora["CLIP"], text="")["CONDITIONING"]
    latent = graph.node("VAEEncode", pixels=normal, vae=vae)["LATENT"]
    graph.column()
    positive = graph.node(
        "ADiffAnomalyConditioning", defect=defect, mask=mask, encoder=encoder, conditioning=prompt
    )["conditioning"]
    graph.stage("5. Paint")
    sampler = graph.node(
        "ADiffKSampler", model=lora["MODEL"], positive=positive, negative=negative, normal=latent, mask=mask, seed=1,
        cfg=5.0,
    )  # fmt: skip
    finish(
        graph, "metal", "scratch", sampler["weight maps"], normal=normal, samples=sampler["latent"], mask=mask,
        vae=vae, defect=defect, model=lora["MODEL"],
    )  # fmt: skip
    return graph


def train_a_defect(schema: dict) -> Graph:
    """Train a defect from photos."""
    graph = Graph(
        schema,
        f"""
Learns a defect from eight photos with masks, saves it as a library, and paints new pairs with it under `output/adiff`.
Runs as it is, on drawn photos. **Cancel** at any time: run again, the training goes on where it was.
{OWN_SHOTS} Write the tags and licence into *Edit Library*, give the library a name of its own in *Save Library*, and
put *Load Image* with a normal photo in the place of *Draw Surface*.

**Your own model:** put *Load Checkpoint* (any SD 1.5 checkpoint) in the place of *Load Demo Model*, a *CLIP Text
Encode* with an empty text in the place of its `empty`, and remove *Load Spatial Encoder*: a new encoder is then
learned, in up to 1000 steps, as `steps` is 0. Photos should be 512 pixels or more.
""",
    )
    graph.stage("1. Load")
    demo = graph.node("ADiffLoadDemoModel")
    model, vae, empty = demo["model"], demo["vae"], demo["empty"]
    dataset = graph.node("ADiffLoadDefectDataset", data="built in: metal/scratch")
    encoder = graph.node("ADiffLoadSpatialEncoder", encoder=BUILT_IN)["encoder"]
    normal = photos(graph, "metal", seed=4, count=4)
    graph.stage("3. Learn")
    given = {"model": model, "vae": vae, "empty": empty, "seed": 0, "preview_every": 20}
    learned = graph.node("ADiffTrainDefects", dataset=dataset["dataset"], encoder=encoder, **given)
    graph.column()
    both = graph.node("ADiffTrainMasks", library=learned["library"], **given)
    library, encoder = both["library"], learned["encoder"]
    graph.column()
    # what is true of a user's own photos too: no licence is given in their name
    described = graph.node("ADiffEditLibrary", library=library, notes="learned from photos in ComfyUI")["library"]
    graph.column()
    graph.node("ADiffSaveLibrary", library=described, encoder=encoder, name="trained here", overwrite=True)
    graph.node("PreviewAny", "About the appearance", source=learned["report"])
    graph.node("PreviewAny", "About the masks", source=both["report"])
    graph.stage("4. Masks")
    defect = graph.node("ADiffPickDefect", library=library)["defect"]
    graph.column()
    made = graph.node(
        "ADiffGenerateMasks", defect=defect, model=model, vae=vae, empty=empty, image=normal, seed=1, denoise=SHAPES
    )
    mask = made["masks"]
    graph.stage("5. Paint")
    complete(
        graph, "metal", "scratch", 1, model=model, vae=vae, empty=empty, defect=defect, encoder=encoder, normal=normal,
        mask=mask,
    )  # fmt: skip
    return graph


GRAPHS = (
    drawn_mask, learned_masks, stock_sampler, compare_modes, prompt_and_lora, train_a_defect,
    train_a_localizer, train_a_dual_model, generate_dual, both_methods, filter_pairs, large_photo,
    place_masks, vary_masks, fit_guidance,
)  # fmt: skip


def file_name(graph) -> str:
    """Return the name under which the template browser shows a graph."""
    return graph.__doc__.strip().rstrip(".")
