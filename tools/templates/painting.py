"""The stages that most graphs share: what is loaded, the photos, a drawn mask, the painting, what is saved."""

from .graph import Graph, Output

BUILT_IN = "demo (built in)"
SIZE = 128
"""Pixels of the demo model's pictures."""
SHAPES = 0.6
"""How far the graphs make real masks anew: people look at them, and this keeps to the real shapes."""


def load(graph: Graph, product: str, defect: str) -> tuple[Output, ...]:
    """A stage with the demo model and a defect; returns model, vae, empty, defect, encoder."""
    graph.stage("1. Load")
    demo = graph.node("ADiffLoadDemoModel")
    return demo["model"], demo["vae"], demo["empty"], *load_defect(graph, product, defect)


def load_defect(graph: Graph, product: str, defect: str) -> tuple[Output, Output]:
    """A defect that comes with the pack, and its encoder."""
    learned = graph.node("ADiffLoadDefect", defect=f"{BUILT_IN} / {product} / {defect}")
    encoder = graph.node("ADiffLoadSpatialEncoder", encoder=BUILT_IN)
    return learned["defect"], encoder["encoder"]


def photos(
    graph: Graph, product: str, seed: int, count: int = 1, size: int = SIZE, title: str = "2. Normal photo"
) -> Output:
    """A stage below the first one with drawn photos, (count, size, size)."""
    graph.stage(title, below=True)
    return graph.node("ADiffDrawSurface", product=product, count=count, size=size, seed=seed)["image"]


def drawn(
    graph: Graph, size: int, left: int, top: int, width: int, height: int, grow: int,
    title: str = "3. Mask", core: str = "Where the defect goes",
) -> Output:  # fmt: skip
    """A stage with a rectangle grown by an octagon, in pixels, as a mask (size, size); core: the rectangle's title."""
    graph.stage(title)
    ground = graph.node("SolidMask", "Ground", value=0.0, width=size, height=size)["MASK"]
    rectangle = graph.node("SolidMask", core, value=1.0, width=width, height=height)["MASK"]
    graph.column()
    placed = graph.node("MaskComposite", destination=ground, source=rectangle, x=left, y=top, operation="add")["MASK"]
    graph.column()
    return graph.node("GrowMask", mask=placed, expand=grow)["MASK"]


def condition(graph: Graph, *, vae, defect, encoder, normal, mask) -> tuple[Output, Output]:
    """Condition and encode; returns the conditioning and the latent."""
    positive = graph.node("ADiffAnomalyConditioning", defect=defect, mask=mask, encoder=encoder)["conditioning"]
    return positive, graph.node("VAEEncode", pixels=normal, vae=vae)["LATENT"]


def paint(graph: Graph, *, model, vae, empty, defect, encoder, normal, mask, seed: int) -> dict[str, Output]:
    """Condition and encode, and in a column of its own the Anomaly KSampler; returns what that gives."""
    positive, latent = condition(graph, vae=vae, defect=defect, encoder=encoder, normal=normal, mask=mask)
    graph.column()
    return graph.node(
        "ADiffKSampler", model=model, positive=positive, negative=empty, normal=latent, mask=mask, seed=seed
    )


def complete(
    graph: Graph, product: str, name: str, seed: int, *, title: str = "6. Finish and save", model, vae, empty, defect,
    encoder, normal, mask,
) -> None:  # fmt: skip
    """`paint` and, in a stage of this title, `finish`."""
    given = {"vae": vae, "defect": defect, "normal": normal, "mask": mask, "model": model}
    painted = paint(graph, empty=empty, encoder=encoder, seed=seed, **given)
    finish(graph, product, name, title=title, samples=painted["latent"], **given)


def finish(
    graph: Graph, product: str, name: str, weights: Output | None = None, title: str = "6. Finish and save",
    **painted: Output,
) -> None:  # fmt: skip
    """A stage that finishes pairs and saves them; painted: what Finish Pair takes."""
    graph.stage(title)
    pair = graph.node("ADiffFinishPair", **painted)
    if weights is not None:
        graph.node("PreviewImage", "Weight maps: grey is 1, lighter is more", images=weights)
    graph.column()
    graph.node(
        "ADiffSavePairs", images=pair["image"], masks=pair["mask"], folder="adiff", product=product, defect=name,
        change=pair["change"], measures=pair["measures"],
    )  # fmt: skip
    graph.node("PreviewAny", "Measures", source=pair["measures"])
