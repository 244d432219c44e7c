"""Attention by blocks: the plan covers exactly what a tree sees, and the numbers are those of the dense mask."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

import rollwright.batching.prefix_tree as tree
from rollwright.batching.packing import PackedBatch
from rollwright.batching.prefix_tree import TREE_ATTENTION, plan_rows
from rollwright.models.loading import load_model
from rollwright.models.scoring import TokenScorer
from rollwright.models.tiny_model import make_tiny_model

VOCAB = 32


@pytest.fixture
def fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks as small as can be: calls cost nothing, long chains are cut after three nodes."""
    monkeypatch.setattr(tree, "CALL_WORK", 0.0)
    monkeypatch.setattr(tree, "LONGEST_PIECE", 3)


def test_two_branches_below_a_prompt(fine: None) -> None:
    # Nodes 0 1 are the prompt, 2 and 3 4 its branches: 3 does not see 2.
    (row,) = plan_rows(torch.tensor([[5, 5, 3, 5, 5]]), width=1) or ()
    assert row.lengths == (2, 1, 2)
    assert [(block.first, block.last, block.seen) for block in row.blocks] == [
        (0, 1, (0,)),
        (1, 2, (0, 1)),
        (2, 3, (0, 2)),
    ]
    assert row.blocks[2].mask.long().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


def test_one_call_under_a_mask_is_taken_where_blocks_save_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = torch.tensor([[5, 5, 3, 5, 5]])  # 25 pairs dense; 4 + 3 + 8 in three blocks
    monkeypatch.setattr(tree, "CALL_WORK", 4.0)
    assert plan_rows(ends, width=1) is not None
    monkeypatch.setattr(tree, "CALL_WORK", 12.0)
    assert plan_rows(ends, width=1) is None
    assert plan_rows(ends, width=3) is not None, "a wider model saves more with each pair"


def random_batch(seed: int, rows: int = 2, length: int = 40) -> PackedBatch:
    """Rows of random trees, the last one shorter, with padding; every position is scored."""
    rng, ids = random.Random(seed), torch.arange(rows * length).reshape(rows, length) % VOCAB
    ends, depths = torch.full((rows, length), length), torch.zeros((rows, length), dtype=torch.int64)
    for row in range(rows):
        path: list[int] = []
        for node in range(length - 7 * (row == rows - 1) + 1):
            keep = len(path) if rng.random() < 0.7 else rng.randint(min(1, len(path)), len(path))
            keep = 0 if node == length - 7 * (row == rows - 1) else keep
            ends[row, path[keep:]] = node
            path = [*path[:keep], node]
            depths[row, min(node, length - 1)] = len(path) - 1
    everything = torch.arange(rows * length)
    return PackedBatch(
        input_ids=ids,
        position_ids=depths,
        subtree_ends=ends,
        branching=True,
        gather=everything,
        slots=everything,
        targets=(everything + 1) % VOCAB,
        segment_index=everything,
        entries=everything,
        num_real_tokens=rows * length - 7,
    )


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), call=st.sampled_from([0.0, 5.0, 60.0]), longest=st.integers(1, 9))
def test_the_blocks_of_a_row_see_what_the_dense_mask_shows_and_nothing_else(
    seed: int, call: float, longest: int
) -> None:
    batch = random_batch(seed)
    dense = batch.attention_mask()
    assert dense is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree, "CALL_WORK", call)
        patch.setattr(tree, "LONGEST_PIECE", longest)
        rows = plan_rows(batch.subtree_ends, width=1)
    assert rows
    for row, expected in zip(rows, dense[:, 0], strict=True):
        assert torch.equal(_whole(row, len(expected)), expected)


def _whole(row: tree.TreeRow, length: int) -> torch.Tensor:
    """[T, T] what the blocks of a row show, every query in exactly one of them."""
    edges = torch.tensor([0, *row.lengths]).cumsum(0).tolist()
    shown, queries = torch.zeros(length, length, dtype=torch.bool), []
    for block in row.blocks:
        mine = torch.arange(edges[block.first], edges[block.last])
        keys = torch.cat([torch.arange(edges[piece], edges[piece + 1]) for piece in block.seen])
        shown[mine[:, None], keys] = block.mask
        queries += mine.tolist()
    assert queries == list(range(length))
    return shown


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("key_heads", [2, 4])
def test_log_probs_and_gradients_are_those_of_the_dense_mask(fine: None, key_heads: int, autocast: bool) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=key_heads,
    )
    config._attn_implementation = TREE_ATTENTION
    model, batch = LlamaForCausalLM(config), random_batch(3)
    assert plan_rows(batch.subtree_ends, width=64)

    def run() -> tuple[torch.Tensor, list[torch.Tensor]]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            scores = TokenScorer(model)(batch)[0]
        model.zero_grad()
        scores.square().mean().backward()
        return scores.detach(), [parameter.grad.clone() for parameter in model.parameters()]

    blocks = run()
    model.set_attn_implementation("sdpa")
    dense = run()
    torch.testing.assert_close(blocks[0], dense[0], rtol=0, atol=0.05 if autocast else 1e-5)
    for mine, theirs in zip(blocks[1], dense[1], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0.01 if autocast else 1e-6)


def test_without_a_plan_it_is_sdpa_and_no_folder_remembers_it(tmp_path: Path) -> None:
    model = load_model(make_tiny_model(tmp_path / "tiny", texts=["go on"], hidden=32))
    assert model.config._attn_implementation == TREE_ATTENTION
    ids = torch.tensor([[3, 4, 5, 6], [0, 0, 7, 8]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])

    def answers() -> torch.Tensor:
        return model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0)

    mine = answers()
    model.set_attn_implementation("sdpa")
    assert torch.equal(mine, answers())
    model.set_attn_implementation(TREE_ATTENTION)
    model.save_pretrained(tmp_path / "saved")
    assert TREE_ATTENTION not in json.dumps(json.loads((tmp_path / "saved" / "config.json").read_text()))
