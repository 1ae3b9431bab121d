"""The stage that most graphs share: a defect painted into normal photos where masks say."""

from .graph import Graph, Output


def paint(graph: Graph, *, model, vae, empty, defect, encoder, normal, mask, seed: int) -> dict[str, Output]:
    """Condition and encode, and in a column of its own the Anomaly KSampler; returns what that gives."""
    positive = graph.node("ADiffAnomalyConditioning", defect=defect, mask=mask, encoder=encoder)["conditioning"]
    latent = graph.node("VAEEncode", pixels=normal, vae=vae)["LATENT"]
    graph.column()
    return graph.node(
        "ADiffKSampler", model=model, positive=positive, negative=empty, normal=latent, mask=mask, seed=seed
    )
