"""The `adiff` command, one file per command group; nothing heavy is imported before a command runs."""

from . import (
    annotations,
    benchmark,
    demo,
    dual,
    evaluate,
    export,
    generate,
    library,
    masks,
    paste,
    runs,
    surfaces,
    train,
)
from .app import app, main

__all__ = ["app", "main"]

EXAMPLES = {
    demo.demo: "adiff demo --out adiff-demo --pairs 24",
    surfaces.surfaces: "adiff surfaces --out surfaces --images 40 --product wood --product tile",
    annotations.import_: "adiff import instances.json --images photos --out scratches",
    train.train: "adiff train surfaces --product wood --defect hole --shots 5 --out holes.safetensors",
    masks.masks: "adiff masks holes.safetensors wood/hole -n 20 --out masks",
    generate.generate: "adiff generate holes.safetensors wood/hole --normals surfaces/wood/train/good -n 100 --out run",
    paste.paste: "adiff paste surfaces --product wood --defect hole --shots 5 --normals surfaces -n 100 --out pasted",
    export.export: "adiff export run --format coco --validation 0.2 --out dataset",
    dual.train_dual: "adiff train-dual surfaces --product gasket --defect crack --shots 5 --out dual.safetensors",
    benchmark.benchmark: "adiff benchmark surfaces --suite ablation --quick --out bench",
    dual.generate_dual: "adiff generate-dual dual.safetensors -n 16 --out run",
}
for command, example in EXAMPLES.items():
    app.command(command.__name__.strip("_").replace("_", "-"), epilog=f"Example:  {example}")(command)
app.add_typer(runs.run, name="run")
app.add_typer(library.library, name="library")
app.add_typer(evaluate.evaluate, name="evaluate")
