"""Heads with more rows than the tokenizer has ids: such a row is never sampled, never trained on, never read."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from rollwright.batching.packing import pack
from rollwright.contracts.errors import ConfigError, DataError
from rollwright.critics.vocabulary_critic import VocabularyQSettings, vocabulary_q
from rollwright.generation.engine import Engine, Generation, Sampling
from rollwright.generation.parity import Sampled, check_parity, measure_parity, model_logprobs
from rollwright.generation.select_engine import make_engine
from rollwright.generation.server.server_client import request_body
from rollwright.generation.token_sampler import draw
from rollwright.generation.transformers_engine import TransformersEngine
from rollwright.learner.fixed_policy import FixedPolicy
from rollwright.learner.learner import Learner
from rollwright.learner.objective import PolicyObjective
from rollwright.learner.policy_losses import Ppo
from rollwright.methods.demonstrations import sft_rows
from rollwright.models.codec import ChatCodec
from rollwright.models.loading import load_model, load_policy, load_tokenizer, with_lora
from rollwright.models.scoring import TokenScorer
from rollwright.models.tiny_model import make_tiny_model, tiny_llama
from rollwright.models.vocabulary import MAX_BIASES, biases_against, marked, rows_of, tokens_of, unknown_ids
from rollwright.store.data_checks import require_own_tokens
from rollwright.store.replay import TurnTable
from rollwright.store.trajectory_store import TrajectoryStore
from tests import builders
from tests.token_batches import SpelledTurn, batch_of, per_turn

PADDING, CONTEXT = 64, 128
PROMPTS = [(5, 6, 7), (5, 6, 7, 8, 9), (11, 12)]


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with 64 more rows than its tokenizer has ids; they have the largest logits."""
    folder = make_tiny_model(tmp_path_factory.mktemp("padded"), texts=["go up", "go down"], hidden=32, layers=1)
    known = len(load_tokenizer(folder))
    model = tiny_llama(known + PADDING, hidden=32, layers=1, context_length=CONTEXT, tied=False)
    with torch.no_grad():
        model.lm_head.weight[known:] *= 10.0
    model.save_pretrained(folder)
    return folder


def known_of(folder: Path) -> int:
    return len(load_tokenizer(folder))


def by_hand(folder: Path, ids: tuple[int, ...], count: int, temperature: float = 1.0) -> torch.Tensor:
    """[count, known] log-probs of the last `count` tokens' places: the model as transformers loads it, cut by hand."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -count - 1 : -1]
    known = known_of(folder)
    assert (logits.argmax(-1) >= known).all(), "without a mask the padding would be sampled"
    return (logits[:, :known] / temperature).log_softmax(-1)


async def sampled_by(engine: Engine, temperature: float) -> list[tuple[tuple[int, ...], Generation]]:
    sampling = Sampling(max_tokens=24, temperature=temperature, seed=3)
    calls = [engine.generate(ids, sampling, request_id=f"{n}") for n, ids in enumerate(PROMPTS)]
    return list(zip(PROMPTS, await asyncio.gather(*calls), strict=True))


def differences(folder: Path, results: list[tuple[tuple[int, ...], Generation]], temperature: float) -> float:
    gaps = []
    for prompt, generation in results:
        said = generation.token_ids
        assert max(said) < known_of(folder)
        logprobs = by_hand(folder, (*prompt, *said), len(said), temperature or 1.0)
        own = logprobs.gather(-1, torch.tensor(said)[:, None])[:, 0]
        gaps.append(float((own - torch.tensor(generation.logprobs)).abs().max()))
        if temperature == 0:
            assert logprobs.argmax(-1).tolist() == list(said)
    return max(gaps)


def segment(prompt: tuple[int, ...], action: tuple[int, ...], sequence: int = 0) -> SpelledTurn:
    return SpelledTurn(
        prompt_ids=prompt,
        action_ids=action,
        logprobs_sampled=(-3.0,) * len(action),
        advantages=(1.0,) * len(action),
        sequence=sequence,
    )


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
async def test_the_transformers_engine_never_says_what_cannot_be_decoded(padded: Path, temperature: float) -> None:
    engine = make_engine("transformers", model_path=padded, context_length=CONTEXT)
    try:
        assert differences(padded, await sampled_by(engine, temperature), temperature) < 1e-5
    finally:
        engine.close()


@pytest.mark.parametrize("layout", ["tree", "padded"])
@pytest.mark.parametrize("lora", [False, True])
async def test_the_learner_scores_what_the_engine_sampled(padded: Path, layout: Any, lora: bool) -> None:
    """Before and after an update, by policy and reference; the gate passes."""
    policy: Any = load_policy(padded)[0]
    engine = TransformersEngine(load_model(padded), context_length=CONTEXT)
    reference: Any = "adapter" if lora else "copy"
    policy = with_lora(policy, rank=4) if lora else policy
    learner = Learner(Accelerator(cpu=True), policy, learning_rate=1e-2, layout=layout, reference=reference)
    assert learner.checked.layout == layout
    try:
        for version in (1, 2):
            results = await sampled_by(engine, 1.0)
            actions = [Sampled.of_generation(*result) for result in results]
            segments = [segment(ids, said.token_ids, n) for n, (ids, said) in enumerate(results)]
            logprobs = [row.tolist() for row in per_turn(learner.logprobs, segments)]
            parity = check_parity(measure_parity(actions, logprobs), dtype="float32")
            assert parity.max_difference < 1e-5
            if version == 1:
                for still in (learner.reference_logprobs, FixedPolicy(learner).logprobs):
                    frozen = [row.tolist() for row in per_turn(still, segments)]
                    assert measure_parity(actions, frozen).max_difference < 1e-5
                assert measure_parity(actions, model_logprobs(load_model(padded), actions)).max_difference < 1e-5
            metrics = learner.update(
                batch_of(segments), PolicyObjective(loss=Ppo(), correction="none", entropy_coef=0.1)
            )
            assert all(torch.isfinite(torch.tensor(value)) for value in metrics.values())
            engine.load_weights(learner.weights(), version=version)
    finally:
        engine.close()


def test_entropy_is_that_of_the_ids_that_may_be_said(padded: Path) -> None:
    prompt, action = (5, 6, 7), (8, 9, 10)
    policy = load_model(padded)
    scorer = TokenScorer(policy, temperature=0.7)
    scores, entropy, _ = scorer(pack([segment(prompt, action)], token_budget=64, layout="padded")[0], True)
    expected = by_hand(padded, (*prompt, *action), 3, 0.7)
    assert torch.allclose(entropy, -(expected.exp() * expected).sum(-1), atol=1e-5)
    (scores.sum() + entropy.sum()).backward()
    gradient: Any = policy.lm_head.weight.grad
    known = known_of(padded)
    assert gradient.isfinite().all() and gradient[:known].abs().max() > 0
    assert gradient[known:].abs().max() == 0, "padding is not trained"


@pytest.mark.vllm
@pytest.mark.slow
async def test_vllm_never_says_what_cannot_be_decoded(padded: Path) -> None:
    engine = make_engine("vllm", model_path=padded, context_length=CONTEXT, max_batch=4)
    try:
        for temperature in (0.0, 0.7):
            assert differences(padded, await sampled_by(engine, temperature), temperature) < 1e-4
    finally:
        engine.close()


def test_a_server_is_told_with_each_request(padded: Path) -> None:
    biases = biases_against(unknown_ids(padded), padded)
    body = request_body((5,), Sampling(), request_id="r", model="policy", biases=biases)
    told = json.loads(json.dumps(body, allow_nan=False))["sampling_params"]["logit_bias"]
    assert sorted(map(int, told)) == list(range(known_of(padded), rows_of(padded)))
    assert (torch.zeros(2) + torch.tensor([0.0, *told.values()][:2])).softmax(-1).tolist() == [1.0, 0.0]
    with pytest.raises(ConfigError, match=r"1025 ids .* 1024 at most"):
        biases_against(range(MAX_BIASES + 1), padded)


def test_a_model_without_padding_is_not_touched(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path, texts=["go up"], hidden=32, layers=1)
    assert unknown_ids(folder) == () and biases_against((), folder) is None
    assert marked(load_policy(folder)[0]) is None
    assert "logit_bias" not in request_body((5,), Sampling(), request_id="r", model="policy")["sampling_params"]


def test_ids_between_others_may_be_unknown_too(tmp_path: Path) -> None:
    """Some tokenizers have holes: the ids behind a hole are known, whatever their number is."""
    core = Tokenizer(WordLevel({"a": 0, "b": 1, "c": 5}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=core).save_pretrained(tmp_path)
    tiny_llama(8, hidden=32, layers=1).save_pretrained(tmp_path)
    assert unknown_ids(tmp_path) == (2, 3, 4, 6, 7)
    assert marked(load_model(tmp_path)).tolist() == [2, 3, 4, 6, 7]  # type: ignore[union-attr]


@pytest.mark.parametrize("special", [False, True])
def test_tokens_without_rows_are_refused(tmp_path: Path, special: bool) -> None:
    folder = make_tiny_model(tmp_path, texts=["go up"], hidden=32, layers=1)
    tokenizer: Any = load_tokenizer(folder)
    rows = len(tokenizer)
    tokenizer.add_tokens(["<|tool|>"], special_tokens=special)
    tokenizer.save_pretrained(folder)
    wanted = rf"{rows} for '<\|tool\|>'; the model has {rows} rows .*resize_token_embeddings"
    for opened in (load_policy, load_model):
        with pytest.raises(ConfigError, match=wanted):
            opened(folder)
    for engine in ("transformers", "vllm"):
        with pytest.raises(ConfigError, match=wanted):
            make_engine(engine, model_path=folder, context_length=CONTEXT)


def test_a_placeholder_of_pictures_needs_no_row(tmp_path: Path) -> None:
    """Gemma 3 1B reads text alone and shares its tokenizer with its larger sisters."""
    folder = make_tiny_model(tmp_path, texts=["go up"], hidden=32, layers=1)
    tokenizer: Any = load_tokenizer(folder)
    tokenizer.add_tokens(["<image_soft_token>"], special_tokens=True)
    tokenizer.image_token = "<image_soft_token>"
    tokenizer.init_kwargs["image_token"] = "<image_soft_token>"
    tokenizer.save_pretrained(folder)
    assert unknown_ids(folder) == ()
    assert "<image_soft_token>" not in tokens_of(folder)


def test_stores_and_fine_tuning_refuse_padding_and_speak_of_the_models_rows(padded: Path, tmp_path: Path) -> None:
    policy, tokenizer = load_policy(padded)
    known, rows = known_of(padded), rows_of(padded)
    assert rows == known + PADDING
    for last, match in ((known - 1, ""), (known, f"token id {known}, .*row"), (rows, f"model's vocabulary has {rows}")):
        episode = builders.episode("a", builders.turn((5, 6), (7, last)))
        store = TrajectoryStore(tmp_path / str(last))
        store.append([episode])
        checks = [
            lambda store=store: require_own_tokens([], TurnTable(store), ChatCodec(tokenizer), policy),
            lambda episode=episode: sft_rows(
                [episode], vocab_size=rows, unknown_ids=unknown_ids(padded), max_length=64
            ),
        ]
        for check in checks:
            if match:
                with pytest.raises(DataError, match=match):
                    check()
            else:
                check()


def test_a_critic_of_tokens_counts_no_padding_among_the_actions(padded: Path) -> None:
    heads = vocabulary_q(load_model(padded), VocabularyQSettings(width=16)).heads
    with torch.no_grad():
        heads.q[0][-1].bias[known_of(padded) :] = 9.0  # type: ignore[index, operator]
        values = heads(torch.zeros(1, 32), torch.tensor([7]))
    assert float(values["cql"][0, 0]) == pytest.approx(float(torch.tensor(known_of(padded)).log()), abs=1e-4)


def test_the_largest_number_draws_a_token_that_has_a_probability() -> None:
    logits = torch.full((1, 50), float("-inf"))
    logits[0, :3] = torch.tensor([0.1, 0.2, 0.3])
    for number in (1 - 2**-53, 1.0):
        assert draw(logits, [Sampling()], [number])[0].item() == 2
