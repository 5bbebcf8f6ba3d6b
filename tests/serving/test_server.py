"""One real server: what its users read while it trains, what training scores while they read, and what survives a crash.

The tests stand in the order of the server's life, and share it.
"""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from live import Crowd, Live, logprobs, prompt, serving

from bench.executors.vllm.executor import VllmExecutor
from bench.journal.file import read_journal
from bench.registry import make_workload
from bench.serving.supply import AHEAD
from workloads.tasks.batches import batch_stream
from workloads.tasks.load import load_task

INTERVAL, EXACT, STEPS = 40, 40, 60
REQUESTS = 1000


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, opt_tiny: Any) -> Iterator[Live]:
    options = (
        f"--interval {INTERVAL} --publish-every 0 --policy none --probes requests --slot-rank 8 --kv-mib 32 --dev-examples 20"
    )
    yield from serving(tmp_path_factory.mktemp("serving"), options)


def test_two_models_are_listed_and_a_token_is_asked_for(live: Live) -> None:
    assert [model["id"] for model in live.call("GET", "/v1/models").json()["data"]] == ["base", "tuned"]
    for method, path in (("GET", "/training"), ("POST", "/training/start"), ("GET", "/v1/models")):
        for token in ("", "another"):
            assert live.call(method, path, token=token).status_code == 401
    assert not live.training()["training"]


def test_a_first_token_does_not_wait_for_an_acknowledgement(live: Live) -> None:
    """Of the headers before it, which a client may hold back for 40 ms: one in six of all first tokens came that late."""
    with httpx.Client() as client:
        client.get(live.url + "/health")
        ends = list(live.connections())
        assert ends and all(end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for end in ends)
    for end in ends:
        end.close()


BAD = [
    ("POST", "start", b"{", 400, "no JSON"),
    ("POST", "start", b"[1]", 400, "object"),
    ("POST", "start", {"polcy": "none"}, 400, "polcy: not known; expected policy"),
    ("POST", "start", {"policy": "greedy"}, 400, "none, fixed, idle-only, controller"),
    ("POST", "start", {"policy": "fixed", "probe_tokens": 0}, 400, "at least 1"),
    ("POST", "start", {"slo": "ttft_p50=+1%"}, 400, "ttft_p99=+15%"),
    ("POST", "stop", {"now": True}, 400, "takes nothing"),
    ("POST", "publish", None, 409, "nothing was learned"),
    ("POST", "rollback", None, 409, "no earlier version"),
    ("POST", "rollback", {"version": 7}, 409, "was not published"),
    ("POST", "rollback", {"version": "1"}, 400, "whole number"),
    ("POST", "examples", {}, 400, "list of rows"),
    ("POST", "examples", {"examples": [3]}, 400, "sentence, label"),
    ("POST", "examples", {"examples": [{"sentence": "fine"}]}, 400, "label"),
    ("POST", "examples", {"examples": [{"sentence": "fine", "label": 5}]}, 400, "row 1: label 5"),
    ("POST", "examples", {"examples": [{"sentence": "word " * 400, "label": 1}]}, 400, "tokens"),
    ("POST", "examples", b" " * (1 << 20) + b" ", 413, "larger than"),
    ("POST", "examples", {"examples": [{"sentence": "fine", "label": 1}] * 1001}, 409, "at most 1000"),
    ("GET", "start", None, 405, ""),
    ("POST", "fly", None, 404, ""),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "said"), BAD, ids=lambda value: str(value)[:30])
def test_a_bad_call_gets_one_line_and_changes_nothing(
    method: str, path: str, body: Any, status: int, said: str, live: Live
) -> None:
    answer = live.call(method, f"/training/{path}", body)
    assert answer.status_code == status, answer.text
    assert "\n" not in answer.text.strip()
    if said:
        assert said in answer.json()["error"]
    found = live.training()
    assert (found["step"], found["version"], found["training"], found["examples_waiting"]) == (0, 0, False, 0)


def test_answers_of_base_have_the_same_bits_while_it_trains(live: Live) -> None:
    questions = [prompt(length) for length in (1, 2, 3, 4, 15, 16, 17, 40, 63, 90)]
    asked = [(question, {"cache_salt": salt}) for question in questions for salt in ("one", "two")]
    before = [logprobs(live.ask("base", question, 6, **salt)) for question, salt in asked]
    live.post("start")
    live.until(2)
    during = [logprobs(live.ask("base", question, 6, cache_salt=uuid.uuid4().hex)) for question, _ in asked]
    assert before == during
    assert live.training()["training"]


def test_a_crowd_of_users_some_of_whom_leave_fails_in_nothing(live: Live) -> None:
    crowd = Crowd(live, REQUESTS)
    crowd.start()
    while crowd.is_alive():
        if live.training()["step"] >= STEPS:
            live.post("stop")
        time.sleep(0.2)
    crowd.join()
    assert not crowd.failed
    assert crowd.gone > REQUESTS / 10
    assert crowd.gone + crowd.served == REQUESTS
    if live.training()["step"] < STEPS:
        live.until(STEPS)
    live.post("stop")


def test_those_who_left_leave_nothing_behind(live: Live) -> None:
    for _ in range(100):
        found = live.training()
        if found["admission"]["users"] == 0 and not found["readers"]:
            break
        time.sleep(0.1)
    admission = found["admission"]
    assert (admission["users"], admission["held"], admission["inside"], found["readers"]) == (0, 0, 0, {})
    blocks = found["memory_bytes"]["kv_pool"] // (2 * 2 * 128 * 4 * 16)  # keys and values, layers, hidden, float32, block
    assert admission["free_blocks"] == blocks - 1  # vLLM's null block is never free


def test_cached_and_uncached_answers_of_a_version_agree(live: Live) -> None:
    """Pairs of one prompt, through the prefix cache and past it, with versions published all the while."""
    question, going = prompt(60), threading.Event()

    def publish() -> None:
        while not going.is_set():
            live.post("publish")
            time.sleep(0.1)

    live.post("start")
    publisher = threading.Thread(target=publish)
    publisher.start()
    pairs: dict[str, set[tuple[float, ...]]] = {}
    for number in range(60):
        salt = {"cache_salt": uuid.uuid4().hex} if number % 2 else {}
        answer = live.ask("tuned", question, 2, **salt)
        pairs.setdefault(answer["model"], set()).add(tuple(logprobs(answer)))
    going.set()
    publisher.join()
    live.post("stop")
    assert len(pairs) >= 3
    assert {name: len(found) for name, found in pairs.items()} == dict.fromkeys(pairs, 1)
    assert len(set.union(*pairs.values())) == len(pairs)  # and the versions differ, so that a stale answer would show


def test_a_request_keeps_its_version_to_its_last_token(live: Live) -> None:
    """It runs while three versions are published; the version is then asked again, alone."""
    old, question = live.post("publish")["version"], prompt(20)
    body = {"model": "tuned", "prompt": question, "max_tokens": 200, "temperature": 0, "logprobs": 1, "ignore_eos": True}
    headers = {"Authorization": "Bearer a token for the tests"}
    names, values = set(), list[float]()
    with httpx.stream("POST", live.url + "/v1/completions", json=body | {"stream": True}, headers=headers, timeout=120) as answer:
        for number, line in enumerate(filter(None, answer.iter_lines())):
            if line == "data: [DONE]":
                break
            if number in (1, 20, 40):
                live.post("start")
                live.until(live.training()["step"] + 2)
                live.post("publish")
                live.post("stop")
            chunk = httpx.Response(200, content=line.removeprefix("data: ")).json()
            names.add(chunk["model"])
            values += logprobs(chunk)
    assert names == {f"tuned@{old}"}
    assert len(values) == 200
    assert live.training()["version"] == old + 3
    live.post("rollback", version=old)
    again = live.ask("tuned", question, 200, cache_salt="past the cache")
    assert again["model"] == f"tuned@{old}"
    assert logprobs(again) == values


def test_no_probe_enters_a_round_that_users_share_under_idle_only(live: Live) -> None:
    live.post("start", policy="idle-only")
    live.until(live.training()["step"] + 1)
    body = {"model": "base", "prompt": prompt(8), "max_tokens": 230, "ignore_eos": True, "stream": True, "logprobs": 1}
    headers = {"Authorization": "Bearer a token for the tests"}
    seen, tokens = list[int](), 0
    with httpx.stream("POST", live.url + "/v1/completions", json=body, headers=headers, timeout=120) as answer:
        for line in filter(None, answer.iter_lines()):
            if line == "data: [DONE]":
                break
            tokens += len(logprobs(httpx.Response(200, content=line.removeprefix("data: ")).json()))
            if tokens >= (80, 190)[min(len(seen), 1)] and len(seen) < 2:
                seen.append(live.training()["step"])
    assert tokens == 230
    assert seen[1] - seen[0] <= 1  # one may have had its last probe in the engine; those before have been told of by then
    live.until(seen[1] + 3)
    live.post("stop")


def test_probes_do_not_push_users_out_of_the_prefix_cache(live: Live) -> None:
    def hits() -> float:
        lines = live.call("GET", "/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:prefix_cache_hits_total"))

    question = prompt(81)
    live.ask("base", question)
    live.post("start", policy="none")
    live.until(live.training()["step"] + 40)  # 40 times 32 prompts of two blocks: more than twice the pool
    before = hits()
    live.ask("base", question)
    assert hits() - before == 80
    live.post("stop")


def test_killed_it_goes_on_where_it_was(live: Live) -> None:
    question = prompt(30)
    live.post("start")
    live.until(live.training()["step"] + 2)
    live.post("stop")
    published = live.post("publish")
    rows = [{"sentence": f"a fine film {number}", "label": number % 2} for number in range(30)]
    assert live.post("examples", examples=rows) == {"accepted": 30, "waiting": 30}
    before, answer = live.training(), logprobs(live.ask("tuned", question, 8))
    live.post("start")
    live.until(before["step"] + AHEAD + 2)  # so many minibatches may have been drawn before those rows came
    live.kill()
    live.start()
    after = live.training()
    assert after["step"] >= before["step"] + AHEAD + 2
    assert after["version"] == published["version"] == before["version"]
    scored_since = after["step"] - before["step"] - 1  # at least from the step after the next one on
    assert (
        max(0, 30 - 8 * scored_since) <= after["examples_waiting"] < 30
    )  # up to half a minibatch of 16, less what is drawn again
    assert logprobs(live.ask("tuned", question, 8)) == answer
    for one in (before, after):
        assert one["compression"]["compressions"] >= 2  # a slot of rank 8 holds two past epochs
        assert 0 < one["compression"]["error"] < 1
    live.post("start")
    live.until(after["step"] + 2)
    said = live.end()
    assert said["status"] == "passed"
    assert said["steps"] >= after["step"] + 2


def test_losses_are_those_of_the_requests_loop(live: Live, opt_tiny: Any) -> None:
    """Bit for bit until V is drawn again: from then on the executor folds, and a server must not. Scored among a crowd of users,
    compared with an engine that has nothing else to do; every step starts from the losses of the server's."""
    journal = read_journal(Path(live.folder) / "state" / "serving.journal.jsonl")
    history, spec = journal.sessions[0], journal.header.spec
    task = load_task(spec.task, source=opt_tiny)
    executor, workload = VllmExecutor(), make_workload(spec)
    try:
        executor.load(spec, opt_tiny, replace(task, answer_tokens=1))  # with a prefix cache, for the control
        worst = 0.0
        for step, batch in zip(range(STEPS), batch_stream(task.train, spec.batch_size, spec.seed), strict=False):
            losses = executor.score(batch, workload.plan(step))
            recorded = torch.tensor(history.steps[step].losses)
            if step < EXACT:
                assert torch.equal(losses, recorded), step
            worst = max(worst, float((losses - recorded).abs().max()))
            executor.apply(workload.update(step, recorded))
        assert worst <= 2e-5
        control(executor, workload)
    finally:
        executor.close()


def control(executor: VllmExecutor, workload: Any) -> None:
    """What versioned names are for: under one name a slot's new contents are answered from the old ones' keys and values."""
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    question = {"prompt_token_ids": prompt(60)}
    plain = SamplingParams(temperature=0.0, max_tokens=1, logprobs=1)

    def ask(name: str, **more: Any) -> float:
        first = executor._requests[0]
        request = LoRARequest(name, first.lora_int_id, first.lora_path)
        output = executor._llm.generate(question | more, plain, lora_request=request, use_tqdm=False)[0].outputs[0]
        return output.logprobs[0][output.token_ids[0]].logprob

    executor._rpc("zo_prepare", [replace(probe, shift=20 * probe.shift) for probe in workload.plan(STEPS)])
    ask("tuned")
    executor._rpc("zo_prepare", [replace(probe, shift=-20 * probe.shift) for probe in workload.plan(STEPS)])
    fresh = ask("another", cache_salt="fresh")
    assert abs(ask("tuned") - fresh) > 1e-5  # stale
    assert ask("tuned@2") == fresh
