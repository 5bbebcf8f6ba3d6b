"""POST /training/start, stop, publish, rollback, examples and GET /training: bad calls get one line and a 4xx."""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from bench.errors import UsageError
from bench.serving.publishing import Refused
from bench.serving.trainer import Trainer

MOST_BYTES = 1 << 20
Fields = dict[str, Any]


class Bad(Exception):
    """status: of HTTP."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def routes(trainer: Trainer, token: str) -> APIRouter:
    """token: what every call has to show as its bearer; "" asks for none."""
    router = APIRouter(prefix="/training")

    def answers(method: str, path: str, known: tuple[str, ...], work: Callable[[Fields], Awaitable[Fields]]) -> None:
        async def answer(request: Request) -> JSONResponse:
            try:
                _check_token(request, token)
                return JSONResponse(await work(await _fields(request, known)))
            except Bad as error:
                return _refusal(error.status, str(error))
            except UsageError as error:
                return _refusal(400, str(error))
            except Refused as error:
                return _refusal(409, str(error))

        router.add_api_route(path, answer, methods=[method])

    async def start(fields: Fields) -> Fields:
        if fields:
            await trainer.use(fields)
        trainer.start()
        return {"training": True, "step": trainer.step, "policy": trainer.admission["policy"]}

    async def stop(_: Fields) -> Fields:
        over = await trainer.stop()
        return {"training": False, "step": trainer.step, "step_under_way": not over}

    async def publish(_: Fields) -> Fields:
        return asdict(await trainer.publish())

    async def rollback(fields: Fields) -> Fields:
        version = fields.get("version")
        if version is not None and (isinstance(version, bool) or not isinstance(version, int)):
            raise Bad(400, f"version {version!r}: expected a whole number, or nothing for the version before")
        return asdict(await trainer.rollback(version))

    async def examples(fields: Fields) -> Fields:
        rows = fields.get("examples")
        if not isinstance(rows, list) or not rows:
            raise Bad(400, 'examples: expected a list of rows, as in {"examples": [{"sentence": "...", "label": 1}]}')
        return {"accepted": len(rows), "waiting": await trainer.post(rows)}

    async def facts(_: Fields) -> Fields:
        return await trainer.facts()

    answers("POST", "/start", ("policy", "probe_tokens", "slo"), start)
    answers("POST", "/stop", (), stop)
    answers("POST", "/publish", (), publish)
    answers("POST", "/rollback", ("version",), rollback)
    answers("POST", "/examples", ("examples",), examples)
    answers("GET", "", (), facts)
    return router


def _check_token(request: Request, token: str) -> None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if token and not (scheme.lower() == "bearer" and secrets.compare_digest(given.encode(), token.encode())):
        raise Bad(401, "the bearer token is missing or another; send it as Authorization: Bearer ...")


async def _fields(request: Request, known: tuple[str, ...]) -> Fields:
    """The body as an object; nothing at all is an empty one."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise Bad(413, f"the body is larger than {MOST_BYTES} bytes; send it in parts")
    if not body.strip():
        return {}
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Bad(400, "the body is no JSON") from None
    if not isinstance(found, dict):
        raise Bad(400, "the body has to be an object")
    if more := sorted(map(str, found.keys() - set(known))):
        raise Bad(400, f"{', '.join(more)}: not known; {'expected ' + ', '.join(known) if known else 'this call takes nothing'}")
    return found


def _refusal(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": " ".join(text.splitlines())}, status_code=status)
