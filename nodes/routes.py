"""What the front end asks the server for beside the graph: the picture of a learned defect."""

from __future__ import annotations

import asyncio
import io

from aiohttp import web
from PIL import Image
from server import PromptServer

from ..adiff.errors import InputError
from .files import find_defect


def register_routes() -> None:
    """Add our routes to the running server."""
    PromptServer.instance.routes.get("/adiff/preview")(preview)


async def preview(request: web.Request) -> web.Response:
    """Answer GET /adiff/preview?defect=LABEL with the library's picture as PNG, 404 if there is none.

    A label is looked up in the lists of libraries; it is never taken for a path.
    """
    try:
        picture = await asyncio.to_thread(_picture, request.query.get("defect", ""))
    except (InputError, OSError):
        return web.Response(status=404, text="no library holds this defect")
    if picture is None:
        return web.Response(status=404, text="this defect has no picture")
    return web.Response(body=picture, content_type="image/png", headers={"Cache-Control": "no-cache"})


def _picture(label: str) -> bytes | None:
    """A defect's preview, (3, h, w) uint8 in the library, as PNG."""
    stored = find_defect(label).entry.preview
    if stored is None:
        return None
    file = io.BytesIO()
    Image.fromarray(stored.permute(1, 2, 0).contiguous().numpy()).save(file, "PNG")
    return file.getvalue()
