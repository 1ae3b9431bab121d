"""The graph that places masks on an object; its docstring is no more than the file's name."""

from .graph import Graph
from .painting import paint

PRODUCT, DEFECT, COUNT = "wood", "hole", 4
SIZE, LEFT, TOP, WIDTH, HEIGHT, GROW = 128, 48, 24, 32, 80, 16
"""Pixels of a photo's side, and of the object: a rectangle, grown."""


def place_masks(schema: dict) -> Graph:
    """Place masks on an object."""
    graph = Graph(
        schema,
        """
Samples masks in the manner of the real ones, moves, turns and scales each onto the object, never off it, paints the
defects there, and saves the pairs under `output/adiff`. The object is drawn here, as an upright shape in the middle of
the photo. Runs as it is.

**Your own photos:** put *Load Image* in the place of *Draw Surface*. The object is then found by itself: remove the
link into `foreground`, and give the photos to `normals` (`find` says how). Or right-click *Load Image*, *Open in
MaskEditor*, paint the object, and give its `MASK` to `foreground`.

**Where on the object:** `edge` keeps masks near its edge or away from it. Give the `defect` to *Place Masks*, and turns
and sizes follow its real masks. *What was done to each mask* also tells which did not fit.

**Your own model:** put *Load Checkpoint* in the place of *Load Demo Model*, and choose a defect and an encoder that
were learned on it.
""",
    )
    graph.stage("1. Load")
    demo = graph.node("ADiffLoadDemoModel")
    defect = graph.node("ADiffLoadDefect", defect=f"demo (built in) / {PRODUCT} / {DEFECT}")["defect"]
    encoder = graph.node("ADiffLoadSpatialEncoder", encoder="demo (built in)")["encoder"]
    model, vae, empty = demo["model"], demo["vae"], demo["empty"]
    graph.stage("2. Normal photos", below=True)
    normal = graph.node("ADiffDrawSurface", product=PRODUCT, count=COUNT, size=SIZE, seed=1)["image"]
    graph.stage("3. Masks")
    given = {"defect": defect, "model": model, "vae": vae, "empty": empty, "image": normal}
    made = graph.node("ADiffGenerateMasks", count=COUNT, seed=1, **given)["masks"]
    graph.stage("4. The object")
    ground = graph.node("SolidMask", "Ground", value=0.0, width=SIZE, height=SIZE)["MASK"]
    core = graph.node("SolidMask", "Where the object is", value=1.0, width=WIDTH, height=HEIGHT)["MASK"]
    graph.column()
    drawn = graph.node("MaskComposite", destination=ground, source=core, x=LEFT, y=TOP, operation="add")["MASK"]
    graph.column()
    foreground = graph.node("GrowMask", mask=drawn, expand=GROW)["MASK"]
    graph.stage("5. Place")
    placed = graph.node(
        "ADiffPlaceMasks", masks=made, foreground=foreground, seed=1, turn=180.0, min_scale=0.6, max_scale=1.0
    )
    mask = placed["masks"]
    graph.column()
    graph.node("PreviewAny", "What was done to each mask", source=placed["report"])
    graph.stage("6. Paint")
    samples = paint(
        graph, model=model, vae=vae, empty=empty, defect=defect, encoder=encoder, normal=normal, mask=mask, seed=1
    )["latent"]
    graph.stage("7. Finish and save")
    pairs = graph.node(
        "ADiffFinishPair", normal=normal, samples=samples, mask=mask, vae=vae, defect=defect, model=model
    )
    graph.column()
    graph.node(
        "ADiffSavePairs", images=pairs["image"], masks=pairs["mask"], folder="adiff", product=PRODUCT, defect=DEFECT,
        change=pairs["change"], measures=pairs["measures"],
    )  # fmt: skip
    graph.node("PreviewAny", "Measures", source=pairs["measures"])
    return graph
