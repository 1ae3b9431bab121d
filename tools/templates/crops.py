"""The graph that paints a small defect into a large photo; its docstring is no more than the file's name."""

from .graph import Graph
from .painting import SIZE, drawn, load, paint, photos

PRODUCT, DEFECT = "metal", "scratch"
PHOTO = 512
"""Pixels of the photo's side."""


def large_photo(schema: dict) -> Graph:
    """Small defect in a large photo."""
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
    model, vae, empty, defect, encoder = load(graph, PRODUCT, DEFECT)
    photo = photos(graph, PRODUCT, seed=3, size=PHOTO, title="2. Large photo")
    whole_mask = drawn(graph, PHOTO, left=150, top=300, width=46, height=2, grow=2)
    graph.stage("4. Crop")
    crop = graph.node("ADiffCropToMask", image=photo, mask=whole_mask, size=SIZE)
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
