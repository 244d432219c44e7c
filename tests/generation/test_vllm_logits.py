"""Acting with logits + beta Q inside the real vLLM: the same tokens and log-probs as the transformers engine gives."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from rollwright.batching.packing import Segment
from rollwright.contracts.errors import ConfigError
from rollwright.critics.critic_learner import CriticLearner
from rollwright.critics.critic_targets import Columns, Readings
from rollwright.critics.token_q import decode_with
from rollwright.critics.vocabulary_critic import VocabularyQSettings, vocabulary_q
from rollwright.generation import vllm_logits
from rollwright.generation.engine import Generation, Sampling
from rollwright.generation.parity import Sampled, measure_parity, model_logprobs
from rollwright.generation.transformers_engine import TransformersEngine
from rollwright.generation.vllm_engine import VLLMEngine
from rollwright.generation.vllm_logits import LogitsHook, can_attach, processor_class
from rollwright.learner.optimisation import OptimiserSettings
from rollwright.learner.weights import full_weights
from rollwright.models.loading import load_model
from rollwright.models.tiny_model import make_tiny_model

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

GREEDY = [Sampling(temperature=0.0, max_tokens=12, stop_token_ids=(2,))] * 12
# Unlike lengths: requests leave the batch at different moments, and others take their places.
DRAWN = [Sampling(temperature=(1.0, 0.7)[i % 2], max_tokens=3 + i, stop_token_ids=(2,), seed=i) for i in range(12)]


@dataclass
class Setting:
    """One policy in two engines; at most 4 requests run together, so that others wait for their places."""

    folder: Path
    vllm: VLLMEngine
    plain: TransformersEngine

    def critic(self, seed: int) -> CriticLearner:
        """Two random heads, whose Q differs by about one between tokens."""
        torch.manual_seed(seed)
        module = vocabulary_q(load_model(self.folder), VocabularyQSettings(width=16))
        for head in module.heads.q:
            torch.nn.init.normal_(head[-1].weight, std=0.5)  # type: ignore[index]
        return CriticLearner(Accelerator(), module, OptimiserSettings(learning_rate=0.05), polyak=0.5)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny_model(folder, texts=["move up", "move down"], hidden=64, layers=2, context_length=256)
    vllm = VLLMEngine(folder, stop_token_ids=(2,), context_length=256, max_batch=4, kv_cache_gib=0.25)
    plain = TransformersEngine(load_model(folder), stop_token_ids=(2,), max_batch=4)
    yield Setting(folder, vllm, plain)
    plain.close()
    vllm.close()


def prompts() -> list[tuple[int, ...]]:
    rng = random.Random(0)
    return [tuple(rng.randrange(3, 250) for _ in range(rng.randrange(3, 80))) for _ in range(12)]


async def answers(engine: VLLMEngine | TransformersEngine, samplings: Sequence[Sampling]) -> list[Generation]:
    wanted = zip(prompts(), samplings, strict=True)
    return list(await asyncio.gather(*(engine.generate(p, s, request_id=str(i)) for i, (p, s) in enumerate(wanted))))


def tokens(generations: Sequence[Generation]) -> list[tuple[int, ...]]:
    return [generation.token_ids for generation in generations]


def farthest(found: Sequence[Generation], expected: Sequence[Generation]) -> float:
    pairs = zip(found, expected, strict=True)
    return max(abs(a - b) for f, e in pairs for a, b in zip(f.logprobs, e.logprobs, strict=True))


async def agreed(setting: Setting) -> list[Generation]:
    """What vLLM answers greedily, after it was found to be what transformers answers."""
    found, expected = await answers(setting.vllm, GREEDY), await answers(setting.plain, GREEDY)
    assert tokens(found) == tokens(expected)
    assert farthest(found, expected) < 1e-3
    return found


def act_with(setting: Setting, critic: torch.nn.Module, beta: float) -> None:
    for engine in (setting.vllm, setting.plain):
        decode_with(engine, critic, beta=beta)


async def test_greedy_tokens_and_logprobs_are_those_of_transformers(setting: Setting) -> None:
    unperturbed = await agreed(setting)
    critic = setting.critic(1)
    act_with(setting, critic.slow, 4.0)
    assert tokens(await agreed(setting)) != tokens(unperturbed)
    act_with(setting, critic.slow, 0.0)
    same = await answers(setting.vllm, GREEDY)
    assert tokens(same) == tokens(unperturbed) and farthest(same, unperturbed) < 1e-5
    setting.vllm.perturb(None)
    assert tokens(await answers(setting.vllm, GREEDY)) == tokens(unperturbed)


async def test_sampled_tokens_carry_the_logprobs_of_the_perturbed_distribution(setting: Setting) -> None:
    critic = setting.critic(2)
    decode_with(setting.vllm, critic.slow, beta=2.0)
    found, model = await answers(setting.vllm, DRAWN), load_model(setting.folder)
    assert all(g.finish_reason == "stop" or len(g.token_ids) == s.max_tokens for g, s in zip(found, DRAWN, strict=True))
    for prompt, sampling, generation in zip(prompts(), DRAWN, found, strict=True):
        expected = []
        for n, token in enumerate(generation.token_ids):
            ids = prompt + generation.token_ids[:n]
            with torch.inference_mode():
                logits = model(torch.tensor([ids])).logits[0, -1] + 2.0 * critic.slow.next_token_q([ids])[0]  # type: ignore[operator]
            expected.append(float((logits / sampling.temperature).log_softmax(-1)[token]))
        assert generation.logprobs == pytest.approx(expected, abs=1e-3)
    # The policy alone would have reported others: the comparison is not an empty one.
    alone = [Sampled.of_generation(prompt, g) for prompt, g in zip(prompts(), found, strict=True)]
    assert measure_parity(alone, model_logprobs(model, alone)).mean_difference > 0.1


async def test_each_critic_update_and_each_weight_sync_is_seen_at_the_next_token(setting: Setting) -> None:
    critic = setting.critic(3)
    act_with(setting, critic.slow, 4.0)
    before = await agreed(setting)
    chain = Segment(
        prompt_ids=(5, 6),
        action_ids=(7, 8, 9),
        sequence=0,
    )

    def high(values: Readings, columns: Columns) -> torch.Tensor:
        return (values["q"] - 5.0).square().sum(dim=0)

    for _ in range(3):
        critic.update_tokens([chain], {}, high)  # the slow copy follows, in place
    after = await agreed(setting)
    assert tokens(after) != tokens(before)
    policy = load_model(setting.folder)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.2)
    for engine in (setting.vllm, setting.plain):
        engine.load_weights(full_weights(policy), version=engine.version + 1)
    assert tokens(await agreed(setting)) != tokens(after)
    for engine in (setting.vllm, setting.plain):
        engine.load_weights(full_weights(load_model(setting.folder)), version=engine.version + 1)


async def test_a_request_that_is_computed_anew_keeps_its_tokens(setting: Setting) -> None:
    """A weight update in mid-action takes the request out of vLLM's batch and puts it back."""
    critic = setting.critic(4)
    decode_with(setting.vllm, critic.slow, beta=4.0)
    sampling, prompt = Sampling(temperature=0.0, max_tokens=120, stop_token_ids=(249,)), prompts()[0]
    whole = await setting.vllm.generate(prompt, sampling, request_id="whole")
    same = list(full_weights(load_model(setting.folder)))
    running = asyncio.create_task(setting.vllm.generate(prompt, sampling, request_id="cut"))
    held = setting.vllm._unfinished
    while not any(len(request.token_ids) >= 5 for request in [*held.values()]):
        await asyncio.sleep(0.001)
    await asyncio.to_thread(setting.vllm.load_weights, same, version=setting.vllm.version + 1)
    cut = await running
    assert len(cut.spans) == 2, "the update came too late"
    assert cut.token_ids == whole.token_ids and farthest([cut], [whole]) < 1e-3


def test_the_second_model_runner_gets_the_same_change() -> None:
    """vLLM's own loader takes the class; its own context says which slot a row is of. Its runner needs a GPU: not run.

    Slots in another order than rows, left-overs of older requests behind the ids, the newest token not yet written.
    """
    from vllm import SamplingParams
    from vllm.v1.worker.gpu.sample.logits_processor import build_custom_logits_processors
    from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsContext

    seen: list[list[tuple[int, ...]]] = []

    def change(sequences: Sequence[Sequence[int]], logits: torch.Tensor) -> torch.Tensor:
        seen.append([tuple(ids) for ids in sequences])
        return logits + 1

    hook = LogitsHook()
    slots = torch.tensor([[1, 2, 3, 99, 99], [0] * 5, [7, 8, 0, 55, 55]], dtype=torch.int32)
    states = SimpleNamespace(all_token_ids=SimpleNamespace(gpu=slots))
    names = ("device", "max_num_reqs", "vocab_size", "prompt_len", "prefill_len", "total_len")
    states.__dict__.update(dict.fromkeys(names))
    config: Any = None
    (processor,) = build_custom_logits_processors(config, states, False, [processor_class(hook)])  # type: ignore[arg-type]
    assert hook.attached and processor.add_request(2, SamplingParams(temperature=0.0))
    rows = torch.tensor([2, 0])
    context = LogitsContext(
        expanded_idx_mapping=rows,
        idx_mapping=rows,
        idx_mapping_np=rows.numpy(),
        expanded_local_pos=torch.zeros(2),
        input_ids=torch.tensor([9, 3]),
        pos=torch.tensor([2, 2]),
        seq_lens_upper_bound_np=rows.numpy(),
    )
    logits = torch.zeros(2, 4)
    assert processor.apply(logits, context) is logits and not seen
    hook.change = change
    assert processor.apply(logits, context).eq(1).all()
    assert seen == [[(7, 8, 9), (1, 2, 3)]]


def test_a_class_is_only_given_to_a_vllm_that_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    monkeypatch.delenv("VLLM_USE_V2_MODEL_RUNNER", raising=False)
    assert can_attach(on_cpu=True) and can_attach(on_cpu=False)
    monkeypatch.setattr(vllm_logits, "_of_second_runner", tuple)  # as in an older vLLM
    assert can_attach(on_cpu=True) and not can_attach(on_cpu=False)
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")
    assert can_attach(on_cpu=False)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    assert not can_attach(on_cpu=True)


def test_a_vllm_out_of_reach_is_refused(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setting.vllm._vllm.hook, "attached", False)
    with pytest.raises(ConfigError, match=r"VLLM_ENABLE_V1_MULTIPROCESSING=0 .*transformers"):
        decode_with(setting.vllm, setting.critic(5).slow, beta=1.0)
    setting.vllm.perturb(None)


def test_a_closed_engine_lets_go_of_the_critic(setting: Setting) -> None:
    """Stands last: it closes the engine. vLLM keeps every class of logits processors it has ever seen."""
    critic = setting.critic(6)
    decode_with(setting.vllm, critic.slow, beta=1.0)
    slow = weakref.ref(critic.slow)
    setting.vllm.close()
    del critic
    gc.collect()
    assert slow() is None
