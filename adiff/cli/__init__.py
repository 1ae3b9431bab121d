"""The `adiff` command, one file per command group; nothing heavy is imported before a command runs."""

from . import demo, generate, library, masks, runs, surfaces, train
from .app import app, main

__all__ = ["app", "main"]

EXAMPLES = {
    demo.demo: "adiff demo --out adiff-demo --pairs 24",
    surfaces.surfaces: "adiff surfaces --out surfaces --images 40 --product wood --product tile",
    train.train: "adiff train surfaces --product wood --defect hole --shots 5 --out holes.safetensors",
    masks.masks: "adiff masks holes.safetensors wood/hole -n 20 --out masks",
    generate.generate: "adiff generate holes.safetensors wood/hole --normals surfaces/wood/train/good -n 100 --out run",
}
for command, example in EXAMPLES.items():
    app.command(epilog=f"Example:  {example}")(command)
app.add_typer(runs.run, name="run")
app.add_typer(library.library, name="library")
