"""The graph that sorts pairs by their measures; its docstring is no more than the file's name."""

from .graph import Graph
from .painting import SHAPES, load, paint, photos

PRODUCT, DEFECT, COUNT = "wood", "hole", 6
FILL = 0.6
"""What a mask must be filled to: one of the six that are painted first is not."""


def filter_pairs(schema: dict) -> Graph:
    """Keep the good pairs."""
    graph = Graph(
        schema,
        """
Paints six defects, measures each, and saves those that are really there under `output/adiff`, with masks shrunk to what
changed; the others are shown beside what is wrong with them. *Export Pairs* makes a data set of all that is saved
there, for a detector's training. Runs as it is.

**The limits** stand in *Filter Pairs*. Put the `defect` there too, and its real shots set how near to them, and how
new, a pair must be.

**Thousands of pairs** that are painted anew until they pass: `adiff generate --auto-filter --tries 4`.

**Your own photos:** put *Load Image* in the place of *Draw Surface*; one photo serves all masks.

**Your own model:** put *Load Checkpoint* in the place of *Load Demo Model*, and choose a defect and an encoder that
were learned on it.
""",
    )
    model, vae, empty, defect, encoder = load(graph, PRODUCT, DEFECT)
    normal = photos(graph, PRODUCT, seed=4, count=COUNT, title="2. Normal photos")
    graph.stage("3. Masks")
    given = {"defect": defect, "model": model, "vae": vae, "empty": empty, "image": normal, "denoise": SHAPES}
    mask = graph.node("ADiffGenerateMasks", count=COUNT, seed=4, **given)["masks"]
    graph.stage("4. Paint")
    samples = paint(
        graph, model=model, vae=vae, empty=empty, defect=defect, encoder=encoder, normal=normal, mask=mask, seed=4
    )["latent"]
    graph.stage("5. Measure and sort")
    pairs = graph.node(
        "ADiffFinishPair", normal=normal, samples=samples, mask=mask, vae=vae, defect=defect, model=model, refine=True
    )
    graph.column()
    sorted_pairs = graph.node(
        "ADiffFilterPairs", images=pairs["image"], masks=pairs["mask"], measures=pairs["measures"],
        change=pairs["change"], min_fill=FILL,
    )  # fmt: skip
    graph.stage("6. Save and look")
    saved = graph.node(
        "ADiffSavePairs", images=sorted_pairs["images"], masks=sorted_pairs["masks"], folder="adiff", product=PRODUCT,
        defect=DEFECT, change=sorted_pairs["change"], measures=sorted_pairs["measures"],
    )  # fmt: skip
    graph.node("PreviewImage", "Those that do not pass", images=sorted_pairs["rejected images"])
    graph.node("PreviewAny", "What became of each pair", source=sorted_pairs["report"])
    graph.column()
    graph.node("ADiffExportPairs", folder=saved["folder"], format="coco")
    return graph
