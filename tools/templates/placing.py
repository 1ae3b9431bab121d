"""Graphs whose masks are made of others; their docstrings are no more than the files' names."""

from .graph import Graph
from .painting import SHAPES, SIZE, complete, drawn, load, photos

PRODUCT, DEFECT, COUNT = "wood", "hole", 4
OBJECT = {"left": 48, "top": 24, "width": 32, "height": 80, "grow": 16}
"""Pixels of the object: a rectangle, grown."""


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
    model, vae, empty, defect, encoder = load(graph, PRODUCT, DEFECT)
    normal = photos(graph, PRODUCT, seed=1, count=COUNT, title="2. Normal photos")
    graph.stage("3. Masks")
    given = {"defect": defect, "model": model, "vae": vae, "empty": empty, "image": normal, "denoise": SHAPES}
    made = graph.node("ADiffGenerateMasks", count=COUNT, seed=1, **given)["masks"]
    foreground = drawn(graph, SIZE, **OBJECT, title="4. The object", core="Where the object is")
    graph.stage("5. Place")
    placed = graph.node(
        "ADiffPlaceMasks", masks=made, foreground=foreground, seed=1, turn=180.0, min_scale=0.6, max_scale=1.0
    )
    mask = placed["masks"]
    graph.column()
    graph.node("PreviewAny", "What was done to each mask", source=placed["report"])
    graph.stage("6. Paint")
    complete(
        graph, PRODUCT, DEFECT, 1, title="7. Finish and save", model=model, vae=vae, empty=empty, defect=defect,
        encoder=encoder, normal=normal, mask=mask,
    )  # fmt: skip
    return graph


def vary_masks(schema: dict) -> Graph:
    """Vary the real masks."""
    graph = Graph(
        schema,
        """
Takes the defect's real masks as new ones, mirrored, stretched, turned, scaled and moved within their own range, paints
the defects there, and saves the pairs under `output/adiff`. Nothing has to be learned for the masks, and they have the
photos' own shapes, also where few photos of long, straight or branched defects teach crooked ones. Runs as it is.

**Onto an object:** put *Place Masks* behind *Vary Shot Masks*.

**Your own photos:** put *Load Image* in the place of *Draw Surface*; all photos of a batch must have one size.

**Your own model:** put *Load Checkpoint* in the place of *Load Demo Model*, and choose a defect and an encoder that
were learned on it.
""",
    )
    model, vae, empty, defect, encoder = load(graph, "metal", "scratch")
    normal = photos(graph, "metal", seed=3, count=COUNT, title="2. Normal photos")
    graph.stage("3. Masks")
    varied = graph.node("ADiffVaryShotMasks", defect=defect, count=COUNT, seed=3, image=normal)
    mask = varied["masks"]
    graph.column()
    graph.node("PreviewAny", "Which real mask each one was", source=varied["report"])
    graph.stage("4. Paint")
    complete(
        graph, "metal", "scratch", 3, title="5. Finish and save", model=model, vae=vae, empty=empty, defect=defect,
        encoder=encoder, normal=normal, mask=mask,
    )  # fmt: skip
    return graph
