"""What a training step of a pair takes of a GPU, and whether its blocks have to be checkpointed to fit.

Of SD 1.5 at 512 px a pair keeps 4.4 GiB for the way back (2.6 in half precision); with checkpointing 0.55 (0.28), and
the inside of one block at a time, at most 0.2 in half precision. What is learned takes 16 bytes a parameter: 2.2 GB for
the LoRAs and full SAIM, 0.3 GB with the low-rank one. So batches of 4 pairs come to about 6 GB with the model in half
precision. AdamW's states in 8 bits would save 0.8 GB of full SAIM's and 0.1 GB of the other's, a pair's share at most.
"""

from __future__ import annotations

import logging

from ..backbone.attentions import EditableBackbone

log = logging.getLogger("adiff")

KEPT = {8: 1_145_268, 4: 572_634, 2: 342_418}
"""Bytes that a row's latent cell keeps for the way back, by the bytes of a number (SD 1.5 with full SAIM, counted; of 8
bytes, which only a graph's host computes in, twice those of 4)."""
STATES = 16
"""Bytes of a parameter that is learned: itself, its gradient, AdamW's two moments, all float32."""


def needs_checkpoints(backbone: EditableBackbone, parameters: int, rows: int, size: int) -> bool:
    """Whether a training of `parameters` on batches of `rows` squares of `size` pixels does not fit without.

    Where the device does not say what it holds, and on CPUs, it is taken to fit.
    """
    cells = (size // backbone.latent_downscale) ** 2
    needed = STATES * parameters + KEPT[max(2, backbone.edited_dtype.itemsize)] * rows * cells
    room = backbone.room
    if room is None or needed <= room:
        return False
    log.info(
        "a step asks for %.1f GB of memory and there are %.1f: the model's blocks are computed twice, which takes up "
        "to half more time and far less memory", needed / 1e9, room / 1e9,
    )  # fmt: skip
    return True
