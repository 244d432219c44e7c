"""Log-probs, entropies and hidden states of packed batches, against the definition on full logits."""

from __future__ import annotations

import pytest
import torch

from rollwright.batching.packing import PackedBatch, Segment, pack
from rollwright.contracts.errors import ConfigError
from rollwright.models.scoring import TokenScorer, check_head, last_hidden_at
from rollwright.models.tiny_model import tiny_llama

VOCAB = 48


@pytest.fixture
def model() -> torch.nn.Module:
    return tiny_llama(VOCAB, hidden=32).double()


def branching_batch() -> PackedBatch:
    actions = [(1, 2, 3), (1, 2, 4), (9,), (1, 5, 5, 5)]
    segments = [
        Segment(
            prompt_ids=(7, 8),
            action_ids=action,
            sequence=k,
        )
        for k, action in enumerate(actions)
    ]
    (batch,) = pack(segments, token_budget=100, layout="tree")
    return batch


def full_logits(model: torch.nn.Module, batch: PackedBatch) -> torch.Tensor:
    """[N, V] from the whole model over the whole row."""
    output = model(input_ids=batch.input_ids, position_ids=batch.position_ids, attention_mask=batch.attention_mask())
    rows, columns = batch.positions.T
    return output.logits[rows, columns]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_chunks_give_the_log_softmax_and_entropy_of_full_logits(
    model: torch.nn.Module, chunk: int, temperature: float
) -> None:
    batch = branching_batch()
    logits = full_logits(model, batch) / temperature
    expected = torch.distributions.Categorical(logits=logits)
    loss = (expected.log_prob(batch.targets).square() + expected.entropy()).sum()
    loss.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()

    logprobs, entropy, hidden = TokenScorer(model, temperature=temperature, chunk=chunk)(batch, True)
    assert entropy is not None and hidden.shape == (len(batch.gather), 32)
    torch.testing.assert_close(logprobs, expected.log_prob(batch.targets))
    torch.testing.assert_close(entropy, expected.entropy())
    (logprobs.square() + entropy).sum().backward()
    for mine, theirs in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(mine.grad, theirs, rtol=1e-6, atol=1e-7)


def test_no_more_than_one_chunk_of_logits_lives_between_forward_and_backward(model: torch.nn.Module) -> None:
    kept: set[tuple[int, ...]] = set()

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        kept.add(tuple(tensor.shape))
        return tensor

    batch = branching_batch()
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        TokenScorer(model, chunk=2)(batch)
    logits = [shape for shape in kept if shape[-1:] == (VOCAB,) and shape != (32, VOCAB)]  # the head's own weight
    assert len(batch.gather) > 4 and logits == [(2, VOCAB)]


def test_eager_attention_gives_the_same_log_probs(model: torch.nn.Module) -> None:
    batch = branching_batch()
    expected, _, _ = TokenScorer(model)(batch)
    model.set_attn_implementation("eager")  # type: ignore[operator]
    actual, _, _ = TokenScorer(model)(batch)
    # Eager attention takes its softmax in float32 whatever the model's type is.
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_bfloat16_autocast_stays_near_float32() -> None:
    model, batch = tiny_llama(VOCAB, hidden=32), branching_batch()
    expected, _, _ = TokenScorer(model)(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual, _, _ = TokenScorer(model)(batch)
    assert actual.dtype == torch.float32
    assert float((actual - expected).detach().abs().mean()) < 0.08
    actual.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_a_model_that_caps_its_logits_is_refused(model: torch.nn.Module) -> None:
    check_head(model)

    class Capped(type(model)):  # type: ignore[misc]
        def forward(self, *args: object, **kwargs: object) -> object:
            output = super().forward(*args, **kwargs)
            output.logits = 0.5 * output.logits
            return output

    capped = Capped(model.config).double()
    torch.nn.init.normal_(capped.get_output_embeddings().weight)
    with pytest.raises(ConfigError, match="after the vocabulary head"):
        check_head(capped)


def test_what_cannot_be_scored_is_refused(model: torch.nn.Module) -> None:
    with pytest.raises(ConfigError, match="temperature is 0"):
        TokenScorer(model, temperature=0)
    with pytest.raises(ConfigError, match="expected a transformers model"):
        check_head(torch.nn.Linear(2, 2))
    model.config._attn_implementation = "flash_attention_2"  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="takes no 4-D mask"):
        TokenScorer(model)(branching_batch())
    model.config._attn_implementation = "sdpa"  # type: ignore[union-attr]
    model.config.sliding_window = 3  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="sliding window of 3"):
        TokenScorer(model)(branching_batch())


@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_last_hidden_at_takes_the_last_real_token(side: str) -> None:
    hidden = torch.arange(24.0).reshape(2, 4, 3).requires_grad_()
    mask = {
        "right": [[1, 1, 0, 0], [1, 1, 1, 1]],
        "left": [[0, 0, 1, 1], [1, 1, 1, 1]],
        "both": [[0, 1, 1, 0], [0, 1, 0, 0]],
    }[side]
    last = {"right": [1, 3], "left": [3, 3], "both": [2, 1]}[side]
    result = last_hidden_at(hidden, torch.tensor(mask).bool())
    assert result.tolist() == [hidden[row, column].tolist() for row, column in enumerate(last)]
    result.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.sum(-1).nonzero().tolist() == [[row, column] for row, column in enumerate(last)]


def test_last_hidden_at_refuses_empty_rows_and_wrong_shapes() -> None:
    with pytest.raises(ValueError, match=r"rows \[1\] hold no real token"):
        last_hidden_at(torch.zeros(2, 2, 3), torch.tensor([[True, False], [False, False]]))
    with pytest.raises(ValueError, match="disagree"):
        last_hidden_at(torch.zeros(2, 2, 3), torch.ones(2, 3).bool())
