"""One command on a Ray cluster: a worker on each GPU, or on each CPU where there is none, all filling the same runs.

A worker is the command itself: it opens the model once and claims batches until the runs are whole (`adiff.workers`),
so what the cluster makes is what one process makes. Ray starts another worker in the place of one that died.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import InputError
from ..progress import Progress
from ..system import DEVICE

LOCAL = "local"
"""The address of a cluster that is started on this machine, for this one command."""
LOOK_EVERY = 1.0
"""Seconds between two looks at what is done."""


class Incomplete(InputError):
    """What the input does not allow is lacking, and all else is made: another worker has nothing to add."""


def run_on_cluster(
    arguments: Sequence[str],
    *,
    address: str,
    workers: int | None,
    total: int,
    done: Callable[[], int],
    what: str,
    progress: Progress,
) -> None:
    """Run `adiff ARGUMENTS` on a cluster until every worker has ended.

    address: of a running cluster ("auto" for that of the environment), or "local". workers: None for one on each GPU,
    or CPU; they compute where ADIFF_DEVICE says, as this process does. total, done, what: pieces of work in all, how
    many there are now, their name. The working folder has to be the same on all machines. Raises InputError for a
    cluster that is not there and for bad input a worker met, unless all else is made: the caller finds that too.
    """
    try:
        import ray
    except ImportError:
        wanted = 'pip install "anomaly-diffusion[cluster]"'
        raise InputError(f"--ray needs the package ray; install it with: {wanted}") from None
    options: dict[str, Any] = {"address": address}
    if address == LOCAL:
        options |= {"log_to_driver": False, "include_dashboard": False}
    if address == LOCAL and workers is not None:
        options["num_cpus"] = workers
    try:
        ray.init(logging_level="error", configure_logging=False, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        told = " ".join(str(error).split())[:160]
        raise InputError(f"there is no Ray cluster at {address} ({told}); start one with `ray start --head`, "
                         f"or give {LOCAL}") from None  # fmt: skip
    try:
        _work(ray, list(arguments), workers, total, done, what, progress)
    finally:
        ray.shutdown()


def _work(ray: Any, arguments: list[str], workers: int | None, total: int, done: Callable[[], int], what: str,
          progress: Progress) -> None:  # fmt: skip
    there = ray.cluster_resources()
    device = os.environ.get(DEVICE, "")
    kind = "GPU" if there.get("GPU") and device != "cpu" else "CPU"
    count = workers or max(1, int(there.get(kind, 1)))
    # a worker that dies is started again as often as it takes; one that ends with an error is not
    remote = ray.remote(num_cpus=1, num_gpus=int(kind == "GPU"), max_retries=-1, retry_exceptions=False)(_worker)
    running = [remote.remote(arguments, os.getcwd(), device) for _ in range(count)]
    progress.start(total, what)
    try:
        while running:
            ended, running = ray.wait(running, timeout=LOOK_EVERY)
            for one in ended:
                if refused := ray.get(one):
                    raise InputError(refused)
            progress.update(done())
    except BaseException:
        for one in running:
            with contextlib.suppress(Exception):  # what stopped us says more
                ray.cancel(one)
        raise
    progress.finish()


def _worker(arguments: list[str], folder: str, device: str) -> str | None:
    """Run the command in this process; returns the line of bad input that stopped it, None if it made all it could."""
    import typer

    from . import app

    if not os.path.isdir(folder):
        return f"a worker does not see {folder}; the cluster's machines have to share the working folder"
    os.chdir(folder)
    os.environ[DEVICE] = device
    try:
        typer.main.get_command(app).commands[arguments[0]].main(arguments[1:], "adiff", standalone_mode=False)
    except Incomplete:
        return None
    except (InputError, OSError) as error:
        return " ".join(str(error).split())
    return None
