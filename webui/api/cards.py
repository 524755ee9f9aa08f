"""The routes of ``/api/v1/cards``: model files as people see them, found, shown and noted about by the id of a card."""

from __future__ import annotations

import json
from typing import Annotated, Any

import anyio
import anyio.to_thread
from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from webui.checkpoints.notes import MAX_BYTES
from webui.engine.cards import MAX_PAGE, CardQuery
from webui.engine.engine import Engine
from webui.errors import RequestError

_JSON_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}


def build_router(engine: Engine) -> APIRouter:
    """Every route, bound to one engine."""
    router = APIRouter(prefix="/api/v1/cards")
    cards = engine.cards
    # Threads of their own: a screen full of pictures to be decoded must not hold up other routes.
    decoding = anyio.CapacityLimiter(4)

    @router.get("")
    def listed(
        kind: str = "lora",
        search: str = "",
        folder: str = "",
        sort: str = "path",
        descending: bool = False,
        offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
        refresh: bool = False,
    ) -> dict[str, Any]:
        """Cards of a kind of model file (lora, checkpoint, embedding, hypernet, …), a page of them.

        ``search`` finds cards in which all its words occur: in the name, the folder, the metadata, the notes.  ``sort``
        is path, name, created or modified.  ``unread`` counts files whose header was not read yet; ask again.
        ``refresh`` looks at the models folder again.
        """
        query = CardQuery(kind=kind, search=search, folder=folder, sort=sort, descending=descending)
        if refresh:
            engine.refresh()
        page = cards.page(query, offset, limit)
        if page.unread:
            engine.read_cards()
        return page.to_dict()

    @router.get("/folders")
    def folders(kind: str = "lora") -> list[dict[str, Any]]:
        """The folders of a kind, with the number of cards in each and below it."""
        return [{"path": path, "count": count} for path, count in cards.folders(kind).items()]

    @router.get("/{card_id}")
    def detail(card_id: str) -> dict[str, Any]:
        """All that is known about one file: its place, hash, metadata, and a person's notes."""
        return cards.detail(card_id)

    @router.put("/{card_id}/notes", openapi_extra=_JSON_BODY)
    async def note(card_id: str, request: Request) -> dict[str, Any]:
        """Change notes: description, activation_text, preferred_weight, negative_text, notes, sd_version, vae.

        They are kept in the file that AUTOMATIC1111 uses (NAME.json); what is not named stays as it is.
        """
        changes = await _small_json(request)
        return (await run_in_threadpool(cards.note, card_id, changes)).to_dict()

    @router.put("/{card_id}/preview", openapi_extra=_JSON_BODY)
    async def preview(card_id: str, request: Request) -> dict[str, Any]:
        """Make a finished picture the preview: {"output": id of the picture}."""
        body = await _small_json(request)
        output = body.get("output") if isinstance(body, dict) else None
        if not isinstance(output, str):
            raise RequestError('The body must be {"output": the id of a finished picture}.')
        path = await run_in_threadpool(engine.output_path, output)
        return (await run_in_threadpool(cards.show_with, card_id, path)).to_dict()

    @router.get("/{card_id}/thumbnail")
    async def thumbnail(card_id: str, v: str = "", if_none_match: Annotated[str | None, Header()] = None) -> Response:
        """A small WebP of the preview; with ``v``, the card's ``thumbnail``, it may be kept for a while."""
        data, key = await anyio.to_thread.run_sync(cards.thumbnail, card_id, limiter=decoding)
        kept = "max-age=604800" if v == key else "no-cache"
        headers = {"ETag": f'"{key}"', "Cache-Control": f"private, {kept}"}
        if if_none_match is not None and f'"{key}"' in if_none_match:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type="image/webp", headers=headers)

    return router


async def _small_json(request: Request) -> Any:
    """The body as JSON.  Raises RequestError when it is none or too large."""
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > MAX_BYTES:
            raise RequestError(f"The body is larger than {MAX_BYTES // 1024} kB.")
    try:
        return json.loads(parts)
    except (ValueError, RecursionError) as error:
        raise RequestError("The body is no JSON.") from error
