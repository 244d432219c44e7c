"""Two real vLLM servers with a tiny model, started once for this file: starting them takes a minute or more."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rollwright.contracts.errors import ContextOverflow, EngineFault, ParityError
from rollwright.generation.engine import Generation, Sampling
from rollwright.generation.parity import Sampled, measure_parity, model_logprobs, parity_gate
from rollwright.generation.server.make_servers import ServerSetup, open_servers
from rollwright.generation.server.parent_guard import has_living
from rollwright.generation.server.server_engine import VLLMServerEngine
from rollwright.learner.weights import full_weights, gathered, hand_over
from rollwright.models.adapters import adapter_of
from rollwright.models.loading import load_model, with_lora
from rollwright.models.tiny_model import make_tiny_model
from rollwright.rollout import FaultLog

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(1800)]

CONTEXT = 32768
LONG = 2000  # tokens of an action that should last for some seconds; doubled where a machine proves too fast
SETUP = ServerSetup(kv_cache_gib=0.25, stall_s=30.0, request_s=600.0)


@dataclass
class Servers:
    """An engine over two servers, and a learner that holds the weights they should have."""

    engine: VLLMServerEngine
    learner: Any
    folder: Path

    def move(self, seed: int, size: float = 0.05) -> None:
        """A large policy update of the learner alone."""
        noise = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.learner.parameters():
                parameter.add_(size * torch.randn(parameter.shape, generator=noise))

    def sync(self) -> None:
        hand_over(self.learner, self.engine, version=self.engine.version + 1)

    def homes(self, count: int) -> list[str]:
        """Names of new episodes, one for each replica in turn."""
        first = random.getrandbits(32)
        return [f"episode-{first + number}" for number in range(count)]


def open_tiny(folder: Path, setup: ServerSetup) -> VLLMServerEngine:
    """Without stop tokens: an action is as long as it is asked for."""
    return open_servers(folder, setup, dtype="float32", context_length=CONTEXT, max_batch=16)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(
        tmp_path_factory.mktemp("tiny"), texts=["move up", "move down"], hidden=64, layers=2, context_length=CONTEXT
    )


@pytest.fixture(scope="module")
def servers(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    logs = tmp_path_factory.mktemp("run") / "servers"
    engine = open_tiny(tiny, replace(SETUP, replicas=2, log_folder=logs))
    assert sorted(path.name for path in logs.glob("*.log")) == ["server_0.log", "server_1.log"]
    weights = engine._transport._files.own  # type: ignore[attr-defined]
    groups = [replica.process.pid for replica in engine._replicas if replica.process]
    assert len(groups) == 2 and all(has_living(group) for group in groups if group)
    yield Servers(engine, load_model(tiny), tiny)
    groups = [replica.process.pid for replica in engine._replicas if replica.process]
    engine.close()
    engine.close()
    assert not any(has_living(group) for group in groups if group)
    assert not engine._thread.is_alive() and not weights.exists()


def prompt(seed: int, longest: int = 90) -> tuple[int, ...]:
    rng = random.Random(seed)
    return tuple(rng.randrange(3, 250) for _ in range(rng.randrange(3, longest)))


def difference(learner: Any, results: list[tuple[tuple[int, ...], Generation]]) -> float:
    actions = [Sampled.of_generation(ids, generation) for ids, generation in results]
    return measure_parity(actions, model_logprobs(learner, actions)).max_difference


def metric(url: str, name: str) -> float:
    """A counter of one server, summed over its labels."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


async def until(condition: Callable[[], bool], what: str, seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.05)


async def answer_of(servers: Servers, index: int, seed: int) -> tuple[tuple[int, ...], Generation]:
    """An action of one replica of ours, whichever an episode would be given."""
    replica, ids = servers.engine._replicas[index], prompt(seed)
    sampling = Sampling(max_tokens=12, seed=seed, stop_token_ids=(2,))
    asked = servers.engine._ask(replica, ids, sampling, f"direct-{seed}/0#0")
    return ids, await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asked, servers.engine._loop))


def test_lora_adapters_are_swapped(tiny: Path, tmp_path: Path):
    learner = with_lora(load_model(tiny), rank=4, seed=0)
    engine = open_tiny(tiny, replace(SETUP, lora_rank=4, log_folder=tmp_path))
    try:
        assert engine.takes_adapters
        results = [ask(engine, seed=0)]
        assert difference(learner, results) < 1e-3  # a new adapter changes nothing yet
        for version in (1, 2):
            noise = torch.Generator().manual_seed(version)
            with torch.no_grad():
                for name, parameter in learner.named_parameters():
                    if "lora_" in name:
                        parameter.add_(0.2 * torch.randn(parameter.shape, generator=noise))
            assert difference(learner, [ask(engine, seed=version)]) > 1e-2
            hand_over(learner, engine, version=version)
            fresh = ask(engine, seed=version)
            assert fresh[1].spans[0].version == version and difference(learner, [fresh]) < 1e-3
        with pytest.raises(EngineFault, match="lora_sync=merge"):
            engine.load_weights(full_weights(learner), version=3)
    finally:
        engine.close()
    assert {name.split(".")[-2] for name, _ in adapter_of(learner, gathered).weights} == {"lora_A", "lora_B"}


def ask(engine: VLLMServerEngine, seed: int) -> tuple[tuple[int, ...], Generation]:
    ids = prompt(seed)
    sampling = Sampling(max_tokens=12, seed=seed)
    return ids, asyncio.run(engine.generate(ids, sampling, request_id=f"lora-{seed}/0"))


def test_a_killed_run_leaves_no_server_behind(tiny: Path, tmp_path: Path):
    """SIGKILL of the run while its server starts: the engine's own process, a grandchild, must go too."""
    script = textwrap.dedent(
        f"""
        from pathlib import Path
        from rollwright.generation.server.make_servers import ServerSetup, open_servers
        setup = ServerSetup(kv_cache_gib=0.25, log_folder=Path({str(tmp_path)!r}))
        open_servers(Path({str(tiny)!r}), setup, dtype="float32", context_length={CONTEXT})
        """
    )
    run = subprocess.Popen([sys.executable, "-c", script])
    pid_file, log = tmp_path / "server_0.pid", tmp_path / "server_0.log"
    deadline = time.monotonic() + 600
    while not (log.exists() and "EngineCore" in log.read_text(errors="replace")):
        assert run.poll() is None and time.monotonic() < deadline, "the server did not get as far as its engine"
        time.sleep(0.1)
    group = int(pid_file.read_text())
    members = [p for p in Path("/proc").iterdir() if p.name.isdigit() and _group_of(p) == group]
    assert len(members) >= 2  # the server and its engine
    run.kill()
    run.wait()
    while has_living(group) or pid_file.exists():  # the guard takes its file away last
        assert time.monotonic() < deadline, f"group {group} or its file outlives its run"
        time.sleep(0.1)


def _group_of(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[2])
    except OSError:
        return -1


async def test_servers_that_run_already_are_used_and_left_running(servers: Servers):
    """The first of these tests: nothing has been updated yet, so a second engine may say version 0 too."""
    other = await asyncio.to_thread(open_tiny, servers.folder, replace(SETUP, urls=tuple(servers.engine.urls)))
    ids = prompt(1)
    generation = await other.generate(ids, Sampling(max_tokens=8, seed=1), request_id="u/0")
    assert difference(servers.learner, [(ids, generation)]) < 1e-3
    await asyncio.to_thread(other.close)
    with pytest.raises(EngineFault, match="closed"):
        await other.generate(ids, Sampling(), request_id="late/0")
    await servers.engine.generate(ids, Sampling(max_tokens=8, seed=1), request_id="u/0")


def test_another_model_or_nobody_at_the_url(servers: Servers, tmp_path: Path):
    url = servers.engine.urls[0]
    with pytest.raises(EngineFault, match=r"serves policy, rollwright-\w+, expected 'another'"):
        open_tiny(servers.folder, replace(SETUP, urls=(url,), served_name="another"))
    longer = make_tiny_model(tmp_path, texts=["move up"], hidden=64, layers=2, context_length=2 * CONTEXT)
    with pytest.raises(
        EngineFault, match=rf"takes {CONTEXT} tokens, but the run needs {2 * CONTEXT} \(engine.max_context\)"
    ):
        open_servers(longer, replace(SETUP, urls=(url,)), dtype="float32", context_length=2 * CONTEXT)
    with pytest.raises(EngineFault, match=r"did not come up within 1 s.*cannot be reached"):
        open_tiny(servers.folder, replace(SETUP, urls=("http://127.0.0.1:9",), start_s=1.0))


async def test_parity_before_and_after_updates_and_a_skipped_one_is_caught(servers: Servers):
    prompts = [prompt(seed) for seed in range(4)]
    sampling = Sampling(max_tokens=16, seed=0)

    async def gate() -> None:
        def learner(rows: Any) -> Any:
            return model_logprobs(servers.learner, rows)

        await parity_gate(servers.engine, learner, prompts, sampling=sampling, dtype="float32")

    await gate()
    for round_ in range(2):
        servers.move(round_)
        with pytest.raises(ParityError, match="weight update"):
            await gate()
        await asyncio.to_thread(servers.sync)
        await gate()  # four requests of different episodes: both replicas
    for index in (0, 1):
        assert difference(servers.learner, [await answer_of(servers, index, seed=index)]) < 1e-3


async def test_an_episode_stays_on_its_replica_and_finds_its_history_in_the_cache(servers: Servers):
    counts = [metric(url, "vllm:request_success_total") for url in servers.engine.urls]
    episodes = servers.homes(6)

    async def play(episode: str, seed: int) -> list[int]:
        rng = random.Random(seed)
        ids, cached = tuple(rng.randrange(3, 250) for _ in range(100)), []
        for turn in range(3):
            sampling = Sampling(max_tokens=16, seed=seed, stop_token_ids=(1,))
            generation = await servers.engine.generate(ids, sampling, request_id=f"{episode}/{turn}")
            cached.append(generation.cached_tokens)
            ids = (*ids, *generation.token_ids, 5, 6, 7)
        return cached

    cached = [await play(episode, seed) for seed, episode in enumerate(episodes, start=100)]
    assert [row[0] for row in cached] == [0] * 6
    assert all(row[1] >= 96 and row[2] >= 96 for row in cached)  # three full blocks of 32
    after = [metric(url, "vllm:request_success_total") for url in servers.engine.urls]
    assert [now - before for now, before in zip(after, counts, strict=True)] == [9.0, 9.0]


async def test_the_seed_decides_and_greedy_is_greedy(servers: Servers):
    ids = prompt(3)
    outputs = [
        (await servers.engine.generate(ids, Sampling(max_tokens=12, seed=seed), request_id=f"{n}/0")).token_ids
        for n, seed in enumerate((1, 1, 2))  # neighbours are on different replicas
    ]
    assert outputs[0] == outputs[1] != outputs[2]
    greedy = await servers.engine.generate(ids, Sampling(temperature=0.0, max_tokens=6), request_id="greedy/0")
    assert difference(servers.learner, [(ids, greedy)]) < 1e-3
    for position, token in enumerate(greedy.token_ids):
        logits = servers.learner(torch.tensor([ids + greedy.token_ids[:position]])).logits[0, -1]
        assert int(logits.argmax()) == token


async def test_what_a_server_cannot_do_is_refused_before_it_is_asked(servers: Servers):
    with pytest.raises(ContextOverflow, match=str(CONTEXT)):
        await servers.engine.generate((5,) * (CONTEXT - 3), Sampling(max_tokens=4), request_id="long/0")
    with pytest.raises(EngineFault, match="another tokenizer"):  # vLLM's engine process would die of it
        await servers.engine.generate((100_000,), Sampling(max_tokens=4), request_id="foreign/0")
    with pytest.raises(EngineFault, match=r"cannot be staged.*left out \d+ weights"):
        some = list(full_weights(servers.learner))[:3]
        await asyncio.to_thread(servers.engine.load_weights, iter(some), version=99)
    ids = prompt(4)
    generation = await servers.engine.generate(ids, Sampling(max_tokens=4, seed=0), request_id="after/0")
    assert generation.spans[0].version == servers.engine.version < 99  # the refused update has changed nothing


async def test_an_update_in_mid_action_is_exact_and_leaves_its_trace(servers: Servers):
    await asyncio.to_thread(servers.sync)
    for doubling in range(4):  # an action that ends before the update is no fault: the next ones last longer
        older = {name: value.clone() for name, value in servers.learner.state_dict().items()}
        running, ids = await long_requests(servers, count=2, length=LONG << doubling)
        servers.move(11 + doubling, size=0.1)
        await asyncio.to_thread(servers.sync)
        generations = await asyncio.gather(*running)
        if all(len(generation.spans) == 2 for generation in generations):
            break
    newer = {name: value.clone() for name, value in servers.learner.state_dict().items()}
    for generation in generations:
        version = servers.engine.version
        assert [span.version for span in generation.spans] == [version - 1, version]
        action, border = [Sampled.of_generation(ids, generation)], generation.spans[1].start
        got = torch.tensor(generation.logprobs)
        after = torch.tensor(model_logprobs(servers.learner, action)[0])
        servers.learner.load_state_dict(older)
        before = torch.tensor(model_logprobs(servers.learner, action)[0])
        servers.learner.load_state_dict(newer)
        assert (got[:border] - before[:border]).abs().max() < 1e-3
        assert (got[border:] - after[border:]).abs().max() < 1e-3


async def test_an_update_can_wait_for_the_actions_under_way(servers: Servers):
    engine, options = servers.engine, servers.engine.options
    running, _ = await long_requests(servers, count=2)
    engine.options = replace(options, update_mode="wait")
    await asyncio.to_thread(servers.sync)
    engine.options = options
    for generation in await asyncio.gather(*running):
        assert [span.version for span in generation.spans] == [engine.version - 1]


async def long_requests(
    servers: Servers, count: int, length: int = LONG
) -> tuple[list[asyncio.Task[Generation]], tuple[int, ...]]:
    """Actions of at least `length` tokens, one per replica in turn, each with some tokens already and none ended."""
    ids = prompt(8, longest=20)
    while length < CONTEXT - 100:
        before = [metric(url, "vllm:generation_tokens_total") for url in servers.engine.urls]
        sampling = Sampling(max_tokens=length, seed=1)
        running = [
            asyncio.create_task(servers.engine.generate(ids, sampling, request_id=f"{episode}/0"))
            for episode in servers.homes(count)
        ]

        def all_under_way(before: list[float] = before) -> bool:
            now = [metric(url, "vllm:generation_tokens_total") for url in servers.engine.urls]
            return all(new > old + 3 for new, old in zip(now, before, strict=True))

        await until(all_under_way, "both servers generate")
        if not any(task.done() for task in running):
            return running, ids
        await asyncio.gather(*running)
        length *= 2
    raise AssertionError("no action lasts long enough to be under way on both servers at once")


async def test_cancelling_takes_the_request_out_of_its_server(servers: Servers):
    def sampled() -> list[float]:
        return [metric(url, "vllm:generation_tokens_total") for url in servers.engine.urls]

    length, before = CONTEXT // 2, sampled()
    running, _ = await long_requests(servers, count=2, length=length)
    for task in running:
        task.cancel()
    results = await asyncio.gather(*running, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    await until(
        lambda: all(metric(url, "vllm:num_requests_running") == 0 for url in servers.engine.urls), "the batch is empty"
    )
    assert all(new - old < length for new, old in zip(sampled(), before, strict=True)), "they ended by themselves"


async def test_a_killed_server_loses_nothing_and_comes_back_with_the_current_weights(servers: Servers, tmp_path: Path):
    await asyncio.to_thread(servers.sync)
    FaultLog(tmp_path / "faults.jsonl").watch(servers.engine)
    victim = servers.engine._replicas[0]
    restarts, url, version = victim.restarts, victim.client.url, servers.engine.version
    running, ids = await long_requests(servers, count=6)
    assert victim.process and victim.process.pid
    group = victim.process.pid
    os.kill(group, signal.SIGKILL)
    generations = await asyncio.wait_for(asyncio.gather(*running), 600)
    assert all(len(generation.token_ids) >= LONG for generation in generations)
    assert {span.version for generation in generations for span in generation.spans} == {version}
    assert difference(servers.learner, [(ids, generation) for generation in generations]) < 1e-3
    await until(lambda: victim.ready, "the killed server is back")
    assert victim.restarts == restarts + 1 and victim.client.url == url and not has_living(group)
    asked = await answer_of(servers, 0, seed=50)
    assert asked[1].spans[0].version == version and difference(servers.learner, [asked]) < 1e-3
    # No episode noticed: the run's record tells of it all the same.
    (line,) = [json.loads(line) for line in (tmp_path / "faults.jsonl").read_text().splitlines()]
    assert line["kind"] == "engine" and f"{victim.name} was lost" in line["fault"]
    servers.engine.report = None


async def test_a_stopped_server_is_recognised_and_an_update_meanwhile_reaches_it(servers: Servers):
    victim = servers.engine._replicas[1]
    restarts = victim.restarts
    running, _ = await long_requests(servers, count=4)
    assert victim.process and victim.process.pid
    group = victim.process.pid
    os.killpg(group, signal.SIGSTOP)  # it holds its connections and says nothing
    generations = await asyncio.wait_for(asyncio.gather(*running), 600)
    assert all(len(generation.token_ids) >= LONG for generation in generations)
    await until(lambda: not victim.ready or victim.restarts > restarts, "the stopped server is given up")
    servers.move(41)
    await asyncio.to_thread(servers.sync)
    await until(lambda: victim.ready, "the stopped server is replaced")
    assert victim.restarts == restarts + 1 and not has_living(group)
    asked = await answer_of(servers, 1, seed=51)
    assert asked[1].spans[0].version == servers.engine.version and difference(servers.learner, [asked]) < 1e-3
