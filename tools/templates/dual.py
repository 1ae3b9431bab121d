"""The graphs of the second method; the docstring of each is no more than the file's name."""

from .graph import OWN_SHOTS, Graph
from .painting import SHAPES, SIZE, load, paint

PRODUCT, DEFECT = "metal", "scratch"
FILE = f"{PRODUCT} {DEFECT}"
"""Name of the dual model that the first graph writes and the others open."""
FIRST = """
**Needs a file:** run the template *Train a dual model from photos* first; it writes `metal scratch.safetensors` into
`models/adiff_dual`. Then press R and choose it in *Load Dual*."""


def train_a_dual_model(schema: dict) -> Graph:
    """Train a dual model from photos."""
    graph = Graph(
        schema,
        f"""
Learns whole images with a defect together with the defect's part (DualAnoDiff), from eight photos with masks, writes
the model into `models/adiff_dual` and makes pairs with it. For defects that change the object's shape. Runs as it is,
on drawn photos. **Cancel** at any time: run again, the training goes on where it was.
{OWN_SHOTS} Give the model a `name` of its own, else it replaces the other. If the object does not fill the frame set
`bcm` to paper.

**Your own model:** put *Load Checkpoint* (any SD 1.5 checkpoint) in the place of *Load Demo Model*, a *CLIP Text
Encode* with an empty text in the place of its `empty`; set `steps` to 5000, `learning_rate` to 0.00002, `saim` to full.
""",
    )
    graph.stage("1. Load")
    demo = graph.node("ADiffLoadDemoModel")
    base = {"model": demo["model"], "vae": demo["vae"], "empty": demo["empty"]}
    dataset = graph.node("ADiffLoadDefectDataset", data=f"built in: {PRODUCT}/{DEFECT}")["dataset"]
    graph.stage("2. Learn")
    learned = graph.node(
        "ADiffTrainDual", dataset=dataset, **base, name=FILE, overwrite=True, steps=300, batch=4, learning_rate=0.001,
        saim="low", seed=0, preview_every=50,
    )  # fmt: skip
    graph.column()
    graph.node("PreviewAny", "What was learned", source=learned["report"])
    graph.stage("3. Make pairs")
    pair = graph.node("ADiffDualSampler", **base, dual=learned["dual"], seed=1)
    graph.stage("4. Save")
    _save(graph, pair)
    return graph


def generate_dual(schema: dict) -> Graph:
    """Generate with a dual model."""
    graph = Graph(
        schema,
        f"""
Makes whole images with a defect, each together with its part, reads the mask off the part, and saves the pairs under
`output/adiff`. No normal photo and no mask are needed.
{FIRST}

**More pairs:** raise `pairs`, or run it again with another `seed`; nothing is overwritten.

**A mask by another node:** feed `part` to a segmentation node, and put its mask in the place of `mask`.

**Your own model:** put *Load Checkpoint* in the place of *Load Demo Model*, a *CLIP Text Encode* with an empty text in
the place of its `empty`, and choose a dual model that was learned on that checkpoint.
""",
    )
    graph.stage("1. Load")
    demo = graph.node("ADiffLoadDemoModel")
    dual = graph.node("ADiffLoadDual", dual=f"{FILE}.safetensors")
    graph.stage("2. Make pairs")
    graph.node("PreviewAny", "About the dual model", source=dual["report"])
    pair = graph.node(
        "ADiffDualSampler", model=demo["model"], vae=demo["vae"], empty=demo["empty"], dual=dual["dual"], seed=1
    )
    graph.stage("3. Save")
    _save(graph, pair)
    return graph


def both_methods(schema: dict) -> Graph:
    """The two methods side by side."""
    graph = Graph(
        schema,
        f"""
One defect, made in both ways. Above: AnomalyDiffusion paints it into normal photos, where learned masks say. Below:
DualAnoDiff makes image and part together. Compare how the defect sits in the object, and how well the mask fits it.
{FIRST}

**Which one?** Painting keeps your photo outside the mask bit for bit and puts the defect where you want it. Making both
together suits defects that change the object's shape; its images are new as a whole.

**Another defect:** choose it in *Load Defect* and in *Load Dual* alike, and its surface in *Draw Surface*.
""",
    )
    model, vae, empty, defect, encoder = load(graph, PRODUCT, DEFECT)
    normal = graph.node("ADiffDrawSurface", product=PRODUCT, count=4, size=SIZE, seed=4)["image"]
    dual = graph.node("ADiffLoadDual", dual=f"{FILE}.safetensors")["dual"]
    graph.stage("2. AnomalyDiffusion")
    made = graph.node(
        "ADiffGenerateMasks", defect=defect, model=model, vae=vae, empty=empty, image=normal, seed=1, denoise=SHAPES
    )
    mask = made["masks"]
    graph.column()
    painted = paint(
        graph, model=model, vae=vae, empty=empty, defect=defect, encoder=encoder, normal=normal, mask=mask, seed=1
    )["latent"]
    graph.column()
    pair = graph.node(
        "ADiffFinishPair", normal=normal, samples=painted, mask=mask, vae=vae, defect=defect, model=model
    )
    graph.stage("3. DualAnoDiff", below=True)
    other = graph.node("ADiffDualSampler", model=model, vae=vae, empty=empty, dual=dual, seed=1)
    graph.stage("4. Masks as pictures")
    masks = [graph.node("MaskToImage", mask=found["mask"])["IMAGE"] for found in (pair, other)]
    graph.stage("5. Side by side", width=900)
    for title, found, shown in (("AnomalyDiffusion", pair, masks[0]), ("DualAnoDiff", other, masks[1])):
        graph.node("PreviewImage", f"{title}: images", images=found["image"])
        graph.node("PreviewImage", f"{title}: masks", images=shown)
    graph.node("PreviewAny", "AnomalyDiffusion: measures", source=pair["measures"])
    graph.node("PreviewAny", "DualAnoDiff: measures", source=other["measures"])
    return graph


def _save(graph: Graph, pair) -> None:
    graph.node("PreviewImage", "Parts", images=pair["part"])
    graph.node("PreviewAny", "Measures", source=pair["measures"])
    graph.column()
    graph.node(
        "ADiffSavePairs", images=pair["image"], masks=pair["mask"], folder="adiff", product=PRODUCT, defect=DEFECT,
        measures=pair["measures"],
    )  # fmt: skip
