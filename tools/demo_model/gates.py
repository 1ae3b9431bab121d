"""The gates that the demo model must pass before anything is built on it, measured on unseen surfaces."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from scipy import ndimage

from adiff.backbone import Backbone
from adiff.backbone.diffusers_host import DiffusersBackbone
from adiff.backbone.loading import load_single_file
from adiff.datasets.images import Photo
from adiff.datasets.surfaces import DEFECTS, PRODUCTS, WITHHELD, render, sample_seed
from adiff.embedding import Condition
from adiff.generation import GenerationSettings, make_pairs
from adiff.generation.mask import draw_candidates
from adiff.generation.sampler import sample_plain
from adiff.generation.seeds import generator_for
from adiff.generation.settings import MaskSampling
from adiff.masks import MaskRules, aligned_iou, check_mask, clean_mask
from adiff.pixels import as_images
from adiff.spatial_encoder import SpatialEncoder, load_encoder
from adiff.training import AnomalySettings, MaskSettings, train_anomalies, train_masks

from .bank import SIZE, WORDS, Bank, mask_pictures
from .judge import Judge, quadrants, train_judge
from .unet import NULL, caption_tokens

QUADRANTS = ("top-left", "top-right", "bottom-left", "bottom-right")
SHOTS = 5


@torch.no_grad()
def vae_gate(backbone: Backbone, seed: int, count: int = 8) -> dict:
    """Round-trip PSNR on unseen surfaces, and how much of each kind of defect the VAE keeps, by two measures.

    contrast: root mean square distance of the mask's pixels to the mean colour of the surroundings (a ring of 8
    pixels), after the round trip over before. change: the round trip's difference between a surface with and without
    its defect, projected on the true one, inside the mask; it also asks for each pixel to be in its place.
    """
    errors, contrasts, changes = [], {kind: [] for kind in DEFECTS}, {kind: [] for kind in DEFECTS}
    for product in PRODUCTS:
        for kind in DEFECTS:
            for index in range(count):
                seeds = [sample_seed(seed, product, kind, "gate", index) for _ in range(2)]
                bad, good = render(product, kind, SIZE, seeds[0]), render(product, None, SIZE, seeds[1])
                pair = as_images(np.stack([bad.image, good.image]))
                rebuilt = backbone.decode(backbone.encode(pair)).clamp(-1, 1)
                errors.append((rebuilt[0] - pair[0]).square().mean().item() / 4)
                inside = torch.from_numpy(bad.mask)
                change, kept = (pair[0] - pair[1])[:, inside], (rebuilt[0] - rebuilt[1])[:, inside]
                changes[kind].append((change * kept).sum().item() / change.square().sum().item())
                contrasts[kind].append(_contrast(rebuilt[0], bad.mask) / _contrast(pair[0], bad.mask))

    def means(shares: dict[str, list[float]]) -> dict[str, float]:
        return {kind: float(np.mean(of_kind)) for kind, of_kind in shares.items()}

    psnr = float(-10 * np.log10(np.mean(errors)))
    return {"psnr_db": psnr, "contrast": means(contrasts), "change": means(changes)}


def _contrast(image: torch.Tensor, mask: np.ndarray) -> float:
    """Root mean square distance of the pixels of a mask (S, S) to its surroundings' mean colour; image (3, S, S)."""
    ring = ndimage.binary_dilation(mask, iterations=10) & ~ndimage.binary_dilation(mask, iterations=2)
    around = image[:, torch.from_numpy(ring)].mean(1, keepdim=True)
    return (image[:, torch.from_numpy(mask)] - around).square().mean().sqrt().item()


def _caption(words: torch.Tensor, captions: list[list[str]]) -> Condition:
    tokens = np.stack([caption_tokens([WORDS.index(w) for w in c]) for c in captions])
    context = words[torch.from_numpy(tokens)]
    return Condition(context, (0, context.shape[1]))


@torch.no_grad()
def product_gate(backbone: Backbone, words: torch.Tensor, judge: Judge, seed: int, count: int) -> dict:
    """Share of conditional samples that the judge assigns to the product asked for."""
    asked = [PRODUCTS[i % len(PRODUCTS)] for i in range(count)]
    images = _sample(backbone, _caption(words, [[p] for p in asked]), seed, "product", guidance=3.0)
    said = judge(images)[0].argmax(1).tolist()
    right = [PRODUCTS[s] == a for s, a in zip(said, asked, strict=True)]
    each = {p: float(np.mean([r for r, a in zip(right, asked, strict=True) if a == p])) for p in PRODUCTS}
    return {"right": float(np.mean(right)), "each": each, "images": images}


@torch.no_grad()
def place_gate(backbone: Backbone, words: torch.Tensor, judge: Judge, seed: int, count: int) -> dict:
    """Gate (a): share of samples whose defect lies in the quadrant asked for; chance is 0.25."""
    rng = np.random.default_rng(seed)
    known = [(p, d) for p in PRODUCTS for d in DEFECTS if (p, d) not in WITHHELD and p != "gasket"]
    asked = [(*known[int(rng.integers(len(known)))], QUADRANTS[i % 4]) for i in range(count)]
    images = _sample(backbone, _caption(words, [list(a) for a in asked]), seed, "place", guidance=3.0)
    said = quadrants(judge(images)[1])
    seen = [s is not None for s in said]
    hits = [s == a[2] for s, a in zip(said, asked, strict=True)]
    return {"hit_rate": float(np.mean(hits)), "defect_seen": float(np.mean(seen)), "chance": 0.25, "images": images}


def _sample(backbone: Backbone, condition: Condition, seed: int, purpose: str, guidance: float, batch: int = 40):
    images = []
    for start in range(0, len(condition.context), batch):
        part = Condition(condition.context[start : start + batch], condition.span)
        generators = [generator_for(seed, purpose, start + i) for i in range(len(part.context))]
        images.append(backbone.decode(sample_plain(backbone, part, 25, guidance, generators)).clamp(-1, 1))
    return torch.cat(images)


def shots_of(seed: int, key: tuple[str, str], count: int, split: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw `count` surfaces of one combination as (image, mask)."""
    drawn = [render(*key, SIZE, sample_seed(seed, *key, split, i)) for i in range(count)]
    return [(s.image, s.mask) for s in drawn]


def look(image: np.ndarray, normal: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Appearance of a defect: mean and spread of the change that it makes, per channel, (6,) levels."""
    change = image[mask].astype(float) - normal[mask]
    return np.concatenate([change.mean(0), change.std(0)])


def withheld_gate(backbone: Backbone, words: torch.Tensor, encoder: SpatialEncoder | None, seed: int, count: int = 12,
                  settings: GenerationSettings | None = None, steps: int = 200) -> dict:
    """Gate (b): a random e_a learns a withheld combination from 5 shots; compared with the product's own words.

    fill: share of mask pixels changed; gap: distance between the mean look of the generated and of real defects of the
    same combination (24 unseen ones), in levels; control: the same under the words of the normal product.
    """
    settings = settings or GenerationSettings()
    shots = {key: shots_of(seed, key, SHOTS, "shots") for key in WITHHELD}
    learned = train_anomalies(backbone, shots, encoder, freeze_encoder=True, seed=seed,
                              settings=AnomalySettings(steps=steps, batch=12, early_stop=False))
    out = {}
    for key in WITHHELD:
        product, _ = key
        masks = [render(*key, SIZE, sample_seed(seed, *key, "masks", i)).mask for i in range(count)]
        normals = [render(product, None, SIZE, sample_seed(seed, product, None, "gate", i)).image for i in range(count)]
        truth = [(render(*key, SIZE, sample_seed(seed, *key, "true", i)),
                  render(product, None, SIZE, sample_seed(seed, *key, "true", i))) for i in range(24)]
        real = np.mean([look(b.image, g.image, b.mask) for b, g in truth], axis=0)
        plain = words[torch.tensor([WORDS.index(product)] + [NULL] * 7)]
        row = {}
        for name, e_a in (("learned", learned.embeddings[key]), ("control", plain)):
            photos = [Photo(n, Path(f"normal-{i}")) for i, n in enumerate(normals)]
            generators = [generator_for(seed, "withheld", i) for i in range(count)]
            where = encoder if name == "learned" else None
            pairs = make_pairs(backbone, photos, masks, e_a, where, settings, generators)
            looks = [look(p.image, n, m) for p, n, m in zip(pairs, normals, masks, strict=True)]
            row[name] = {"fill": [round(p.measures["fill"], 3) for p in pairs],
                         "gap": float(np.abs(np.mean(looks, axis=0) - real).mean())}
            row[name]["images"] = [(n, m, p.image) for p, n, m in zip(pairs, normals, masks, strict=True)]
        out["/".join(key)] = row
    return out


def mask_gate(backbone: Backbone, seed: int, count: int = 32, steps: int = 150) -> dict:
    """Gate (c): masks inverted from 5 shots of each withheld combination: which pass the rules, and how they vary."""
    masks = {key: [m for _, m in shots_of(seed, key, SHOTS, "shots")] for key in WITHHELD}
    learned = train_masks(backbone, masks, seed=seed, settings=MaskSettings(steps=steps, batch=12, early_stop=False))
    out = {}
    for key in WITHHELD:
        rules = MaskRules.from_shots(masks[key])
        drawn = draw_candidates(backbone, learned.embeddings[key], count, MaskSampling(), seed, 0)
        cleaned = [clean_mask(m, rules.min_component) for m in drawn]
        passed = [m for m in cleaned if not check_mask(m, rules)]
        pairs = [aligned_iou(passed[i], passed[i + 1]) for i in range(len(passed) - 1)]
        out["/".join(key)] = {
            "non_empty": float(np.mean([m.any() for m in cleaned])),
            "passed": len(passed) / count,
            "mean_aligned_iou_between_masks": float(np.mean(pairs)) if pairs else None,
            "images": drawn,
        }
    return out


def run_gates(folder: Path, bank: Bank, seed: int, work: Path, samples: int = 200) -> dict:
    """Measure the shipped files in `folder`; numbers to work/gates.json, samples as pictures beside it.

    samples: conditional samples of each of the two gates on words.
    """
    parts = load_single_file(folder / "demo.safetensors")
    backbone = DiffusersBackbone("demo", parts, torch.device("cpu"), torch.float32)
    with safe_open(folder / "demo.safetensors", "pt") as file:
        words = file.get_tensor("adiff.words").float()
    encoder, _ = load_encoder(folder / "encoder.safetensors")
    judge = train_judge(bank, seed=seed)
    gates = {
        "vae": vae_gate(backbone, seed),
        "judge": judge_gate(judge, seed),
        "samples": samples,
        "products": product_gate(backbone, words, judge, seed, samples),
        "place": place_gate(backbone, words, judge, seed, samples),
        "withheld": withheld_gate(backbone, words, encoder, seed),
        "masks": mask_gate(backbone, seed),
    }
    for name in ("products", "place"):
        images = gates[name].pop("images")
        save_sheet(((images[:48] + 1) * 127.5).byte().permute(0, 2, 3, 1).numpy(), work / f"{name}.png")
    for key, row in gates["withheld"].items():
        for kind, made in row.items():
            triples = [np.concatenate([n, np.repeat(m[..., None], 3, 2) * np.uint8(255), p], 1) for n, m, p in
                       made.pop("images")]  # fmt: skip
            save_sheet(np.stack(triples), work / f"withheld-{key.replace('/', '-')}-{kind}.png", columns=3)
    for key, row in gates["masks"].items():
        save_sheet(mask_pictures(row.pop("images")), work / f"masks-{key.replace('/', '-')}.png")
    gates["sizes"] = {name: (folder / name).stat().st_size for name in ("demo.safetensors", "encoder.safetensors")}
    (work / "gates.json").write_text(json.dumps(gates, indent=1))
    return gates


@torch.no_grad()
def judge_gate(judge: Judge, seed: int, count: int = 10) -> dict:
    """How far the judge itself can be trusted: right products and quadrants on real unseen surfaces."""
    real = [render(p, d, SIZE, sample_seed(seed, p, d, "judge", i)) for p in PRODUCTS for d in DEFECTS
            for i in range(count)]  # fmt: skip
    product, where = judge(as_images(np.stack([s.image for s in real])))
    right = [PRODUCTS[i] == s.product for i, s in zip(product.argmax(1).tolist(), real, strict=True)]
    corner = [(s, q) for s, q in zip(real, quadrants(where), strict=True) if s.words[-1] != "centre"]
    return {"products_right": float(np.mean(right)),
            "quadrants_right": float(np.mean([s.words[-1] == q for s, q in corner]))}  # fmt: skip


def save_sheet(images: np.ndarray, path: Path, columns: int = 12) -> None:
    """Save pictures (N, h, w, 3) uint8 as one sheet."""
    rows = [images[i : i + columns] for i in range(0, len(images), columns)]
    blank = np.full_like(images[0], 255)
    lines = [np.concatenate([*row, *[blank] * (columns - len(row))], 1) for row in rows]
    Image.fromarray(np.concatenate(lines, 0)).save(path)
