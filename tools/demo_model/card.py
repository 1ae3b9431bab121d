"""The demo model's card, written from the numbers that the gates measured."""

import textwrap
from pathlib import Path

import numpy as np

WIDTH = 118
CARD = """# The demo model

A latent diffusion model of the Stable Diffusion 1.x family (VAE with downscale 8 and 4 channels, cross-attention
context 768, eps prediction, scaled-linear schedule), trained from scratch on procedural surfaces (`adiff surfaces`) at
128 px, so that the whole method runs on a bare machine without a download. It knows six products and six kinds of
defect, as drawings; it has never seen a photograph. Four combinations are withheld from its training:
{withheld_names}.

- files: `demo.safetensors` ({model_mb:.1f} MB, fp16, single-file key layout of SD 1.5), `encoder.safetensors`
  ({encoder_mb:.1f} MB, the `small` spatial encoder, trained on the combinations that are not withheld) and
  `library.safetensors` (the withheld combinations and their masks, learned from 5 shots each)
{made}
- its context imitates captions: shuffled and dropped words for product, tint, defect, colour, size, orientation, place,
  and "mask" for mask pictures; the null token pads

## Gates, measured on unseen surfaces (`--gates-only` measures again)

| gate | measured | aim |
|---|---|---|
| VAE round trip, PSNR | {psnr:.1f} dB | 27 dB |
{kept_rows}
| conditional samples ({samples}, the product's word, guidance 3) put into the right product | {right:.0%} | 90 % |
| the classifier itself, on real surfaces | {judge:.0%} | |
| (a) place words: samples ({samples}) whose defect lies in the quadrant asked for | {hit:.0%} | chance 25 % |
| the same measure on real surfaces | {judge_place:.0%} | |

Contrast: root mean square distance of the mask's pixels to the mean colour around it, after the VAE's round trip over
before. Change: the difference that a defect makes, after the round trip, projected on the true one; this also asks for
each pixel to be in its place.

(b) A randomly initialised e_a learns each withheld combination from 5 shots (frozen encoder, 200 steps of 12), then
12 pairs each. `fill`: share of mask pixels changed by more than 10 levels, median and range; `gap`: distance of the
mean look of the generated defects to 24 unseen real ones, in levels. Control: the product's word in place of e_a, no
encoder, all else equal.

| withheld | fill, learned | gap, learned | fill, control | gap, control |
|---|---|---|---|---|
{withheld_rows}

(c) Mask inversion from the same 5 shots, 32 candidates each.

| withheld | not empty | pass all rules | mean aligned IoU between masks |
|---|---|---|---|
{mask_rows}

One seed ({seed}); spreads over seeds are a matter of benchmarks/.
"""


def write_card(path: Path, gates: dict, seed: int, history: str) -> None:
    """Write the model card; history: how the weights were trained, in words."""
    made = f"- made by `python -m tools.demo_model --work DIR` in the repository, {history}; licence Apache-2.0"

    def fills(made: dict) -> str:
        return f"{np.median(made['fill']):.2f} ({min(made['fill']):.2f}-{max(made['fill']):.2f})"

    withheld = [
        f"| {name} | {fills(row['learned'])} | {row['learned']['gap']:.1f} | {fills(row['control'])} "
        f"| {row['control']['gap']:.1f} |"
        for name, row in gates["withheld"].items()
    ]
    masks = []
    for name, row in gates["masks"].items():
        varied = row["mean_aligned_iou_between_masks"]
        masks.append(f"| {name} | {row['non_empty']:.0%} | {row['passed']:.0%} | "
                     f"{'-' if varied is None else f'{varied:.2f}'} |")  # fmt: skip
    kept = [
        f"| VAE, contrast kept of a {kind} (and share of its change) "
        f"| {share:.0%} ({gates['vae']['change'][kind]:.0%}) | 80 % |"
        for kind, share in gates["vae"]["contrast"].items()
    ]
    text = CARD.format(
        withheld_names=", ".join(gates["withheld"]), psnr=gates["vae"]["psnr_db"], kept_rows="\n".join(kept),
        right=gates["products"]["right"], judge=gates["judge"]["products_right"], hit=gates["place"]["hit_rate"],
        judge_place=gates["judge"]["quadrants_right"], withheld_rows="\n".join(withheld), mask_rows="\n".join(masks),
        model_mb=gates["sizes"]["demo.safetensors"] / 1e6, encoder_mb=gates["sizes"]["encoder.safetensors"] / 1e6,
        seed=seed, samples=gates["samples"],
        made=textwrap.fill(made, WIDTH, subsequent_indent="  ", break_on_hyphens=False),
    )  # fmt: skip
    path.write_text(text)
