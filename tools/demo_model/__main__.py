"""Train the demo model from nothing and write what ships: `python -m tools.demo_model --work DIR`.

Every phase resumes where it was stopped. On 2 CPU cores it takes hours, on a GPU minutes.
"""

import argparse
import json
import logging
import time
from pathlib import Path

import torch

from adiff.backbone import demo_folder
from adiff.backbone.diffusers_host import DiffusersBackbone
from adiff.backbone.loading import Parts, load_single_file, save_single_file
from adiff.spatial_encoder import load_encoder

from .bank import SIZE, WORDS, load_bank
from .card import write_card
from .encoder import train_encoder
from .gates import run_gates
from .library import train_library
from .unet import CONFIG, NULL, train_unet
from .vae import CONFIG as VAE_CONFIG
from .vae import sharpen_decoder, train_vae

log = logging.getLogger("adiff")


class Journal:
    """Progress as lines of JSON in a file."""

    def __init__(self, path: Path):
        self.path = path

    def start(self, total: int, what: str) -> None:
        """Begin a phase."""
        self.what, self.total, self.began = what, total, time.monotonic()

    def update(self, done: int, **info: float) -> None:
        """Write every fiftieth step."""
        if done % 50 == 0:
            line = {"phase": self.what, "step": done, "of": self.total, **info}
            with self.path.open("a") as file:
                file.write(json.dumps({**line, "seconds": round(time.monotonic() - self.began)}) + "\n")

    def finish(self) -> None:
        """End a phase."""


def main() -> None:
    """Run all phases: pictures, VAE, U-Net, encoder, gates, model card."""
    options = argparse.ArgumentParser(prog="python -m tools.demo_model", description=__doc__)
    options.add_argument("--work", type=Path, required=True, help="folder for pictures, states and the journal")
    options.add_argument("--out", type=Path, default=demo_folder(), help="folder of the shipped files")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--vae-steps", type=int, default=3000)
    options.add_argument("--full-size-steps", type=int, default=150)
    options.add_argument("--decoder-steps", type=int, default=240, help="on contrast, at full size")
    options.add_argument("--unet-steps", type=int, default=6000)
    options.add_argument("--encoder-steps", type=int, default=500)
    options.add_argument("--normals", type=int, default=400, help="pictures of each product")
    options.add_argument("--defects", type=int, default=250, help="pictures of each known combination")
    options.add_argument("--gates-only", action="store_true", help="measure the shipped files again")
    options.add_argument("--samples", type=int, default=200, help="conditional samples of each gate on words")
    options.add_argument("--history", default="in one go", help="how the weights were trained, for the card")
    chosen = options.parse_args()
    logging.basicConfig(level=logging.INFO)
    chosen.work.mkdir(parents=True, exist_ok=True)
    journal = Journal(chosen.work / "journal.jsonl")
    bank = load_bank(chosen.work / "bank", chosen.seed, chosen.normals, chosen.defects)
    if not chosen.gates_only:
        train(chosen, bank, journal)
    gates = run_gates(chosen.out, bank, chosen.seed, chosen.work, chosen.samples)
    write_card(chosen.out / "MODEL_CARD.md", gates, chosen.seed, chosen.history)


def train(chosen: argparse.Namespace, bank, journal: Journal) -> None:
    """Train and write demo.safetensors, then encoder and library on top of the file as it is read back."""
    vae = train_vae(bank, chosen.work, seed=chosen.seed, steps=chosen.vae_steps,
                    full_size_steps=chosen.full_size_steps, progress=journal)  # fmt: skip
    sharpen_decoder(bank, vae, chosen.work, seed=chosen.seed, steps=chosen.decoder_steps, progress=journal)
    unet, words = train_unet(bank, vae, chosen.work, seed=chosen.seed, steps=chosen.unet_steps, progress=journal)
    ship(chosen.out, unet, vae, words)
    backbone = DiffusersBackbone("demo", load_single_file(chosen.out / "demo.safetensors"), torch.device("cpu"),
                                 torch.float32)  # fmt: skip
    train_encoder(bank, backbone, chosen.out / "encoder.safetensors", seed=chosen.seed, steps=chosen.encoder_steps,
                  progress=journal, state=chosen.work / "encoder.safetensors")  # fmt: skip
    encoder, _ = load_encoder(chosen.out / "encoder.safetensors")
    train_library(backbone, encoder, chosen.out / "library.safetensors", seed=chosen.seed, progress=journal)


def ship(folder: Path, unet, vae, words: torch.Tensor) -> None:
    """Write demo.safetensors: both networks, the null context and the word vectors that the gates need."""
    extra = {"heads": CONFIG["attention_head_dim"], "vae_groups": VAE_CONFIG["norm_num_groups"], "native_size": SIZE,
             "words": list(WORDS), "licence": "Apache-2.0"}  # fmt: skip
    null = words[NULL].expand(1, 12, -1)
    save_single_file(folder / "demo.safetensors", Parts(unet, vae, null), extra, {"adiff.words": words})


if __name__ == "__main__":
    main()
