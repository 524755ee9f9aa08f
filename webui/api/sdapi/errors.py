"""Errors as AUTOMATIC1111's API words them: ``{"error", "detail", "body", "errors"}`` (and Forge's ``message``)."""

from __future__ import annotations

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse

from webui.errors import DEFECT, WebUIError

PREFIXES = ("/sdapi/", "/internal/", "/sd_extra_networks/")


class UpstreamError(Exception):
    """What upstream answers with ``status`` and a ``detail`` that clients compare."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def speaks_sdapi(request: Request) -> bool:
    """Whether the caller expects this form of errors."""
    return request.url.path.startswith(PREFIXES)


def answer(error: Exception) -> JSONResponse:
    """An error in this form.  ``detail`` holds the sentence, too: clients show it."""
    status, kind, detail, sentence = 500, type(error).__name__, "", DEFECT
    if isinstance(error, UpstreamError):
        status, kind, detail, sentence = error.status, "HTTPException", error.detail, error.detail
    elif isinstance(error, HTTPException):
        status, kind, detail, sentence = error.status_code, "HTTPException", str(error.detail), str(error.detail)
    elif isinstance(error, WebUIError):
        status, detail, sentence = error.status, str(error), str(error)
    body = {"error": kind, "detail": detail, "body": "", "errors": sentence, "message": sentence}
    return JSONResponse(body, status_code=status)
