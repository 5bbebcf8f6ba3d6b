"""A real server in a process of its own, and the calls that a client makes."""

from __future__ import annotations

import ctypes
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

TOKEN = "a token for the tests"
PIDFD_GETFD = 438
DRAW = random.Random(0)


class Live:
    """`python -m bench serve` with these options; killed, it may be started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.options, self.url = folder, options, ""
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Live:
        command = [sys.executable, "-m", "bench", "serve", "--port", "0", "--state", str(self.folder / "state"), *self.options]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "ZO_BENCH_TOKEN": TOKEN}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True)
        for _ in range(2400):
            if (
                found := re.search(r"control at (http://\S+)/training", self.log.read_text())
            ) and "ends it" in self.log.read_text():
                self.url = found[1]
                return self
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            time.sleep(0.1)
        raise AssertionError(self.log.read_text()[-2000:])

    def kill(self) -> None:
        """As a crash of the machine would."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> dict[str, Any]:
        """By Ctrl-C; what it says at the end."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, self.log.read_text()[-2000:]
        return json.loads(out.splitlines()[-1])

    def call(self, method: str, path: str, body: Any = None, token: str = TOKEN) -> httpx.Response:
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        return httpx.request(method, self.url + path, content=content, headers=headers, timeout=120)

    def connections(self) -> Iterator[socket.socket]:
        """The server's ends of its clients' connections, as Linux hands out those of a child."""
        assert self.process is not None
        pid, port = self.process.pid, int(self.url.rpartition(":")[2])
        lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
        inodes = {line[9] for line in lines if int(line[1].rpartition(":")[2], 16) == port and line[3] == "01"}
        held = os.pidfd_open(pid)
        for link in Path(f"/proc/{pid}/fd").iterdir():
            if os.readlink(link) in {f"socket:[{inode}]" for inode in inodes}:
                yield socket.socket(fileno=ctypes.CDLL(None).syscall(PIDFD_GETFD, held, int(link.name), 0))
        os.close(held)

    def training(self) -> dict[str, Any]:
        answer = self.call("GET", "/training")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, what: str, **body: Any) -> dict[str, Any]:
        answer = self.call("POST", f"/training/{what}", body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def until(self, step: int, seconds: float = 240) -> dict[str, Any]:
        """Train until so many steps are done."""
        end = time.monotonic() + seconds
        while (found := self.training())["step"] < step:
            assert found["error"] is None, found["error"]
            assert time.monotonic() < end, found
            time.sleep(0.05)
        return found

    def ask(self, model: str, prompt: list[int], tokens: int = 1, **more: Any) -> dict[str, Any]:
        body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "logprobs": 1, "ignore_eos": True}
        answer = self.call("POST", "/v1/completions", body | more)
        assert answer.status_code == 200, answer.text
        return answer.json()


def serving(folder: Path, options: str) -> Iterator[Live]:
    """A server while a test module lasts."""
    server = Live(folder, *options.split()).start()
    yield server
    if server.process is not None and server.process.poll() is None:
        server.kill()


def logprobs(answer: dict[str, Any]) -> list[float]:
    return answer["choices"][0]["logprobs"]["token_logprobs"]


def prompt(length: int) -> list[int]:
    return [0, *(DRAW.randrange(50, 650) for _ in range(length - 1))]


class Crowd(threading.Thread):
    """Users who stream answers of base and tuned, some of whom leave in the middle; so many requests in all."""

    def __init__(self, live: Live, requests: int, at_once: int = 8) -> None:
        super().__init__()
        self.live, self.left, self.at_once = live, requests, at_once
        self.failed: list[str] = []
        self.gone = self.served = 0

    def run(self) -> None:
        import asyncio

        asyncio.run(self._all())

    async def _all(self) -> None:
        import asyncio

        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=self.live.url, headers=headers, timeout=120) as client:
            await asyncio.gather(*(self._one_after_the_other(client) for _ in range(self.at_once)))

    async def _one_after_the_other(self, client: httpx.AsyncClient) -> None:
        while self.left > 0:
            self.left -= 1
            leaves = DRAW.random() < 0.3
            body = {"model": DRAW.choice(["base", "tuned"]), "prompt": prompt(DRAW.randrange(1, 60)), "stream": True}
            body |= {"max_tokens": DRAW.randrange(1, 6), "temperature": 0, "ignore_eos": True}
            async with client.stream("POST", "/v1/completions", json=body) as answer:
                if answer.status_code != 200:
                    self.failed.append((await answer.aread()).decode())
                    continue
                async for line in answer.aiter_lines():
                    if leaves and DRAW.random() < 0.7:
                        self.gone += 1
                        break
                    if line == "data: [DONE]":
                        self.served += 1
                        break
