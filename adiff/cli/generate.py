"""`adiff generate`: image-mask pairs of learned defects, painted into normal images."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..errors import InputError
from ..workers import join_run
from .app import keeping
from .cluster import Incomplete, run_on_cluster
from .command import check_idle, given_command
from .destination import Destination
from .generated import tell_made, tell_missing
from .jobs import Given, Job, mask_source, read_jobs
from .limits import AutoFilter, Limits, MaxLikeness, MaxSeam, MinFill, MinNovelty, Refine, Tries, parse_limits
from .normals import PLACES
from .objects import Foreground, Found, OnObject, Place, Placed
from .options import (
    MASK_SAMPLING,
    Base,
    Blending,
    Distance,
    EncoderFile,
    LibraryFile,
    Loras,
    MaskDenoise,
    MaskGuidance,
    MaskSteps,
    MaskThreshold,
    Precision,
    PrecisionName,
    Resume,
    Reweighting,
    Seed,
    VaryShots,
    of_masks,
    of_painting,
    of_work,
    parse_loras,
)
from .progress import CliProgress
from .references import Features, Photos, read_references

if TYPE_CHECKING:
    from ..backbone import Backbone
    from ..generation import GenerationSettings, RunResult
    from ..generation.run import References

logger = logging.getLogger("adiff")

PAIRS = 16
"""Pairs of a run, unless told otherwise."""

Defects = Annotated[
    list[str] | None,
    typer.Argument(metavar="PRODUCT/DEFECT", help="Which of the library's defects; several: all in each image."),
]
Normals = Annotated[Path, typer.Option("--normals", metavar="DIR", help=f"Images without defects, {PLACES}.")]
Out = Annotated[
    str,
    typer.Option("--out", metavar="RUN", help="Folder of the run, with --all of the runs; or its URL in object "
                 "storage, as in s3://BUCKET/RUN."),
]  # fmt: skip
Count = Annotated[int | None, typer.Option("-n", min=1, help=f"Pairs to make.  [dim]default: {PAIRS}[/dim]")]
Every = Annotated[
    bool,
    typer.Option("--all", help="Every defect of the library, in a run of its own; [b]--restart[/b] begins all of these "
                 "anew, finished ones too."),
]  # fmt: skip
PerDefect = Annotated[
    int | None,
    typer.Option("--per-defect", metavar="N", min=1, help=f"With --all: pairs of each.  [dim]default: {PAIRS}[/dim]"),
]
Masks = Annotated[
    list[Path] | None,
    of_masks("--masks", metavar="DIR", help="Masks to use, once for each PRODUCT/DEFECT; those that "
             "[b]adiff masks[/b] placed go onto their own images.  "
             "[dim]default: sampled from the learned ones[/dim]"),
]  # fmt: skip
ByName = Annotated[
    bool,
    of_masks("--by-name", help="With --masks: each goes onto the normal image of its name, 7.png or 7_mask.png onto "
             "7.jpg.  [dim]default: onto any[/dim]"),
]  # fmt: skip
Crop = Annotated[
    bool | None,
    of_painting("--crop/--no-crop", help="Paint in a crop around the mask.  [dim]default: for small masks[/dim]"),
]
Severity = Annotated[
    float, of_painting("--severity", min=0.0, max=2.0, help="How strong the defect is: 0 none, 1 as learned.")
]
Ray = Annotated[
    str | None,
    of_work("--ray", metavar="ADDRESS", help="Share the work on a Ray cluster: its address, [b]auto[/b], or "
            "[b]local[/b] for one on this machine."),
]  # fmt: skip
Workers = Annotated[
    int | None,
    of_work("--workers", metavar="N", min=1, help="With --ray: processes.  [dim]default: one a GPU, or CPU[/dim]"),
]
Guidance = Annotated[
    str,
    of_painting("--guidance", metavar="SCALE|auto", help="Classifier-free guidance; 1 is none. [b]auto[/b]: of each "
                "defect the one whose pairs look most like its shots, found when the run begins."),
]  # fmt: skip
PreviewDecoder = Annotated[
    Path | None,
    of_painting("--preview-decoder", metavar="FILE", help="TAESD decoder, for the distance [b]preview[/b]."),
]


def generate(
    ctx: typer.Context,
    library: LibraryFile,
    normals: Normals,
    out: Out,
    defects: Defects = None,
    count: Count = None,
    every: Every = False,
    per_defect: PerDefect = None,
    masks: Masks = None,
    by_name: ByName = False,
    vary_shots: VaryShots = False,
    mask_denoise: MaskDenoise = 1.0,
    mask_steps: MaskSteps = None,
    mask_guidance: MaskGuidance = None,
    mask_threshold: MaskThreshold = 0.6,
    place: Placed = Place.stay,
    foreground: Foreground = None,
    find: Found = None,
    base: Base = "demo",
    lora: Loras = None,
    precision: PrecisionName = Precision.auto,
    encoder: EncoderFile = None,
    crop: Crop = None,
    severity: Severity = 1.0,
    reweighting: Annotated[
        Reweighting, of_painting("--reweighting", help="Attention re-weighting inside the mask.")
    ] = Reweighting.balanced,
    strength: Annotated[float, of_painting("--strength", min=0.0, help="Of the re-weighting.")] = 1.0,
    level: Annotated[
        float,
        of_painting("--level", min=0.0, max=4.0, help="Mean weight inside the mask, with [b]balanced[/b] and "
                    "[b]uniform[/b]; 1 is a plain model's."),
    ] = 1.25,
    distance: Annotated[
        Distance, of_painting("--distance", help="What the re-weighting measures the change by.")
    ] = Distance.latent,
    blending: Annotated[
        Blending, of_painting("--blending", help="Noise outside the mask: one for all steps, or new at each.")
    ] = Blending.fresh,
    steps: Annotated[int, of_painting("--steps", min=1, max=1000, help="Sampling steps.")] = 20,
    guidance: Guidance = "2",
    batch: Annotated[int, of_painting("--batch", min=1, help="Pairs at a time.")] = 8,
    preview_decoder: PreviewDecoder = None,
    min_fill: MinFill = None,
    max_seam: MaxSeam = None,
    max_likeness: MaxLikeness = None,
    min_novelty: MinNovelty = None,
    auto_filter: AutoFilter = False,
    tries: Tries = None,
    features: Features = None,
    photos: Photos = None,
    refine: Refine = False,
    ray: Ray = None,
    workers: Workers = None,
    resume: Resume = True,
    seed: Seed = 0,
) -> None:
    """Paint learned defects into normal images; each pair has its image, its mask and a record of its measures.

    The same command in further processes, here or on other machines that share RUN, divides the work among them.
    """
    _check_asked(defects or [], every, count, per_defect, masks or [])
    if masks and vary_shots:
        raise InputError("both --masks and --vary-shots given; give one of them")
    if by_name and not masks:
        raise InputError("--by-name goes with --masks; without it masks are made for any normal image")
    if workers is not None and ray is None:
        raise InputError("--workers goes with --ray; without it give the same command once for each process")
    if masks or vary_shots:
        check_idle(ctx, "with --masks" if masks else "with --vary-shots", *MASK_SAMPLING)
    from ..generation.settings import idle

    for name, other in idle(reweighting.value, distance.value).items():
        check_idle(ctx, f"with --{other} {ctx.params[other].value}", name)
    limits = parse_limits(min_fill, max_seam, max_likeness, min_novelty, auto_filter, tries)
    if preview_decoder is not None:
        _check_decoder(preview_decoder)
    source = partial(
        mask_source, vary=vary_shots, by_name=by_name, denoise=mask_denoise, steps=mask_steps, guidance=mask_guidance,
        threshold=mask_threshold,
    )  # fmt: skip
    on, target = OnObject(place, foreground, find, bool(masks)), Destination(ctx, out)
    given = read_jobs(library, defects or [], normals, masks or [], source, on, encoder, target)
    references = read_references(given.library, given.keys, features, photos)
    from ..backbone import load_backbone  # after the input is known to be sound: this takes seconds
    from ..generation import GenerationSettings
    from ..library import check_base

    scale = _guidance(guidance)
    settings = GenerationSettings(
        steps=steps, **scale, severity=severity, reweighting=reweighting.value, strength=strength,
        level=level, distance=distance.value, blending=blending.value, crop=crop, batch=batch,
        preview_decoder=None if preview_decoder is None else str(preview_decoder), refine=refine,
    )  # fmt: skip
    backbone = load_backbone(base, precision=precision.value, loras=parse_loras(lora))
    check_base(given.library, backbone)
    for reference in references.values():
        reference.eye.to(backbone.device)
    pairs = count or per_defect or PAIRS
    plan = _Plan(pairs, settings, seed, _command(ctx, target), limits, references or None, not scale)
    given = _checked(given, backbone, plan)
    for name, reason in given.lost.items():
        logger.warning("left out: %s: %s", name, reason)
    if not resume:
        target.clear([job.out for job in given.jobs])
    with CliProgress() as progress, keeping(lambda: _kept(given.jobs, out)):
        if ray is not None:
            _work_on_cluster(ctx, ray, workers, given, plan, target, progress)
        results, reports, failed = _run_all(given, backbone, plan, target, progress)
    names = [job.name for job in given.jobs if job.name not in failed]
    tell_made(names, results, reports, out, every, plan.fit)
    tell_missing(results, plan.count, target.told_of)
    if failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise Incomplete(f"runs that were not made: {len(failed)} of {given.runs}: {reasons}")


class _Plan(NamedTuple):
    """What every run is made by: its number of pairs, settings, seed, the command that asked for it, limits, shots.

    fit: whether each defect has the guidance that suits it.
    """

    count: int
    settings: GenerationSettings
    seed: int
    command: str
    limits: Limits
    references: References | None = None
    fit: bool = False


def _check_asked(
    defects: Sequence[str], every: bool, count: int | None, per_defect: int | None, masks: Sequence[Path]
) -> None:
    """Raise InputError for options that do not go together."""
    if every == bool(defects):
        raise InputError(f"{'both' if every else 'neither'} of PRODUCT/DEFECT and --all given; give one of them")
    if every and (count is not None or masks):
        raise InputError(f"--all takes {'learned masks, not --masks' if masks else '--per-defect N, not -n'}")
    if per_defect is not None and not every:
        raise InputError("--per-defect goes with --all; give -n")
    if masks and len(masks) != len(defects):
        raise InputError(f"{len(masks)} --masks for {len(defects)} PRODUCT/DEFECT; give one for each, in their order")


def _guidance(text: str) -> dict[str, float]:
    """The setting that an option asks for, none for `auto`. Raises InputError for anything else."""
    from ..pair_filter import AUTO

    try:
        return {} if text == AUTO else {"guidance": float(text)}
    except ValueError:
        raise InputError(f"--guidance {text!r} is no number; give one, or {AUTO}") from None


def _check_decoder(path: Path) -> None:
    """Raise InputError or FileNotFoundError for what is no preview decoder; a run opens it with its first batch."""
    from ..backbone.preview import PreviewDecoder

    PreviewDecoder(path)


def _command(ctx: typer.Context, place: Destination) -> str:
    """The command that makes the run again; of its folder only the name: a run tells the same wherever it lies."""
    return given_command(ctx, out=place.name, resume=None)


def _run_all(
    given: Given, backbone: Backbone, plan: _Plan, place: Destination, progress: CliProgress
) -> tuple[list[RunResult], list[Path], dict[str, str]]:
    """Fill the runs one after another; those that are finished already are passed over.

    Of many one that bad input stops costs only itself. Returns the results, the reports that were written, and name ->
    reason of those that were stopped.
    """
    from ..generation import generate_run
    from ..report import report_of_run

    results, reports, failed = [], [], dict(given.lost)
    for job in given.jobs:
        (key, masks), *also = job.wanted
        try:
            result = generate_run(
                backbone, given.library, key, given.encoder, job.normals, masks, also=also, count=plan.count,
                out=job.out, settings=plan.settings, seed=plan.seed, command=plan.command, progress=progress,
                limits=plan.limits.of(given.library, job.keys, backbone, plan.references),
                tries=plan.limits.tries, fit=plan.fit, references=plan.references, shared=place.run(job.out),
            )  # fmt: skip
        except InputError as error:
            if given.runs == 1:
                raise
            failed[job.name] = str(error)
            continue
        if result.cancelled:
            raise KeyboardInterrupt
        if (result.pairs or result.rejected) and not place.remote:  # of rejects alone it shows why
            with join_run(job.out):  # one that is killed here leaves its mark, and what it wrote is removed next time
                try:
                    reports.append(report_of_run(job.out, normals=job.normals[0].parent))
                except InputError as error:
                    logger.warning("%s: its pairs are made, its report is not: %s", job.name, error)
        results.append(result)
    return results, reports, failed


def _work_on_cluster(
    ctx: typer.Context, address: str, workers: int | None, given: Given, plan: _Plan, place: Destination,
    progress: CliProgress,
) -> None:  # fmt: skip
    """Have the runs filled by workers at this very command; what they leave is this process's to make."""
    arguments = shlex.split(given_command(ctx, ray=None, workers=None, resume=None))[1:]
    run_on_cluster(
        arguments, address=address, workers=workers, total=plan.count * len(given.jobs),
        done=lambda: place.settled([job.out for job in given.jobs], plan.limits.tries),
        what="pairs on the cluster", progress=progress,
    )  # fmt: skip


def _kept(jobs: Sequence[Job], out: str) -> str:
    """What Ctrl-C leaves: a run is begun once its guidance is found."""
    if not any((job.out / "run.json").exists() for job in jobs):
        return "no run is begun yet; the same command begins anew"
    return f"finished pairs are in {out}; the same command makes the rest"


def _checked(given: Given, backbone: Backbone, plan: _Plan) -> Given:
    """The runs that can be made, told before one is begun or an old one removed."""
    from ..generation import check_run

    def check(job: Job) -> None:
        limits = plan.limits.of(given.library, job.keys, backbone, plan.references), plan.limits.tries
        check_run(
            backbone, given.library, job.wanted, given.encoder, job.normals, plan.count, *limits, plan.references,
            plan.fit,
        )  # fmt: skip

    return given.checked(check)
