"""What the front end asks the server for beside the graph: pictures of defects, and the library panel's affairs.

| route | does |
|---|---|
| GET /adiff/preview?defect=LABEL&size=PIXELS | a defect's picture |
| GET /adiff/library | every library with its defects |
| POST /adiff/library/edit, remove, undo | changes a library's file: of one defect or many, all or none |

No name that comes in is taken for a path: libraries and defects are looked up in the lists. What comes from another
site's page is refused, and what changes a file has to come as JSON, which such a page cannot send without being asked.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from einops import rearrange
from PIL import Image
from server import PromptServer
from torch import Tensor

from ..adiff.curation import ChangedMeanwhile, state_of
from ..adiff.errors import InputError
from . import curate
from .files import find_defect, library_path

SIZES = range(16, 513)
"""Pixels of a picture's longer side that may be asked for."""
LARGEST = 1 << 20
"""Bytes of a request that changes something; the most that the panel can send, 32 long tags for each of 200 defects in
letters of three bytes, are fewer."""

Handler = Callable[[web.Request], Awaitable[web.Response]]


class Refused(Exception):
    """A request that is not looked at: its status and why."""

    def __init__(self, status: int, why: str):
        super().__init__(why)
        self.status = status


def register_routes() -> None:
    """Add our routes to the running server."""
    routes = PromptServer.instance.routes
    routes.get("/adiff/preview")(preview)
    routes.get("/adiff/library")(library)
    for name, change in (("edit", curate.edit), ("remove", curate.take_out), ("undo", curate.take_back)):
        routes.post(f"/adiff/library/{name}")(changing(change))


async def preview(request: web.Request) -> web.Response:
    """Answer GET /adiff/preview?defect=LABEL with the library's picture as PNG, 404 if there is none.

    size: pixels of the longer side, at most; without it the picture as it is. A label is looked up in the lists of
    libraries; it is never taken for a path.
    """
    if not from_here(request):
        return _error(403, "asked for by another site's page")
    size = request.query.get("size", "512")
    if not (size.isascii() and size.isdigit() and len(size) < 4 and int(size) in SIZES):
        return _error(400, f"size has to be a number from {SIZES[0]} to {SIZES[-1]}")
    try:
        stored, state = await asyncio.to_thread(_look_up, request.query.get("defect", ""))
    except (InputError, OSError):
        return web.Response(status=404, text="no library holds this defect")
    if stored is None:
        return web.Response(status=404, text="this defect has no picture")
    headers = {"Cache-Control": "no-cache", "ETag": f'"{state}-{size}"'}
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return web.Response(status=304, headers=headers)
    picture = await asyncio.to_thread(_png, stored, int(size))
    return web.Response(body=picture, content_type="image/png", headers=headers)


async def library(request: web.Request) -> web.Response:
    """Answer GET /adiff/library with `curate.listing` as JSON."""
    if not from_here(request):
        return _error(403, "asked for by another site's page")
    return web.json_response(await asyncio.to_thread(curate.listing), headers={"Cache-Control": "no-store"})


def changing(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Handler:
    """Return the handler of a POST that changes a library: its JSON goes to `change`, what that returns comes back.

    Statuses: 400 bad input, 403 another site, 404 no such library, 409 changed meanwhile, 410 an edit that is not known
    any more, 413 too long, 415 no JSON, 500 the system says no (a full disk, a read-only folder).
    """

    async def answer(request: web.Request) -> web.Response:
        try:
            return web.json_response(await asyncio.to_thread(change, await _body(request)))
        except Refused as refused:
            return _error(refused.status, str(refused))
        except ChangedMeanwhile as error:
            return _error(409, str(error))
        except InputError as error:
            return _error(400, str(error))
        except LookupError:
            return _error(410, "this edit is not known any more: the server was started again, or too many followed")
        except FileNotFoundError as error:
            return _error(404, str(error))
        except OSError as error:
            return _error(500, f"the library could not be written: {error.strerror or error}")

    return answer


def from_here(request: web.Request) -> bool:
    """Whether a request comes from ComfyUI's own page, or from no page at all.

    Browsers name the page's origin with every POST, and newer ones with everything (Sec-Fetch-Site); no page can change
    either.
    """
    if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("Origin")
    try:
        return origin is None or urlsplit(origin).netloc.lower() == request.headers.get("Host", "").lower()
    except ValueError:  # an address that is none
        return False


async def _body(request: web.Request) -> Any:
    """Return a request's JSON; raises Refused for one from elsewhere, of another type, or too long."""
    if not from_here(request):
        raise Refused(403, "sent by another site's page; behind a proxy, have it pass on the Host header")
    if request.content_type != "application/json":
        raise Refused(415, f"the request is {request.content_type[:60]}; expected application/json")
    content = b""
    while len(content) <= LARGEST and (part := await request.content.read(LARGEST)):
        content += part
    if len(content) > LARGEST:
        raise Refused(413, f"the request is longer than {LARGEST} bytes")
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Refused(400, "the request is no JSON in UTF-8") from None


def _error(status: int, why: str) -> web.Response:
    return web.json_response({"error": why}, status=status)


def _look_up(label: str) -> tuple[Tensor | None, str]:
    """A defect's preview, (3, h, w) uint8, and its library's state."""
    found = find_defect(label)
    return found.entry.preview, state_of(library_path(found.source))


def _png(picture: Tensor, size: int) -> bytes:
    """(3, h, w) uint8 -> PNG, its longer side `size` pixels at most."""
    image = Image.fromarray(rearrange(picture, "c h w -> h w c").contiguous().numpy())
    image.thumbnail((size, size))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
