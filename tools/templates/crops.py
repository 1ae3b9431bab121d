"""The graph that paints a small defect into a large photo; its docstring is no more than the file's name."""

from .graph import Graph
from .painting import paint

PRODUCT, DEFECT = "metal", "scratch"
PHOTO, CROP = 512, 128
"""Pixels of the photo's side, and of the model's image."""


def large_photo(schema: dict) -> Graph:
    """Paint a small defect into a large photo."""
    graph = Graph(
        schema,
        """
Paints a scratch of 50 pixels into a photo four times as large as the model's image, in full detail: *Crop to Mask* cuts
its surroundings out at the model's size, *Stitch* puts them back. Outside the mask the photo stays as it was, bit for
bit. The memory does not depend on the photo's size. Runs as it is.

**Your own photo:** put *Load Image* in the place of *Draw Surface*. Right-click it, *Open in MaskEditor*, paint where
the defect goes, in as many parts as you like, and let its `MASK` take the place of *GrowMask*. Parts far from each
other get a crop each (`parts`).

**Your own model:** put *Load Checkpoint* (any SD 1.5 checkpoint) in the place of *Load Demo Model*, a *CLIP Text
Encode* with an empty text in the place of its `empty`, set `size` in *Crop to Mask* to 512, and choose a defect and an
encoder that were learned on that checkpoint.
""",
    )
    graph.stage("1. Load")
    demo = graph.node("ADiffLoadDemoModel")
    defect = graph.node("ADiffLoadDefect", defect=f"demo (built in) / {PRODUCT} / {DEFECT}")["defect"]
    encoder = graph.node("ADiffLoadSpatialEncoder", encoder="demo (built in)")["encoder"]
    model, vae, empty = demo["model"], demo["vae"], demo["empty"]
    graph.stage("2. Large photo", below=True)
    photo = graph.node("ADiffDrawSurface", product=PRODUCT, count=1, size=PHOTO, seed=3)["image"]
    graph.stage("3. Mask")
    ground = graph.node("SolidMask", "Ground", value=0.0, width=PHOTO, height=PHOTO)["MASK"]
    core = graph.node("SolidMask", "Where the defect goes", value=1.0, width=46, height=2)["MASK"]
    graph.column()
    placed = graph.node("MaskComposite", destination=ground, source=core, x=150, y=300, operation="add")["MASK"]
    graph.column()
    drawn = graph.node("GrowMask", mask=placed, expand=2)["MASK"]
    graph.stage("4. Crop")
    crop = graph.node("ADiffCropToMask", image=photo, mask=drawn, size=CROP)
    normal, mask = crop["image"], crop["mask"]
    graph.stage("5. Paint")
    samples = paint(
        graph, model=model, vae=vae, empty=empty, defect=defect, encoder=encoder, normal=normal, mask=mask, seed=3
    )["latent"]
    graph.stage("6. Finish, stitch and save")
    pair = graph.node(
        "ADiffFinishPair", normal=normal, samples=samples, mask=mask, vae=vae, defect=defect, model=model
    )  # fmt: skip
    graph.column()
    whole = graph.node(
        "ADiffStitch", images=pair["image"], crop=crop["crop"], masks=pair["mask"], measures=pair["measures"]
    )  # fmt: skip
    graph.node("PreviewImage", "The crop, painted", images=pair["image"])
    graph.column()
    graph.node(
        "ADiffSavePairs", images=whole["image"], masks=whole["mask"], folder="adiff", product=PRODUCT, defect=DEFECT,
        measures=whole["measures"],
    )  # fmt: skip
    graph.node("PreviewAny", "Measures", source=whole["measures"])
    return graph
