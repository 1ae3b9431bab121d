"""Nodes for the tests alone: made-up inputs, and a second pack, a sampler order and a memory as other machines have."""

import functools
import hashlib
import json
import os
import sys
from typing import ClassVar
from unittest.mock import patch

import comfy.model_management
import folder_paths
import torch
from aiohttp import web
from comfy.ldm.modules.attention import optimized_attention
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comfy_execution.graph_utils import GraphBuilder
from safetensors.torch import save_file
from server import PromptServer

import nodes

INT = ("INT", {"default": 0, "min": 0, "max": 1 << 30})


@PromptServer.instance.routes.get("/probe/modules")
async def modules(_request):
    """All modules, in the order of their import."""
    return web.json_response(list(sys.modules))


class Probe:
    """A node: `run` takes its inputs by name, each of a type, or of a type and settings."""

    CATEGORY, FUNCTION = "probe", "run"
    required: ClassVar[dict] = {}
    optional: ClassVar[dict] = {}

    @classmethod
    def INPUT_TYPES(cls):
        kinds = {"required": cls.required, "optional": cls.optional}
        return {
            kind: {name: about if isinstance(about, tuple) else (about,) for name, about in inputs.items()}
            for kind, inputs in kinds.items()
        }


class Patch(Probe):
    """A MODEL whose U-Net is called by `call(apply_model, given, **inputs)`."""

    RETURN_TYPES = ("MODEL",)
    required: ClassVar[dict] = {"model": "MODEL"}

    def run(self, model, **inputs):
        model = model.clone()
        model.set_model_unet_function_wrapper(functools.partial(self.call, **inputs))
        return (model,)


class Tokens(Probe):
    """CONDITIONING of random tokens, in the place of a text encoder's."""

    RETURN_TYPES = ("CONDITIONING",)
    required: ClassVar[dict] = {"seed": INT, "tokens": INT, "rows": INT, "width": INT}

    def run(self, seed, tokens, rows, width):
        context = torch.randn(rows, tokens, width, generator=torch.Generator().manual_seed(seed))
        return ([[context, {"pooled_output": None}]],)


class Normal(Probe):
    """LATENT of random cells, in the place of an encoded photo."""

    RETURN_TYPES = ("LATENT",)
    required: ClassVar[dict] = {"seed": INT, "batch": INT, "rows": INT, "columns": INT}

    def run(self, seed, batch, rows, columns):
        cells = torch.randn(batch, 4, rows, columns, generator=torch.Generator().manual_seed(seed))
        return ({"samples": cells * 5},)


class Masks(Probe):
    """MASK batch of rectangles, one each: [[left, top, right, bottom], ...]; null is an empty mask."""

    RETURN_TYPES = ("MASK",)
    required: ClassVar[dict] = {"width": INT, "height": INT, "boxes": ("STRING", {"default": "[]"})}

    def run(self, width, height, boxes):
        boxes = json.loads(boxes)
        masks = torch.zeros(len(boxes), height, width)
        for mask, box in zip(masks, boxes, strict=True):
            if box:
                left, top, right, bottom = box
                mask[top:bottom, left:right] = 1
        return (masks,)


class Listed(Probe):
    """Photos of the input folder, and what is painted on them, as a list: so loaders of other packs give a folder's."""

    RETURN_TYPES, OUTPUT_IS_LIST = ("IMAGE", "MASK"), (True, True)
    required: ClassVar[dict] = {"files": ("STRING", {"default": "[]"})}

    def run(self, files):
        loaded = [nodes.LoadImage().load_image(file) for file in json.loads(files)]
        return [image for image, _ in loaded], [mask for _, mask in loaded]


class Words(Probe):
    """Texts as a list, for widgets of text and for choices."""

    RETURN_TYPES, OUTPUT_IS_LIST = ("STRING,COMBO",), (True,)
    required: ClassVar[dict] = {"words": ("STRING", {"default": "[]"})}

    def run(self, words):
        return (json.loads(words),)


class OtherPack(Probe):
    """A pack that replaces every cross-attention by `gain` times itself."""

    RETURN_TYPES = ("MODEL",)
    required: ClassVar[dict] = {"model": "MODEL", "gain": ("FLOAT", {"default": 1.0}), "by_transformer": "BOOLEAN"}

    def run(self, model, gain, by_transformer):
        def attend(q, k, v, extra):
            if q.shape[0] % len(extra["cond_or_uncond"]) or len(extra["uuids"]) != len(extra["cond_or_uncond"]):
                raise RuntimeError("cond_or_uncond does not describe the rows that came")
            return gain * optimized_attention(q, k, v, extra["n_heads"], attn_precision=extra["attn_precision"])

        model = model.clone()
        number = [0] if by_transformer else []
        for block in [("middle", 0), *((side, n) for side in ("input", "output") for n in range(12))]:
            model.set_model_attn2_replace(attend, *block, *number)
        return (model,)


class Compiled(Probe):
    """A MODEL behind TorchCompileModel, whose U-Net goes on as it was traced: before any attention was patched."""

    RETURN_TYPES = ("MODEL",)
    required: ClassVar[dict] = {"model": "MODEL"}

    def run(self, model):
        model = model.clone()
        with patch.object(torch, "compile", lambda model, **_: Traced(model)):
            set_torch_compile_wrapper(model, backend="eager")
        return (model,)


class Traced(torch.nn.Module):
    """A U-Net that sees no patches."""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def __getattr__(self, name):
        own = super().__getattr__
        return own(name) if name in self._modules else getattr(own("unet"), name)

    def forward(self, *args, transformer_options, **kwargs):
        unpatched = {**transformer_options, "patches": {}, "patches_replace": {}}
        return self.unet(*args, transformer_options=unpatched, **kwargs)


class Loop(Probe):
    """Train Defects as a loop puts it into the graph: the MODEL by its link, the rest as it came."""

    RETURN_TYPES = ("ADIFF_LIBRARY",)
    required: ClassVar[dict] = {
        "model": ("MODEL", {"rawLink": True}), "vae": "VAE", "empty": "CONDITIONING", "dataset": "ADIFF_DATASET",
        "encoder": "ADIFF_ENCODER", "settings": "STRING",
    }  # fmt: skip

    def run(self, settings, **inputs):
        graph = GraphBuilder()
        learned = graph.node("ADiffTrainDefects", **inputs, **json.loads(settings))
        return {"result": (learned.out(0),), "expand": graph.finalize()}


class SaveLoop(Probe):
    """Save Pairs as a loop puts it into the graph."""

    RETURN_TYPES = ("STRING",)
    required: ClassVar[dict] = {
        "images": ("IMAGE", {"rawLink": True}), "masks": ("MASK", {"rawLink": True}), "settings": "STRING",
    }  # fmt: skip

    def run(self, settings, **inputs):
        graph = GraphBuilder()
        saved = graph.node("ADiffSavePairs", **inputs, **json.loads(settings))
        return {"result": (saved.out(0),), "expand": graph.finalize()}


class Swapped(Patch):
    """Positive and negative in the other order within the model's batch."""

    def call(self, apply_model, given):
        if len(given["cond_or_uncond"]) != 2:
            raise RuntimeError("positive and negative do not share a batch; there is nothing to swap")
        c = dict(given["c"])
        options = dict(c.pop("transformer_options"))
        for name in ("cond_or_uncond", "uuids"):
            options[name] = options[name][::-1]
        c = {name: _swapped(value) if isinstance(value, torch.Tensor) else value for name, value in c.items()}
        rows = apply_model(_swapped(given["input"]), _swapped(given["timestep"]), transformer_options=options, **c)
        return _swapped(rows)


def _swapped(rows):
    return torch.cat(rows.chunk(2)[::-1])


class LittleMemory(Patch):
    """A machine on which positive and negative never fit into one batch."""

    def run(self, model):
        (model,) = super().run(model)
        model.add_object_patch("memory_required", lambda *args, **kwargs: 1e18)
        return (model,)

    def call(self, apply_model, given):
        if len(given["cond_or_uncond"]) != 1:
            raise RuntimeError("the batch was not split")
        return apply_model(given["input"], given["timestep"], **given["c"])


class Inputs(Patch):
    """What the model is given, call by call: x0, sigma0, x1, ... in `name`.safetensors in the output folder."""

    required: ClassVar[dict] = {"model": "MODEL", "name": ("STRING", {"default": "inputs"})}

    def run(self, model, name):
        path = os.path.join(folder_paths.get_output_directory(), f"{name}.safetensors")
        return super().run(model, path=path, seen={})

    def call(self, apply_model, given, path, seen):
        number = len(seen) // 2
        seen[f"x{number}"], seen[f"sigma{number}"] = given["input"].clone(), given["timestep"].clone()
        save_file(seen, path)
        return apply_model(given["input"], given["timestep"], **given["c"])


class Weights(Probe):
    """A digest of all weights of a MODEL as it computes, its LoRAs merged; `after` only says when to look."""

    RETURN_TYPES = ("STRING",)
    required: ClassVar[dict] = {"model": "MODEL"}
    optional: ClassVar[dict] = {"after": "*"}

    def run(self, model, after=None):
        comfy.model_management.load_models_gpu([model])
        digest = hashlib.sha256()
        for name, weight in sorted(model.model.state_dict().items()):
            about = f"{name} {weight.dtype} {tuple(weight.shape)} {weight.requires_grad} {weight.is_inference()}"
            digest.update(about.encode() + weight.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return (digest.hexdigest(),)


class Loads(Probe):
    """The MODEL; what memory is asked for when it is loaded from here on, all and at least, in `name`.json."""

    RETURN_TYPES = ("MODEL",)
    required: ClassVar[dict] = {"model": "MODEL", "name": ("STRING", {"default": "loads"})}

    def run(self, model, name):
        load, seen, model = comfy.model_management.load_models_gpu, [], model.clone()
        path = os.path.join(folder_paths.get_output_directory(), f"{name}.json")

        def told(models, memory_required=0, minimum_memory_required=None, **given):
            if model in models:
                seen.append([memory_required, minimum_memory_required])
                with open(path, "w") as file:
                    json.dump(seen, file)
            return load(
                models, memory_required=memory_required, minimum_memory_required=minimum_memory_required, **given
            )

        comfy.model_management.load_models_gpu = told
        return (model,)


class Untold(Probe):
    """A MODEL as another pack's loader gives it, which does not tell where it was read."""

    RETURN_TYPES = ("MODEL",)
    required: ClassVar[dict] = {"model": "MODEL"}

    def run(self, model):
        model = model.clone()
        model.cached_patcher_init = None
        return (model,)


class NoGradient(Probe):
    """A MODEL whose attention another pack has replaced by one for sampling alone, as Sage's is."""

    RETURN_TYPES = ("MODEL",)
    required: ClassVar[dict] = {"model": "MODEL"}

    def run(self, model):
        model = model.clone()
        model.model_options["transformer_options"]["optimized_attention_override"] = self.attend
        return (model,)

    @torch.no_grad()
    def attend(self, attention, *args, **kwargs):
        return attention(*args, **kwargs)


PROBES = (
    Tokens, Normal, Masks, Listed, Words, OtherPack, Compiled, Loop, SaveLoop, Swapped, LittleMemory, Inputs, Weights,
    Loads, Untold, NoGradient,
)  # fmt: skip
NODE_CLASS_MAPPINGS = {f"Probe{kind.__name__}": kind for kind in PROBES}
