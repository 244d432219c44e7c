"""The transformers and scripted engines, and what every threaded engine promises: no hang, no mix-up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rollwright.config import launch_env
from rollwright.contracts.errors import ContextOverflow, EngineFault, MissingDependency, ParityError, UnknownComponent
from rollwright.contracts.record import Span
from rollwright.generation import select_engine as select
from rollwright.generation.engine import Generation, Sampling
from rollwright.generation.kv_cache import KVRows
from rollwright.generation.parity import Sampled, measure_parity, model_logprobs, parity_gate
from rollwright.generation.scripted_engine import ScriptedEngine
from rollwright.generation.threaded_engine import version_spans
from rollwright.generation.token_sampler import draw, restrict
from rollwright.generation.transformers_engine import TransformersEngine
from rollwright.learner.weights import full_weights
from rollwright.models.codec import ChatCodec
from rollwright.models.loading import load_model, load_policy
from rollwright.models.tiny_model import make_tiny_model, tiny_llama, tiny_tokenizer

V = 97
STOP = (2,)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_llama(V, hidden=64, layers=2, seed=5)


@pytest.fixture
def engine(model: Any) -> Iterator[TransformersEngine]:
    made = TransformersEngine(model, stop_token_ids=STOP, max_batch=12, context_length=256)
    yield made
    made.close()


def prompt(seed: int, longest: int = 60) -> tuple[int, ...]:
    rng = random.Random(seed)
    return tuple(rng.randrange(3, V) for _ in range(rng.randrange(1, longest)))


async def sample(engine: Any, seeds: range, **settings: Any) -> list[tuple[tuple[int, ...], Generation]]:
    async def one(seed: int) -> tuple[tuple[int, ...], Generation]:
        await asyncio.sleep(0.003 * (seed % 5))
        ids = prompt(seed)
        return ids, await engine.generate(ids, Sampling(seed=seed, **settings), request_id=f"r{seed}")

    return await asyncio.gather(*map(one, seeds))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
async def test_log_probs_equal_the_plain_computation(engine: TransformersEngine, model: Any, temperature: float):
    results = await sample(engine, range(40), max_tokens=20, temperature=temperature)
    actions = [Sampled.of_generation(ids, generation) for ids, generation in results]
    parity = measure_parity(actions, model_logprobs(model, actions, temperature=temperature))
    assert parity.max_difference < 1e-5
    for _, generation in results:
        stopped = generation.token_ids[-1] in STOP
        assert generation.finish_reason == ("stop" if stopped else "length")
        assert stopped or len(generation.token_ids) == 20
        assert not set(generation.token_ids[:-1]) & set(STOP)
        assert generation.spans == (Span(start=0, end=len(generation.token_ids), version=0),)


async def test_new_requests_take_the_place_of_finished_ones(
    engine: TransformersEngine, model: Any, monkeypatch: pytest.MonkeyPatch
):
    """Short ones keep coming beside a long one, in slots that others have left, and nobody's keys are mixed up."""
    placed: list[int] = []
    replace = KVRows.replace

    def counted(self: KVRows, rows: Any, other: KVRows, taken: Any) -> bool:
        done = replace(self, rows, other, taken)
        placed.extend(rows if done else [])
        return done

    monkeypatch.setattr(KVRows, "replace", counted)

    async def one(number: int, tokens: int) -> tuple[tuple[int, ...], Generation]:
        ids = (*prompt(number, 20), *range(3, 43))
        sampling = Sampling(seed=number, max_tokens=tokens, stop_token_ids=(V - 1,))
        return ids, await engine.generate(ids, sampling, request_id=f"r{number}")

    async def several(first: int) -> list[tuple[tuple[int, ...], Generation]]:
        return [await one(first + number, random.Random(first + number).randrange(2, 9)) for number in range(12)]

    long, *short = await asyncio.gather(one(0, 50), *(several(100 * chain) for chain in range(1, 9)))
    actions = [Sampled.of_generation(ids, generation) for ids, generation in (long, *(e for es in short for e in es))]
    assert len(set(placed)) > 1, "the case was not met"
    assert measure_parity(actions, model_logprobs(model, actions)).max_difference < 1e-5


async def test_a_seeded_request_does_not_depend_on_its_company(engine: TransformersEngine):
    crowd = dict(await sample(engine, range(30), max_tokens=12))
    for seed in (3, 11, 29):
        [(ids, alone)] = await sample(engine, range(seed, seed + 1), max_tokens=12)
        assert alone.token_ids == crowd[ids].token_ids


async def test_greedy_is_the_most_likely_token_at_every_step(engine: TransformersEngine, model: Any):
    ids = prompt(1)
    got = await engine.generate(ids, Sampling(temperature=0.0, max_tokens=8), request_id="g")
    expected = list(ids)
    for _ in got.token_ids:
        expected.append(int(model(torch.tensor([expected])).logits[0, -1].argmax()))
    assert list(ids + got.token_ids) == expected


async def test_a_group_shares_the_prefill_of_its_prompt(engine: TransformersEngine):
    ids = prompt(2)
    group = await asyncio.gather(
        *(engine.generate(ids, Sampling(seed=i, max_tokens=4), request_id=f"{i}") for i in range(8))
    )
    assert sorted(g.cached_tokens for g in group) == [0] + [len(ids)] * 7
    assert len({g.token_ids for g in group}) > 1


async def test_unseeded_requests_are_fixed_by_the_engines_seed_and_their_name(model: Any):
    async def run(seed: int, name: str) -> tuple[int, ...]:
        engine = TransformersEngine(model, seed=seed)
        try:
            return (await engine.generate((5, 6), Sampling(max_tokens=16), request_id=name)).token_ids
        finally:
            engine.close()

    assert await run(0, "a") == await run(0, "a")
    assert len({await run(0, "a"), await run(1, "a"), await run(0, "b")}) == 3


async def test_a_weight_update_in_mid_action_is_exact_and_leaves_its_trace():
    model, newer = tiny_llama(V, hidden=64, seed=5), tiny_llama(V, hidden=64, seed=6)
    older = tiny_llama(V, hidden=64, seed=5)
    engine = TransformersEngine(model, context_length=512)
    running = asyncio.create_task(engine.generate((5, 6, 7), Sampling(max_tokens=400, seed=0), request_id="long"))
    await under_way(engine, "long", 10)
    await asyncio.to_thread(engine.load_weights, full_weights(newer), version=1)
    generation = await running
    engine.close()
    first, second = generation.spans
    assert (first.version, second.version) == (0, 1)
    assert first.end == second.start >= 10
    assert second.end == 400
    action = [Sampled.of_generation((5, 6, 7), generation)]
    before, after = model_logprobs(older, action)[0], model_logprobs(newer, action)[0]
    expected = torch.tensor(before[: first.end] + after[first.end :])
    assert (expected - torch.tensor(generation.logprobs)).abs().max() < 1e-5


async def test_a_skipped_update_is_caught_by_the_gate(model: Any):
    engine = TransformersEngine(load_copy(model))
    learner = tiny_llama(V, hidden=64, seed=77)
    gate = {"sampling": Sampling(max_tokens=8, seed=1), "dtype": "float32"}
    with pytest.raises(ParityError, match="skipped"):
        await parity_gate(engine, lambda rows: model_logprobs(learner, rows), [(5, 6)], **gate)
    engine.load_weights(full_weights(learner), version=1)
    await parity_gate(engine, lambda rows: model_logprobs(learner, rows), [(5, 6)], **gate)
    engine.close()


async def under_way(engine: TransformersEngine, request_id: str, tokens: int) -> None:
    """Wait until a request has that many tokens."""
    while not any(r.request_id == request_id and len(r.token_ids) >= tokens for r in [*engine._unfinished.values()]):
        await asyncio.sleep(0.001)


def load_copy(model: Any) -> Any:
    copy = tiny_llama(V, hidden=64, layers=2)
    copy.load_state_dict(model.state_dict())
    return copy


async def test_sharing_the_learners_model_needs_no_copy(model: Any):
    shared = load_copy(model)
    engine = TransformersEngine(shared, owns_weights=False)
    shared.train()  # the engine must not sample with dropout
    with torch.no_grad():
        shared.get_parameter("model.norm.weight").mul_(1.5)
    engine.load_weights(iter(()), version=3)
    generation = await engine.generate((5, 6), Sampling(max_tokens=4), request_id="a")
    assert not shared.training
    assert generation.spans[0].version == 3
    actions = [Sampled.of_generation((5, 6), generation)]
    assert measure_parity(actions, model_logprobs(shared, actions)).max_difference < 1e-5
    running = asyncio.create_task(engine.generate((5,), Sampling(max_tokens=500), request_id="b"))
    await under_way(engine, "b", 1)
    with pytest.raises(EngineFault, match="owns_weights"):
        engine.load_weights(iter(()), version=4)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    engine.load_weights(iter(()), version=4)  # a cancelled request is no obstacle, heard of or not
    engine.close()


@pytest.mark.parametrize("wrong", ["name", "shape", "missing"])
async def test_an_update_that_does_not_fit_breaks_the_engine_loudly(model: Any, wrong: str):
    engine = TransformersEngine(load_copy(model))
    weights = dict(full_weights(model))
    last = list(weights)[-1]
    value = weights.pop(last)
    if wrong == "name":
        weights["nonsense"] = value
    if wrong == "shape":
        weights[last] = value[:1]
    with pytest.raises(EngineFault, match="nonsense" if wrong == "name" else last):
        engine.load_weights(weights.items(), version=1)
    with pytest.raises(EngineFault):  # half-loaded weights must not be sampled from
        await engine.generate((5,), Sampling(max_tokens=1), request_id="a")
    engine.close()


async def test_cancelled_requests_leave_the_batch_and_the_others_finish(engine: TransformersEngine):
    for attempt in range(20):  # a machine that sleeps for a moment may let the first one come to its end
        doomed = asyncio.create_task(
            engine.generate((5,), Sampling(max_tokens=250, stop_token_ids=(V,)), request_id=f"x{attempt}")
        )
        other = asyncio.create_task(
            engine.generate((6,), Sampling(max_tokens=30, stop_token_ids=(V,)), request_id=f"y{attempt}")
        )
        await asyncio.sleep(0.02)
        if doomed.cancel():
            break
    with pytest.raises(asyncio.CancelledError):
        await doomed
    assert len((await other).token_ids) == 30
    await engine.generate((7,), Sampling(max_tokens=1), request_id="z")
    with engine._exclusive():  # between two steps
        assert not engine._unfinished


async def test_too_long_empty_and_foreign_prompts(engine: TransformersEngine):
    with pytest.raises(ContextOverflow, match="256"):
        await engine.generate((5,) * 250, Sampling(max_tokens=7), request_id="long")
    with pytest.raises(EngineFault, match="empty"):
        await engine.generate((), Sampling(), request_id="empty")
    with pytest.raises(EngineFault, match="another tokenizer"):
        await engine.generate((V,), Sampling(), request_id="foreign")
    assert (await engine.generate((5,), Sampling(max_tokens=1), request_id="fine")).token_ids


async def test_a_failing_model_fails_every_waiting_request_and_never_hangs(model: Any):
    broken = load_copy(model)
    engine = TransformersEngine(broken)
    with torch.no_grad():
        broken.get_parameter("model.norm.weight").fill_(float("nan"))
    requests = [engine.generate((5, 6), Sampling(max_tokens=4), request_id=str(i)) for i in range(5)]
    results = await asyncio.wait_for(asyncio.gather(*requests, return_exceptions=True), 60)
    assert all(isinstance(result, EngineFault) and "not finite" in str(result) for result in results)
    with pytest.raises(EngineFault):
        await engine.generate((5,), Sampling(), request_id="later")
    engine.close()


async def test_close_fails_what_waits_ends_the_thread_and_can_be_repeated(model: Any):
    engine = TransformersEngine(model)
    waiting = asyncio.create_task(engine.generate((5,), Sampling(max_tokens=900, stop_token_ids=(V,)), request_id="w"))
    await asyncio.sleep(0.02)
    await asyncio.to_thread(engine.close)
    engine.close()
    with pytest.raises(EngineFault, match="closed"):
        await asyncio.wait_for(waiting, 60)
    assert not engine._thread.is_alive()
    with pytest.raises(EngineFault, match="closed"):
        await engine.generate((5,), Sampling(), request_id="late")


def test_draw_follows_the_distribution_and_reports_it():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0]).repeat(4000, 1)
    uniforms = [(i + 0.5) / 4000 for i in range(4000)]  # an even grid: frequencies must equal probabilities
    ids, logprobs = draw(logits, [Sampling(temperature=0.5)] * 4000, uniforms)
    expected = (logits[0] / 0.5).softmax(-1)
    assert torch.allclose(ids.bincount(minlength=4) / 4000, expected, atol=5e-4)
    assert torch.allclose(logprobs.exp(), expected[ids], atol=1e-6)


def test_restrict_by_hand():
    # probabilities 0.5, 0.3, 0.15, 0.05
    logits = torch.tensor([0.15, 0.5, 0.05, 0.3]).log()
    assert restrict(logits, top_k=2, top_p=1.0).isfinite().tolist() == [False, True, False, True]
    assert restrict(logits, top_k=0, top_p=0.81).isfinite().tolist() == [True, True, False, True]
    assert restrict(logits, top_k=0, top_p=0.01).isfinite().tolist() == [False, True, False, False]
    _, logprobs = draw(logits[None], [Sampling(top_k=2)], [0.0])
    assert logprobs.exp().item() == pytest.approx(0.5 / 0.8)  # what was sampled from, not the full softmax


def test_kv_rows_keep_their_order_and_their_padding_on_the_left():
    rows = KVRows.empty(2, 1)
    mask, positions = rows.extend([3, 1])
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert positions.tolist() == [[0, 1, 2], [0, 0, 0]]
    values = torch.arange(6.0).view(2, 1, 3, 1)
    rows.layers[0].update(values, -values)
    short = rows.select([1])
    assert (short.width, short.layers[0].keys.flatten().tolist()) == (1, [5.0])
    both = short.join(rows)
    assert both.lengths == [1, 3, 1]
    assert both.layers[0].keys[:, 0, :, 0].tolist() == [[0, 0, 5], [0, 1, 2], [3, 4, 5]]
    assert both.layers[0].values[1, 0, :, 0].tolist() == [0, -1, -2]
    mask, positions = both.extend([1, 1, 1])
    assert mask.tolist() == [[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1]]
    assert positions.flatten().tolist() == [1, 3, 1]


def test_kv_rows_take_the_place_of_others():
    rows, new = KVRows.empty(3, 1), KVRows.empty(2, 1)
    rows.extend([4, 4, 4])
    rows.layers[0].update(torch.arange(12.0).view(3, 1, 4, 1), torch.zeros(3, 1, 4, 1))
    new.extend([2, 1])
    new.layers[0].update(torch.tensor([[20.0, 21], [0, 30]]).view(2, 1, 2, 1), torch.ones(2, 1, 2, 1))
    assert rows.replace([2, 0], new, [0, 1])
    assert rows.lengths == [1, 4, 2]
    keys, values = (getattr(rows.layers[0], side)[:, 0, :, 0].tolist() for side in ("keys", "values"))
    assert [keys[0][3:], keys[1], keys[2][2:]] == [[30], [4, 5, 6, 7], [20, 21]]
    assert [values[0][3:], values[1], values[2][2:]] == [[1], [0] * 4, [1, 1]]
    assert not KVRows.empty(1, 1).replace([0], new, [0]), "longer than the slots"
    assert not rows.replace([1], new, [1]), "nobody would need half of the slots"
    assert rows.lengths == [1, 4, 2]


def test_version_spans_by_hand():
    assert version_spans([]) == ()
    assert version_spans([1, 1, 2]) == (Span(start=0, end=2, version=1), Span(start=2, end=3, version=2))


async def test_the_scripted_engine_says_its_lines():
    tokenizer = tiny_tokenizer(["move up down"])
    codec = ChatCodec(tokenizer)
    engine = ScriptedEngine(["move up", "move down"], codec.encode_action)
    texts = []
    for index in range(3):
        generation = await engine.generate((1,), Sampling(), request_id=str(index))
        texts.append(codec.decode_action(generation.token_ids))
        assert generation.spans[0].producer == "dataset"
        assert set(generation.logprobs) == {0.0}
    assert texts == ["move up", "move down", "move up"]
    cut = await engine.generate((1,), Sampling(max_tokens=1), request_id="cut")
    assert (cut.finish_reason, len(cut.token_ids)) == ("length", 1)

    async def echo(prompt_ids: tuple[int, ...], request_id: str) -> str:
        return f"{len(prompt_ids)} {request_id}"

    engine = ScriptedEngine(echo, codec.encode_action, producer="forced", context_length=50)
    generation = await engine.generate((1, 2), Sampling(), request_id="a/0")
    assert codec.decode_action(generation.token_ids) == "2 a/0"
    with pytest.raises(ContextOverflow):
        await engine.generate((1,) * 40, Sampling(max_tokens=20), request_id="long")
    engine.close()
    with pytest.raises(EngineFault, match="closed"):
        await engine.generate((1,), Sampling(), request_id="late")


def test_auto_takes_vllm_only_where_it_is_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(select, "vllm_importable", lambda: True)
    assert select.choose_engine("auto") == "vllm"
    assert select.choose_engine("transformers") == "transformers"
    monkeypatch.setattr(select, "vllm_importable", lambda: False)
    assert select.choose_engine("auto") == "transformers"
    with pytest.raises(UnknownComponent, match="transformers"):
        select.choose_engine("hf")


async def test_make_engine_without_vllm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from rollwright.generation import vllm_engine

    folder = make_tiny_model(tmp_path, texts=["move up"], hidden=32, layers=1)
    for module in (select, vllm_engine):
        monkeypatch.setattr(module, "vllm_importable", lambda: False)
    with pytest.raises(MissingDependency, match=r"rollwright\[cpu\]"):
        select.make_engine("vllm", model_path=folder)
    learner, tokenizer = load_policy(folder)
    for shared in (None, learner):
        engine = select.make_engine(
            "auto", model_path=folder, stop_token_ids=(tokenizer.eos_token_id,), learner_model=shared
        )
        actions = [Sampled.of_generation((9, 8), await engine.generate((9, 8), Sampling(max_tokens=5), request_id="a"))]
        assert measure_parity(actions, model_logprobs(load_model(folder), actions)).max_difference < 1e-5
        engine.close()


def test_the_environment_is_prepared_without_overriding_the_user(monkeypatch: pytest.MonkeyPatch):
    for name in ("OMP_NUM_THREADS", "VLLM_LOGGING_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    others = launch_env.variables(busy_processes=1, cores=4, gpu=False)
    for name in {**others, **launch_env.noise_variables(verbose=False)}:
        monkeypatch.setenv(name, launch_env.os.environ.get(name, "mine"))
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    new = launch_env.prepare_environment(busy_processes=2)
    assert new == {"OMP_NUM_THREADS": str(max(1, launch_env.usable_cores() // 2))}
    assert launch_env.os.environ["VLLM_LOGGING_LEVEL"] == "DEBUG"


def test_cores_are_shared_by_the_busy_processes():
    values = launch_env.variables(busy_processes=3, cores=8, gpu=False)
    assert (values["OMP_NUM_THREADS"], values["OMP_WAIT_POLICY"], values["DS_ACCELERATOR"]) == ("2", "PASSIVE", "cpu")
    assert launch_env.variables(busy_processes=9, cores=2, gpu=True)["OMP_NUM_THREADS"] == "1"
    assert "DS_ACCELERATOR" not in launch_env.variables(busy_processes=1, cores=2, gpu=True)
