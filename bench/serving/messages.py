"""What processes of a server say to each other: JSON after its length. Numbers arrive with the bits they had."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from bench.serving.publishing import Refused

GONE = "the process that trains has ended; start the server again, and it goes on from its journal"
HEAD = struct.Struct("!Q")
Rpc = Callable[..., Awaitable[Any]]
"""Calls a method of something in another process, by its name."""


def packed(value: Any) -> bytes:
    body = json.dumps(value, separators=(",", ":")).encode()
    return HEAD.pack(len(body)) + body


def read(connection: socket.socket) -> Any:
    """Waits for a message; None where nobody is there any more."""
    head = _exactly(connection, HEAD.size)
    return None if head is None else json.loads(_exactly(connection, HEAD.unpack(head)[0]) or b"null")


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    found = bytearray()
    while len(found) < size:
        part = connection.recv(min(size - len(found), 1 << 20))
        if not part:
            return None
        found += part
    return bytes(found)


class Caller:
    """Calls what listens at a path, one after the other. Refused where it has ended, RuntimeError for what it ran into."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._one = asyncio.Lock()

    @classmethod
    async def connect(cls, path: str) -> Caller:
        return cls(*await asyncio.open_unix_connection(path))

    async def __call__(self, name: str, *args: Any) -> Any:
        async with self._one:
            try:
                self._writer.write(packed([name, args]))
                await self._writer.drain()
                (size,) = HEAD.unpack(await self._reader.readexactly(HEAD.size))
                answer = json.loads(await self._reader.readexactly(size))
            except (OSError, RuntimeError, asyncio.IncompleteReadError):  # RuntimeError: uvloop's word for a closed one
                raise Refused(GONE) from None
            except asyncio.CancelledError:
                self._writer.close()  # the answer would be taken for that of the next call
                raise
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["value"]
