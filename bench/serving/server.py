"""vLLM's OpenAI-compatible server with training in the same process: how it starts and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.config import RunSpec
from bench.data import ModelSource, TaskData
from bench.environment import threads
from bench.errors import UsageError
from bench.executors.vllm.compat import server_parts
from bench.executors.vllm.engine import BLOCK, refusals, slot_rank, write_empty_adapter
from bench.executors.vllm.variables import prepare_environment
from bench.registry import make_workload, workload_class
from bench.serving.durable import Durable
from bench.serving.publishing import Ring
from bench.serving.settings import ServeOptions
from bench.shadowing import child_environment
from workloads.steps import rounds

if TYPE_CHECKING:
    from bench.serving.course import Adapter
    from bench.serving.messages import Rpc
    from bench.serving.trainer import Trainer
    from workloads.directions import Layout

WORKER, SCHEDULER = "bench.serving.worker.ServingWorker", "bench.serving.scheduler.UsersFirst"
BASE = "base"
CPU_KV_MIB = 64


@dataclass(frozen=True)
class Site:
    """Everything a server is made from. task_options: as `workloads.tasks.task.TaskOptions` reads them; total: steps, or None."""

    spec: RunSpec
    options: ServeOptions
    source: ModelSource
    task: TaskData
    digests: dict[str, str]
    total: int | None


def serve(site: Site) -> dict[str, Any]:
    """Serve until a signal comes; what to say at the end. UsageError for what cannot be served."""
    spec, token = site.spec, site.options.token()
    durable = Durable(site.options.state, spec, site.digests)
    try:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # it warns of all that is meant to be so here
        prepare_environment(spec.device)
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, threads() - 1)))  # a core is the HTTP server's: users wait for both
        os.environ |= child_environment()
        import uvloop

        return uvloop.run(_serve(site, durable, token))
    finally:
        durable.close()


async def _serve(site: Site, durable: Durable, token: str) -> dict[str, Any]:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    spec, options, parts = site.spec, site.options, server_parts()
    probes = max(map(len, rounds(make_workload(spec))))
    arguments = _arguments(site, slots=probes + options.versions, token=token)
    try:
        _, sock = parts.setup_server(arguments, reuse_port=False)
    except OSError as error:
        raise UsageError(f"--port {options.port}: {error.strerror}; give another one, or 0 for any") from None
    port = sock.getsockname()[1]
    with refusals(site.source, spec.device):
        llm = AsyncLLM.from_engine_args(AsyncEngineArgs.from_cli_args(arguments))
    trainer, training = None, None
    try:
        supported = await llm.get_supported_tasks()
        app = parts.build_app(arguments, supported, llm.model_config)
        await parts.init_app_state(llm, app.state, arguments, supported)
        with tempfile.TemporaryDirectory(prefix="zo-adapter-") as folder:
            trainer = await _trainer(site, durable, llm, app.state.openai_serving_models, probes, folder)
            from bench.serving.control import routes

            app.include_router(routes(trainer, token))
            await trainer.begin()
            if options.train:
                trainer.start()
            training = asyncio.create_task(trainer.run())
            announcing = asyncio.create_task(_announce(app, llm, options.host, port, trainer, training))
            listening = dict(host=options.host, port=port, log_level="warning", access_log=False)
            await (await parts.serve_http(app, sock=sock, enable_ssl_refresh=False, **listening))
            announcing.cancel()
    finally:
        if training is not None:
            training.cancel()
            await asyncio.gather(training, return_exceptions=True)
        llm.shutdown(timeout=0)
        sock.close()
    return {"status": "passed", "steps": trainer.step, "version": trainer.ring.version, "state": str(durable.path.parent)}


def _arguments(site: Site, *, slots: int, token: str) -> Any:
    """vLLM's own arguments, as its command line would have them."""
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    from workloads.models.scope import layout
    from workloads.models.tokenizer import tokenizer_folder

    spec, options, source = site.spec, site.options, site.source
    modules = sorted({name.split(".")[-2] for name in layout(source, spec.scope)})
    given: dict[str, Any] = {
        "model": source.path,
        "tokenizer": tokenizer_folder(source),
        "served-model-name": BASE,
        "host": options.host,
        "port": options.port,
        "dtype": spec.dtype,
        "seed": spec.seed,
        "max-num-seqs": options.round_requests,
        "max-num-batched-tokens": options.round_tokens,
        "max-logprobs": -1,
        "block-size": BLOCK,
        "scheduling-policy": "priority",
        "scheduler-cls": SCHEDULER,
        "worker-extension-cls": WORKER,
        "max-loras": slots,
        "max-lora-rank": columns(spec, options),
    }
    flags = ["no-use-tqdm-on-load", "enable-prefix-caching", "enable-lora", "no-async-scheduling", "disable-uvicorn-access-log"]
    if spec.device == "cpu":
        flags.append("enforce-eager")
    kv = CPU_KV_MIB if options.kv_mib < 0 and spec.device == "cpu" else max(0, options.kv_mib)
    if kv:
        given["kv-cache-memory-bytes"] = kv << 20
    if source.weights == "random":
        from bench.executors.vllm import loader

        given |= {"load-format": loader.FORMAT, "model-loader-extra-config": json.dumps(loader.describe(source))}
    if spec.trust_remote_code:
        flags.append("trust-remote-code")
    if token:
        given["api-key"] = token
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    return (
        server_parts()
        .make_arg_parser(FlexibleArgumentParser())
        .parse_args([*words, *(f"--{flag}" for flag in flags), "--lora-target-modules", *modules])
    )


def columns(spec: RunSpec, options: ServeOptions) -> int:
    """Of a slot: what was learned, the probe, and room for the past. UsageError where that does not fit."""
    probes = make_workload(spec).plan(0)
    queries = len({probe.direction for probe in probes})
    least = spec.rank * (3 if workload_class(spec.workload).kind == "lowrank" else 2 + queries)
    wanted = options.slot_rank or min(512, 32 * spec.rank)
    if wanted < least or wanted > 512:
        raise UsageError(f"--slot-rank {wanted}: must be {least} to 512 for --rank {spec.rank}")
    return slot_rank(wanted)


async def _trainer(site: Site, durable: Durable, llm: Any, models: Any, probes: int, folder: str) -> Trainer:
    """Open the slots, and put together what trains."""
    from vllm.lora.request import LoRARequest

    from bench.serving.course import adapter_of
    from bench.serving.feed import Checked, Feed
    from bench.serving.trainer import Trainer
    from workloads.models.scope import layout
    from workloads.tasks.task import TaskOptions

    spec, options, task = site.spec, site.options, site.task
    scoped = layout(site.source, spec.scope)
    first = {name.split(".")[-2]: name for name in reversed(scoped)}
    path = write_empty_adapter(folder, {name: scoped[name] for name in first.values()})
    slots = [LoRARequest(f"slot{number}", number, path) for number in range(1, probes + options.versions + 1)]
    for request in slots:
        await llm.add_lora(request)
        await llm.pin_lora(request.lora_int_id)

    async def rpc(name: str, *args: Any) -> Any:
        return (await llm.collective_rpc(name, args=args))[0]

    ids = [request.lora_int_id for request in slots]
    engine, training = await _training(site, llm, scoped, [*map(adapter_of, slots[:probes])], ids[probes:], folder)
    ring = Ring(models, ids[probes:], path)
    ring.watch(llm)
    ring.list_by_name()
    longest = llm.model_config.max_model_len - 1
    feed = Feed(task.train, spec.batch_size, spec.seed, options.queue)
    checked = Checked(spec.task, TaskOptions.of(spec.to_json()), site.source, task, longest)
    if task.max_tokens > longest:
        raise UsageError(f"--task {spec.task}: its longest row has {task.max_tokens} tokens, the model serves {longest}")
    parts = (spec, options, task, make_workload(spec), engine, training, ring, durable, feed, checked)
    trainer = Trainer(*parts, total=site.total, admission={})
    await trainer.use({"policy": options.policy, "probe_tokens": options.probe_tokens, "slo": options.slo})
    return trainer


async def _training(site: Site, llm: Any, scoped: Layout, probes: list[Adapter], ring: list[int], folder: str) -> tuple[Rpc, Rpc]:
    """How to call the engine and training, once training is there: beside the engine, or in it."""
    from bench.serving.messages import Caller
    from bench.serving.process import keep_to, shared_out

    async def engine(name: str, *args: Any) -> Any:
        return (await llm.collective_rpc(name, args=args))[0]

    async def within(name: str, *args: Any) -> Any:
        return await engine("zs_call", name, *args)

    spec, options, task = site.spec, site.options, site.task
    shapes, path = {name: list(shape) for name, shape in scoped.items()}, os.path.join(folder, "training")
    asked = (task.objective, task.single_token_options, path if options.probes != "requests" else None)
    if await engine("zs_setup", spec.to_json(), shapes, probes, ring, *asked):
        keep_to(shared_out()[1])
        return engine, await Caller.connect(path)
    if options.probes == "passes":
        raise UsageError("--probes passes: takes a CPU and a model with plain causal attention; use --probes requests")
    return engine, within


async def _announce(app: Any, llm: Any, host: str, port: int, trainer: Trainer, training: asyncio.Task[None]) -> None:
    """Say where it is once it listens. From then on Ctrl-C ends training first, or its last probes would find no engine."""
    while not (hasattr(app.state, "server") and app.state.server.started):
        await asyncio.sleep(0.01)

    def over(_: object) -> None:
        if llm.output_handler is not None:
            llm.output_handler.cancel()
        os.kill(os.getpid(), signal.SIGTERM)  # which vLLM's server obeys

    def interrupted() -> None:
        training.add_done_callback(over)
        training.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted)
    where = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    judged = trainer.judged
    print(f"serving {BASE} and tuned at {where}/v1, control at {where}/training", file=sys.stderr)
    share = f", dev accuracy {judged.accuracy:.3f}" if judged.accuracy is not None else ""
    print(f"step {trainer.step}, tuned is version {trainer.ring.version}{share}; Ctrl-C ends it", file=sys.stderr, flush=True)
