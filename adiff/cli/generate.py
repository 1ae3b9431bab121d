"""`adiff generate`: image-mask pairs of a learned defect, painted into normal images."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..errors import InputError
from .app import keeping
from .masks import check_has_masks
from .options import Base, Blending, DefectName, Distance, EncoderFile, LibraryFile, Resume, Reweighting, Seed
from .progress import CliProgress
from .train import encoder_beside

if TYPE_CHECKING:
    from ..generation import MaskSource
    from ..library import Defect, Library
    from ..spatial_encoder import SpatialEncoder

RUN_PARTS = {"run.json", "image", "mask", "pairs"}


def generate(
    library: LibraryFile,
    defect: DefectName,
    normals: Annotated[Path, typer.Option("--normals", metavar="DIR", help="Images without defects to paint into.")],
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder of the run.")],
    count: Annotated[int, typer.Option("-n", min=1, help="Pairs to make.")] = 16,
    masks: Annotated[
        Path | None,
        typer.Option("--masks", metavar="DIR", help="Masks to use.  [dim]default: sampled from the learned ones[/dim]"),
    ] = None,
    base: Base = "demo",
    encoder: EncoderFile = None,
    crop: Annotated[
        bool | None,
        typer.Option("--crop/--no-crop", help="Paint in a crop around the mask.  [dim]default: for small masks[/dim]"),
    ] = None,
    reweighting: Annotated[
        Reweighting, typer.Option("--reweighting", help="Attention re-weighting inside the mask.")
    ] = Reweighting.balanced,
    strength: Annotated[float, typer.Option("--strength", min=0.0, help="Of the re-weighting.")] = 1.0,
    distance: Annotated[
        Distance, typer.Option("--distance", help="What the re-weighting measures the change by.")
    ] = Distance.latent,
    blending: Annotated[
        Blending, typer.Option("--blending", help="Noise outside the mask: one for all steps, or new at each.")
    ] = Blending.fresh,
    steps: Annotated[int, typer.Option("--steps", min=1, max=1000, help="Sampling steps.")] = 30,
    guidance: Annotated[float, typer.Option("--guidance", min=0.0, help="Classifier-free guidance; 1 is none.")] = 2.0,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Pairs at a time.")] = 8,
    preview_decoder: Annotated[
        Path | None,
        typer.Option("--preview-decoder", metavar="FILE", help="TAESD decoder, for the distance [b]preview[/b]."),
    ] = None,
    resume: Resume = True,
    seed: Seed = 0,
) -> None:
    """Paint a learned defect into normal images; each pair has its image, its mask and a record of its measures."""
    given = _read(library, defect, normals, masks, encoder)
    from ..backbone import load_backbone  # after the input is known to be sound: this takes seconds
    from ..generation import GenerationSettings, generate_run
    from ..library import check_base

    settings = GenerationSettings(
        steps=steps, guidance=guidance, reweighting=reweighting.value, strength=strength, distance=distance.value,
        blending=blending.value, crop=crop, batch=batch,
        preview_decoder=None if preview_decoder is None else str(preview_decoder),
    )  # fmt: skip
    backbone = load_backbone(base)
    check_base(given.library, backbone)
    if not resume:
        clear_run(out)
    with CliProgress() as progress, keeping(f"finished pairs are in {out}; the same command makes the rest"):
        result = generate_run(
            backbone, given.library, given.entry.key, given.encoder, given.normals, given.masks, count=count, out=out,
            settings=settings, seed=seed, progress=progress,
        )  # fmt: skip
        if result.cancelled:
            raise KeyboardInterrupt
    typer.echo(_told(given.entry, result))


class _Given(NamedTuple):
    """The command's input, opened."""

    library: Library
    entry: Defect
    normals: list[Path]
    masks: MaskSource
    encoder: SpatialEncoder | None


def _read(path: Path, defect: str, normals: Path, masks: Path | None, encoder: Path | None) -> _Given:
    """Open and check everything but the base model; raises InputError or FileNotFoundError."""
    from ..datasets.readers import list_images
    from ..library import load_library

    library = load_library(path)
    entry = library.get(defect)
    if entry.anomaly is None:
        raise InputError(f"the appearance of {entry.name} was not learned; `adiff train --what defects` adds it")
    images = list(list_images(normals))
    source = mask_source(entry, None if masks is None else list(list_images(masks)))
    return _Given(library, entry, images, source, read_encoder(path, library, entry, encoder))


def read_encoder(path: Path, library: Library, entry: Defect, given: Path | None) -> SpatialEncoder | None:
    """The spatial encoder that a defect was learned with: the one given, beside the library, or the demo's own."""
    from ..backbone import demo_encoder_path
    from ..library import check_encoder
    from ..spatial_encoder import load_encoder

    if given is not None:
        network, about = load_encoder(given)
        check_encoder(library, about["fingerprint"])
        return network
    wanted = library.encoder_fingerprint
    if wanted is None:
        return None
    places = [encoder_beside(path), path.with_name("encoder.safetensors"), demo_encoder_path()]
    for place in places:
        if place.is_file():
            network, about = load_encoder(place)
            if about["fingerprint"] == wanted:
                return network
    looked = " or ".join(str(place) for place in places[:2])
    raise InputError(f"{entry.name} was learned with encoder {wanted[:8]}, not at {looked}; give it with --encoder")


def clear_run(out: Path) -> None:
    """Remove a run to begin it anew; raises InputError if the folder holds anything that is not a run's."""
    if not (out / "run.json").exists():
        return
    foreign = sorted({path.name for path in out.iterdir()} - RUN_PARTS)
    if foreign:
        raise InputError(f"{out} holds {foreign[0]} beside its run; move that away or choose another folder")
    shutil.rmtree(out)


def mask_source(entry: Defect, files: list[Path] | None = None) -> MaskSource:
    """Masks from files, or sampled from the learned ones within the range of the shots."""
    from ..generation import FolderMasks, LearnedMasks
    from ..masks import MaskRules

    if files is not None:
        return FolderMasks(files)
    check_has_masks(entry)
    shots = list(entry.shot_masks)
    return LearnedMasks(entry.mask, MaskRules.from_shots(shots), shots)


def _told(entry: Defect, result) -> str:
    from ..report import summarise

    numbers = summarise(result.pairs)
    measures = f"median fill {numbers['fill']:.2f}, leak at most {numbers['leak']:.0f} levels"
    return f"{len(result.pairs)} pairs of {entry.name} in {result.out}, {measures}"
