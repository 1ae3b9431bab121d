"""The graph that finds a defect's guidance; its docstring is no more than the file's name."""

from .graph import Graph
from .painting import condition, finish, load, photos

PRODUCT, DEFECT, COUNT, SEED = "metal", "scratch", 8, 3


def fit_guidance(schema: dict) -> Graph:
    """Find the guidance."""
    graph = Graph(
        schema,
        """
How strongly should the sampler follow the defect? *Fit Guidance* paints the photos with one `cfg` after another,
compares what comes out with the real shots, and gives the best one to *Anomaly KSampler*. Scratches, holes and stains
want different values, and so do base models. Runs as it is.

**The sheet** shows what was painted with each value, and how far its mean look is from that of the shots.

**Run it again** for other scratches in the same masks: the guidance is found once, as long as nothing in front of *Fit
Guidance* changes.

**More photos tell better:** raise `count` in *Draw Surface* and *Vary Shot Masks* alike, to 16. A value that is found
can be typed into `cfg` wherever the defect is painted with the same model.

**Your own model:** put *Load Checkpoint* in the place of *Load Demo Model*, and choose a defect and an encoder that
were learned on it. `adiff generate --guidance auto` does the same from the command line.
""",
    )
    model, vae, empty, defect, encoder = load(graph, PRODUCT, DEFECT)
    normal = photos(graph, PRODUCT, seed=SEED, count=COUNT, title="2. Normal photos")
    graph.stage("3. Masks")
    mask = graph.node(
        "ADiffVaryShotMasks", defect=defect, count=COUNT, seed=SEED, image=normal, control="fixed"
    )["masks"]  # fmt: skip
    graph.stage("4. Condition")
    positive, latent = condition(graph, vae=vae, defect=defect, encoder=encoder, normal=normal, mask=mask)
    graph.stage("5. Find the guidance")
    fit = graph.node(
        "ADiffFitGuidance", defect=defect, model=model, positive=positive, negative=empty, vae=vae, images=normal,
        mask=mask, seed=SEED,
    )  # fmt: skip
    graph.column()
    graph.node("PreviewAny", "How far each value is from the shots", source=fit["report"])
    graph.stage("6. Paint")
    sampler = graph.node(
        "ADiffKSampler", model=model, positive=positive, negative=empty, normal=latent, mask=mask, seed=SEED,
        cfg=fit["cfg"],
    )  # fmt: skip
    finish(
        graph, PRODUCT, DEFECT, title="7. Finish and save", normal=normal, samples=sampler["latent"], mask=mask,
        vae=vae, defect=defect, model=model,
    )  # fmt: skip
    return graph
