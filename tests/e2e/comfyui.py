"""A real ComfyUI as a process of its own: find it, start it, queue graphs, read what they leave."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).parents[2]
NAME = "anomaly-diffusion"
NEEDED = ("torch", "aiohttp", "torchsde", "av", "comfyui_frontend_package")
START_LIMIT = RUN_LIMIT = 300
"""Seconds."""
NOT_COMFYUIS = ("diffusers", "typer")
"""What only the command needs: not to be had by the server, even where its interpreter has them."""


class NotThere(Exception):
    """No ComfyUI to test with, and why."""


def find_comfyui() -> tuple[Path, str]:
    """Return ComfyUI's folder and an interpreter that can run it."""
    folder = Path(os.environ.get("COMFYUI_PATH", "~/comfy/ComfyUI")).expanduser()
    if not (folder / "main.py").is_file():
        raise NotThere(f"no ComfyUI in {folder}; set COMFYUI_PATH")
    own = folder / ".venv" / "bin" / "python"
    python = os.environ.get("COMFYUI_PYTHON") or (str(own) if own.exists() else sys.executable)
    asked = f"from importlib.util import find_spec; print(*[n for n in {NEEDED} if find_spec(n) is None])"
    answer = subprocess.run([python, "-c", asked], capture_output=True, text=True)
    if answer.returncode or answer.stdout.strip():
        raise NotThere(f"{python} lacks {answer.stdout.strip() or answer.stderr.strip()}; set COMFYUI_PYTHON")
    return folder, python


def clone_files() -> list[Path]:
    """Return what a clone of the pack holds, changes and new files included; relative to ROOT."""
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")
    return [Path(name) for name in names if (ROOT / name).is_file()]


@dataclass(frozen=True)
class Link:
    """An output of a node in a graph; link[1] is the node's second one."""

    node: str
    slot: int = 0

    def __getitem__(self, slot: int) -> Link:
        return Link(self.node, slot)


class Graph:
    """A graph in API format, built by calls: graph("VAEDecode", samples=latent, vae=loader[2])."""

    def __init__(self) -> None:
        self.nodes: dict[str, dict] = {}

    def __call__(self, kind: str, **inputs: Any) -> Link:
        key = str(len(self.nodes) + 1)
        given = {n: [v.node, v.slot] if isinstance(v, Link) else v for n, v in inputs.items() if v is not None}
        self.nodes[key] = {"class_type": kind, "inputs": given}
        return Link(key)


class GraphError(Exception):
    """What a node, or the check before the run, said instead of a result."""


class Result:
    """What one run of a graph left. events: [(name, data)]."""

    def __init__(self, history: dict, base: Path) -> None:
        self.outputs, self._base = history["outputs"], base
        self.events = [(name, data) for name, data in history["status"]["messages"]]

    @property
    def cached(self) -> list[str]:
        """Nodes that did not run again."""
        return next(data["nodes"] for name, data in self.events if name == "execution_cached")

    def latent(self, node: Link) -> Tensor:
        """What SaveLatent wrote, (B, 4, h, w)."""
        (path,) = self._files(node, "latents")
        return load_file(path)["latent_tensor"]

    def images(self, node: Link) -> np.ndarray:
        """What SaveImage or a preview wrote, (B, H, W, 3) uint8."""
        return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in self._files(node, "images")])

    def text(self, node: Link) -> str:
        """What PreviewAny shows."""
        return self.outputs[node.node]["text"][0]

    def _files(self, node: Link, kind: str) -> list[Path]:
        entries = self.outputs[node.node][kind]
        return [self._base / e["type"] / e["subfolder"] / e["filename"] for e in entries]


class Server:
    """ComfyUI on the CPU with a copy of the pack and the probe nodes; everything it writes is under `base`.

    modules: names of all Python modules in the order of their import, before any graph has run.
    """

    def __init__(self, folder: Path, python: str, base: Path, *more: str, options: Sequence[str] = ()) -> None:
        """more: files of this folder that are custom nodes too. options: of ComfyUI's command line."""
        self.folder, self.python, self.base = folder, python, base
        self._probes, self._options = ("probe.py", *more), options
        self.elsewhere, self.default = base / "elsewhere", base / "default"
        self.url = f"http://127.0.0.1:{_free_port()}"
        self._log, self._paths = base / "server.log", base / "extra_model_paths.yaml"
        self._without = base / "without"
        self._info: dict | None = None

    def start(self) -> None:
        """Copy the pack, start, wait until it answers."""
        self._install()
        arguments = [
            "--cpu", "--use-pytorch-cross-attention", "--disable-auto-launch", "--disable-api-nodes",
            "--preview-method", "latent2rgb", "--listen", "127.0.0.1", "--port", self.url.rpartition(":")[2],
            "--base-directory", str(self.base), "--database-url", "sqlite:///:memory:",
            "--extra-model-paths-config", str(self._paths), *self._options,
            *shlex.split(os.environ.get("COMFYUI_ARGUMENTS", "")),
        ]  # fmt: skip
        # no other PYTHONPATH: the pack might find itself outside its folder
        own = {"PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(self._without)}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [self.python, str(self.folder / "main.py"), *arguments], cwd=self.base, stdout=log,
                stderr=subprocess.STDOUT, env={**os.environ, **own},
            )  # fmt: skip
        deadline = time.monotonic() + START_LIMIT
        while True:
            try:
                self._ask("/system_stats")
                self.modules = self._ask("/probe/modules")
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError(f"ComfyUI did not start:\n{self.log[-3000:]}") from None
                time.sleep(0.2)

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def log(self) -> str:
        """Everything that the server has said."""
        return self._log.read_text(errors="replace")

    @property
    def pack(self) -> Path:
        """The copy of the pack."""
        return self.base / "custom_nodes" / NAME

    def fetch(self, path: str) -> tuple[int, str, bytes]:
        """Ask for a page: its status, its type, its content."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=60) as answer:
                return answer.status, answer.headers.get_content_type(), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get_content_type(), error.read()

    def object_info(self) -> dict:
        """The schemas of all nodes."""
        self._info = self._info or self._ask("/object_info")
        return self._info

    def options(self, node: str, name: str) -> list[str]:
        """What a combo offers."""
        return self.object_info()[node]["input"]["required"][name][1]["options"]

    def option(self, node: str, name: str, start: str) -> str:
        """The first of a combo's options that begins with `start`."""
        return next(option for option in self.options(node, name) if option.startswith(start))

    def page(self, path: str, body: dict | None = None) -> str:
        """Fetch a page; `body` is posted as JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read().decode()

    def queue(self, graph: Graph | dict, workflow: dict | None = None) -> str:
        """Queue a graph; raises GraphError if ComfyUI refuses it. Returns the run's name."""
        nodes = graph.nodes if isinstance(graph, Graph) else graph
        pnginfo = {"extra_pnginfo": {"workflow": workflow}} if workflow is not None else {}
        try:
            answer = self._ask("/prompt", {"prompt": nodes, "extra_data": pnginfo})
        except urllib.error.HTTPError as error:
            answer = json.loads(error.read())
        faults = [e["details"] for one in answer.get("node_errors", {}).values() for e in one["errors"]]
        if faults or "error" in answer:
            raise GraphError("; ".join(faults) or str(answer["error"]))
        return answer["prompt_id"]

    def wait(self, name: str) -> Result:
        """Wait for a run's end, whatever it is."""
        deadline = time.monotonic() + RUN_LIMIT
        while time.monotonic() < deadline:
            history = self._ask(f"/history/{name}")
            if name in history:
                return Result(history[name], self.base)
            time.sleep(0.02)
        raise TimeoutError(f"the graph took more than {RUN_LIMIT} s:\n{self.log[-3000:]}")

    def run(self, graph: Graph | dict, workflow: dict | None = None) -> Result:
        """Run a graph; raises GraphError with the message of the node that failed."""
        result = self.wait(self.queue(graph, workflow))
        for event, data in result.events:
            if event == "execution_error":
                raise GraphError(f"{data['node_type']}: {data['exception_message']}")
        return result

    def running(self) -> bool:
        """Whether a graph is being run."""
        return bool(self._ask("/queue")["queue_running"])

    def interrupt(self) -> None:
        """Cancel what is being run."""
        self._ask("/interrupt", {})

    def _install(self) -> None:
        self._without.mkdir(exist_ok=True)
        for name in NOT_COMFYUIS:
            (self._without / f"{name}.py").write_text("raise ImportError(f'{__name__} does not come with ComfyUI')")
        first = f"first:\n  is_default: true\n  base_path: {self.base}\n  adiff_localizers: {self.default.name}\n"
        self._paths.write_text(f"elsewhere:\n  adiff_libraries: {self.elsewhere}\n{first}")
        for name in clone_files():
            (self.pack / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.pack / name)
        for name in self._probes:
            shutil.copy(Path(__file__).with_name(name), self.pack.with_name(name))
        ours = [str(self.pack / name) for name in ("__init__.py", "nodes", "adiff")]
        subprocess.run([self.python, "-m", "compileall", "-q", *ours], check=True)  # as after anyone's first start

    def _ask(self, path: str, body: dict | None = None) -> Any:
        content = self.page(path, body)
        return json.loads(content) if content else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
