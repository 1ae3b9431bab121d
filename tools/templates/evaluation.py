"""The graph that evaluates; its docstring is no more than the file's name."""

from .graph import Graph
from .painting import SIZE

PRODUCT, DEFECT = "metal", "scratch"


def train_a_localizer(schema: dict) -> Graph:
    """Train and test a localizer."""
    graph = Graph(
        schema,
        """
Learns to find a defect from three real shots and pairs made of them, then tells how well it finds real defects that
nothing learned from. Runs as it is, on drawn photos.

**Are painted pairs worth it?** Put the `image` and `mask` of *Finish Pair* in the place of *Paste Baseline*'s and
compare the tables: the same photos, the same number of pairs, the same steps. Run it with several seeds, as one run may
be luck.

**Your own photos:** choose your folder in both *Load Defect Dataset* nodes, few shots above and all of them below, and
put *Load Image* with normal photos in the place of *Draw Surface*. What is learned from is left out of the test.

**To keep the localizer** give *Train Localizer* a name; *Load Localizer* lists it after R.
""",
    )
    data = f"built in: {PRODUCT}/{DEFECT}"
    graph.stage("1. Real photos")
    shots = graph.node("ADiffLoadDefectDataset", "Shots to learn from", data=data, shots=3)["dataset"]
    tested = graph.node("ADiffLoadDefectDataset", "Photos to test on", data=data, shots=20)["dataset"]
    graph.stage("2. Photos without defects", below=True)
    surface = {"product": PRODUCT, "size": SIZE, "control": "fixed"}
    normals = graph.node("ADiffDrawSurface", "To learn from", count=16, seed=1, **surface)["image"]
    good = graph.node("ADiffDrawSurface", "To test on", count=8, seed=2, **surface)["image"]
    graph.stage("3. Pairs")
    made = {"method": "crop-paste", "seed": 1, "control": "fixed"}
    pairs = graph.node("ADiffPasteBaseline", "Pairs to learn from", normals=normals, shots=shots, count=32, **made)
    other = graph.node("ADiffPasteBaseline", "Pairs to look at", normals=good, shots=tested, count=4, **made)
    graph.stage("4. Learn")
    learned = graph.node(
        "ADiffTrainLocalizer", images=pairs["image"], masks=pairs["mask"], normals=normals, shots=shots, steps=200
    )  # fmt: skip
    localizer = learned["localizer"]
    graph.stage("5. Test")
    scored = graph.node("ADiffScoreDataset", dataset=tested, taught=shots, localizer=localizer, normals=good)
    seen = graph.node("ADiffLocalize", localizer=localizer, image=other["image"])
    graph.stage("6. Look", width=900)
    graph.node("PreviewImage", "How well it finds real defects", images=scored["table"])
    graph.node("PreviewImage", "Real photos, and what it saw", images=scored["sheet"])
    graph.node("PreviewAny", "About the training", source=learned["report"])
    graph.node("PreviewAny", "Scores of the pairs to look at", source=seen["report"])
    return graph
