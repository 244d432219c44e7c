"""The real vLLM with a tiny model: one engine for all tests of this file, since building it takes half a minute."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rollwright.contracts.errors import ContextOverflow, EngineFault, ParityError
from rollwright.generation.engine import Generation, Sampling
from rollwright.generation.parity import Sampled, measure_parity, model_logprobs, parity_gate
from rollwright.generation.vllm_engine import VLLMEngine, complete, repack_tied_head
from rollwright.learner.weights import full_weights
from rollwright.models.loading import load_model
from rollwright.models.tiny_model import make_tiny_model

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

CONTEXT = 512


@dataclass
class Pair:
    """The engine and a learner that holds the weights it should have."""

    engine: VLLMEngine
    learner: Any

    def move(self, seed: int, size: float = 0.05) -> None:
        """A large policy update of the learner alone."""
        noise = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.learner.parameters():
                parameter.add_(size * torch.randn(parameter.shape, generator=noise))

    def sync(self) -> None:
        self.engine.load_weights(full_weights(self.learner), version=self.engine.version + 1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder: Path = make_tiny_model(
        tmp_path_factory.mktemp("tiny"), texts=["move up", "move down"], hidden=64, layers=2, context_length=CONTEXT
    )
    preload = os.environ.get("LD_PRELOAD")
    engine = VLLMEngine(folder, stop_token_ids=(2,), context_length=CONTEXT, max_batch=16, kv_cache_gib=0.25)
    assert os.environ.get("LD_PRELOAD") == preload  # or every browser started later would load vLLM's libraries
    yield Pair(engine, load_model(folder))
    engine.close()
    assert not engine._thread.is_alive()


def prompt(seed: int, longest: int = 90) -> tuple[int, ...]:
    rng = random.Random(seed)
    return tuple(rng.randrange(3, 250) for _ in range(rng.randrange(3, longest)))


def difference(pair: Pair, results: list[tuple[tuple[int, ...], Generation]], temperature: float = 1.0) -> float:
    actions = [Sampled.of_generation(ids, generation) for ids, generation in results]
    return measure_parity(actions, model_logprobs(pair.learner, actions, temperature=temperature)).max_difference


async def under_way(pair: Pair, request_id: str, tokens: int) -> None:
    """Wait until a request has that many tokens."""
    held = pair.engine._unfinished
    while not any(r.request_id == request_id and len(r.token_ids) >= tokens for r in [*held.values()]):
        await asyncio.sleep(0.001)


async def two_turns(pair: Pair, seed: int, temperature: float = 1.0) -> list[tuple[tuple[int, ...], Generation]]:
    """An action, an observation of three tokens, another action."""
    sampling = Sampling(max_tokens=16, seed=seed, temperature=temperature)
    first = prompt(seed)
    one = await pair.engine.generate(first, sampling, request_id=f"{seed}/0")
    second = (*first, *one.token_ids, 5, 6, 7)
    return [(first, one), (second, await pair.engine.generate(second, sampling, request_id=f"{seed}/1"))]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
async def test_48_requests_with_follow_ups_agree_with_the_learner(pair: Pair, temperature: float):
    pair.sync()
    turns = await asyncio.gather(*(two_turns(pair, seed, temperature) for seed in range(48)))
    results = [result for both in turns for result in both]
    assert difference(pair, results, temperature) < 1e-3
    assert sum(both[1][1].cached_tokens for both in turns) > 0  # a follow-up finds its prefix in the cache
    for _, generation in results:
        stopped = generation.token_ids[-1] == 2
        assert generation.finish_reason == ("stop" if stopped else "length")
        assert stopped or len(generation.token_ids) == 16


async def test_seeded_prompts_beyond_one_steps_token_budget(pair: Pair):
    """16 prompts of 300 tokens are more than the 4096 of one step; cutting one in two would kill a CPU engine."""
    pair.sync()
    rng = random.Random(0)
    prompts = [tuple(rng.randrange(3, 250) for _ in range(300)) for _ in range(24)]
    calls = [
        pair.engine.generate(ids, Sampling(max_tokens=4, seed=index), request_id=f"b{index}")
        for index, ids in enumerate(prompts)
    ]
    assert difference(pair, list(zip(prompts, await asyncio.gather(*calls), strict=True))) < 1e-3


async def test_weights_are_synced_twice_in_a_row_and_a_skipped_sync_is_caught(pair: Pair):
    prompts = [prompt(seed) for seed in range(4)]
    sampling = Sampling(max_tokens=16, seed=0)

    async def gate() -> None:
        await parity_gate(
            pair.engine, lambda rows: model_logprobs(pair.learner, rows), prompts, sampling=sampling, dtype="float32"
        )

    pair.sync()
    await gate()
    for round_ in range(2):
        pair.move(round_)
        with pytest.raises(ParityError, match="weight update"):
            await gate()
        pair.sync()
        await gate()


async def test_without_the_repair_of_the_tied_head_the_gate_fails(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    if torch.cuda.is_available():
        pytest.skip("on CUDA the head shares the embedding's memory")
    monkeypatch.setattr("rollwright.generation.vllm_engine.repack_tied_head", lambda model: None)
    pair.move(7)
    pair.sync()
    results = await two_turns(pair, 0)
    assert difference(pair, results) > 1e-2
    pair.engine._backend.engine.apply_model(repack_tied_head)  # type: ignore[attr-defined]
    assert difference(pair, await two_turns(pair, 1)) < 1e-3


async def test_the_prefix_cache_lives_within_a_version_and_not_beyond(pair: Pair):
    pair.sync()
    ids = (prompt(5) * 20)[:100]
    generations = []
    for number in range(3):
        if number == 2:
            pair.sync()
        generations.append(await pair.engine.generate(ids, Sampling(max_tokens=4, seed=3), request_id=f"p{number}"))
    assert [g.cached_tokens for g in generations] == [0, 96, 0]  # blocks of 32
    assert generations[0].token_ids == generations[1].token_ids == generations[2].token_ids  # the seed decides
    assert generations[2].spans[0].version == generations[0].spans[0].version + 1


async def test_an_update_in_mid_action_is_exact_and_leaves_its_trace(pair: Pair):
    pair.sync()
    older = [value.clone() for value in pair.learner.state_dict().values()]
    ids = prompt(8, longest=20)
    sampling = Sampling(max_tokens=400, seed=1, stop_token_ids=(249,))
    running = asyncio.create_task(pair.engine.generate(ids, sampling, request_id="long"))
    await under_way(pair, "long", 5)
    pair.move(11, size=0.1)
    await asyncio.to_thread(pair.sync)
    generation = await running
    assert [span.version for span in generation.spans] == [pair.engine.version - 1, pair.engine.version]
    action, border = [Sampled.of_generation(ids, generation)], generation.spans[1].start
    after = torch.tensor(model_logprobs(pair.learner, action)[0])
    newer = {name: value.clone() for name, value in pair.learner.state_dict().items()}
    pair.learner.load_state_dict(dict(zip(newer, older, strict=True)))
    before = torch.tensor(model_logprobs(pair.learner, action)[0])
    pair.learner.load_state_dict(newer)
    got = torch.tensor(generation.logprobs)
    assert (got[:border] - before[:border]).abs().max() < 1e-3
    assert (got[border:] - after[border:]).abs().max() < 1e-3


async def test_greedy_reports_the_unscaled_softmax_and_seeds_decide(pair: Pair):
    pair.sync()
    ids = prompt(3)
    greedy = await pair.engine.generate(ids, Sampling(temperature=0.0, max_tokens=8), request_id="greedy")
    assert difference(pair, [(ids, greedy)]) < 1e-3
    expected = [
        int(pair.learner(torch.tensor([ids + greedy.token_ids[:n]])).logits[0, -1].argmax())
        for n in range(len(greedy.token_ids))
    ]
    assert list(greedy.token_ids) == expected
    outputs = [
        (await pair.engine.generate(ids, Sampling(max_tokens=12, seed=seed), request_id="s")).token_ids
        for seed in (1, 1, 2)
    ]
    assert outputs[0] == outputs[1] != outputs[2]


async def test_cancelling_takes_the_request_out_of_the_batch(pair: Pair):
    endless = Sampling(max_tokens=CONTEXT - 10, stop_token_ids=(249,))
    doomed = asyncio.create_task(pair.engine.generate((5, 6), endless, request_id="doomed"))
    await under_way(pair, "doomed", 1)
    doomed.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doomed
    await pair.engine.generate((5, 6), Sampling(max_tokens=2), request_id="next")
    with pair.engine._exclusive():  # between two steps
        assert not pair.engine._unfinished
        assert not pair.engine._backend.engine.has_unfinished_requests()  # type: ignore[attr-defined]


async def test_a_request_longer_than_the_context_or_with_foreign_ids(pair: Pair):
    with pytest.raises(ContextOverflow, match=str(CONTEXT)):
        await pair.engine.generate((5,) * (CONTEXT - 3), Sampling(max_tokens=4), request_id="long")
    with pytest.raises(EngineFault, match="another tokenizer"):
        await pair.engine.generate((100_000,), Sampling(max_tokens=4), request_id="foreign")
    full = await pair.engine.generate((5,) * (CONTEXT - 3), Sampling(max_tokens=3), request_id="just fits")
    assert len(full.token_ids) <= 3


def test_an_incomplete_or_foreign_update_is_noticed():
    weights = {"a": torch.zeros(1), "b": torch.zeros(1)}
    assert [name for name, _ in complete(weights.items(), frozenset({"a", "b", "lm_head.weight"}))] == ["a", "b"]
    with pytest.raises(ValueError, match=r"left out 1 .*'c'"):
        list(complete(weights.items(), frozenset({"a", "b", "c"})))
    with pytest.raises(ValueError, match="'b' is not in"):
        list(complete(weights.items(), frozenset({"a"})))


async def test_equal_prompts_at_once_are_computed_once(pair: Pair) -> None:
    long_prompt = (*range(3, 3 + 3 * 32), 7, 8)
    sampling = Sampling(max_tokens=4, stop_token_ids=(1,))
    asked = [pair.engine.generate(long_prompt, replace(sampling, seed=i), request_id=f"twin/{i}") for i in range(8)]
    answers = await asyncio.gather(*asked)
    assert sorted(answer.cached_tokens for answer in answers)[1:] == [96] * 7, (
        "all but the first find three full blocks"
    )


async def test_a_failure_inside_the_engine_fails_what_waits_and_never_hangs(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
):
    """Stands last: the engine is given back mended, but the failure is the end of its life for users."""

    def fails() -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(pair.engine._backend.engine, "step", fails)  # type: ignore[attr-defined]
    requests = [pair.engine.generate((5, 6), Sampling(max_tokens=4), request_id=str(i)) for i in range(3)]
    results = await asyncio.wait_for(asyncio.gather(*requests, return_exceptions=True), 60)
    assert all(isinstance(result, EngineFault) and "out of memory" in str(result) for result in results)
    with pytest.raises(EngineFault, match="make a new one"):
        await pair.engine.generate((5,), Sampling(), request_id="later")
