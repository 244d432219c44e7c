"""The model check: before anything is sampled, the learner's log-probs are held against the model's own.

A few tokens, with and without shared prefixes, pass through body, packing and head as in training, and one by one
through the model's own forward under plain ("eager") attention, which leaves nothing out. What differs under shared
prefixes only is packed without them; what differs anyway is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rollwright.batching import Layout, PackedBatch, Segment, pack
from rollwright.contracts import ConfigError
from rollwright.models.model_files import facts_of, recurrent_layers, window_of
from rollwright.models.scoring import TokenScorer, causal_lm
from rollwright.models.vocabulary import marked, without_unknown

log = logging.getLogger(__name__)

MAX_DIFFERENCE = 5e-3
"""Nats, in float32, on logits that reach 40."""
MEAN_DIFFERENCE_LOW = 0.1
"""Nats on average, where the weights are kept in a lower precision."""
_LARGE_LOGIT, _LARGE_SCORE = 40.0, 30.0
_FUSED = ("query_key_value", "qkv_proj", "c_attn", "Wqkv")
# Fewer tokens than the probes have, so that the padded layout makes several batches.
_BUDGET = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a model can do: the layout to use, and how far each one is from the model's own forward.

    differences: layout -> nats, inf where it ends in an error; note: why the layout is not the one that was asked for.
    """

    layout: Layout
    differences: dict[str, float]
    note: str = ""


def check_model(policy: nn.Module, *, layout: Layout = "auto", token_budget: int = 4096) -> Checked:
    """Find the layout under which the learner's log-probs are the model's own.

    Args:
        policy: a transformers causal LM, or a PEFT model around one, in evaluation mode.
        layout: the one that is wanted; "tree" and "auto" fall back to "padded".
        token_budget: the longest row that turns may share.

    Raises:
        ConfigError: there is none; the message says what the model's configuration names.
    """
    inner = causal_lm(policy)
    probes = _probes(_may_say(inner))
    # The padded layout is always tried, since every other one falls back to it.
    differences: dict[str, float] = {"padded": 0.0} | ({} if layout == "padded" else {"tree": 0.0})
    reasons: dict[str, str] = {}
    precise = next(inner.parameters()).dtype in (torch.float32, torch.float64)
    # In low precision, enlarged logits would show rounding and not faults.
    with torch.no_grad(), _strained(inner) if precise else nullcontext():
        expected = _own_logprobs(inner, probes)
        for name in differences:
            differences[name], reasons[name] = _gap(policy, probes, expected, name, precise=precise)
    limit = MAX_DIFFERENCE if precise else MEAN_DIFFERENCE_LOW
    if differences["padded"] > limit:
        raise ConfigError(_refusal(inner, differences["padded"], limit, reasons.get("padded", "")))
    return _chosen(inner, layout, token_budget, differences, limit, reasons)


def _chosen(
    inner: PreTrainedModel,
    layout: Layout,
    token_budget: int,
    differences: dict[str, float],
    limit: float,
    reasons: dict[str, str],
) -> Checked:
    if layout == "padded" or not (why := _not_shared(inner, token_budget)):
        if differences.get("tree", 0.0) <= limit:
            return Checked(layout=layout, differences=differences)
        why = f"shared prefixes change its log-probs ({_told(differences['tree'], reasons.get('tree', ''))})"
        why += _named(inner)
    note = f"{type(inner).__name__}: {why}; turns are packed with learner.layout=padded instead of {layout}"
    log.warning("%s", note)
    return Checked(layout="padded", differences=differences, note=note)


def _not_shared(inner: PreTrainedModel, token_budget: int) -> str:
    """Why prefixes are not shared, whatever a few tokens show; empty where they may be."""
    if kinds := recurrent_layers(inner.config):
        return f"its layers carry a state from token to token ({', '.join(kinds)}), which would cross branches"
    window = window_of(inner.config)
    # No row is longer than the budget, so a window of that size cuts nothing off.
    if window is None or window >= token_budget:
        return ""
    return (
        f"its attention looks back {window} tokens, and rows of shared prefixes may be learner.token_budget="
        f"{token_budget} long, where that window would count the tokens of other branches"
    )


def _refusal(inner: PreTrainedModel, difference: float, limit: float, reason: str) -> str:
    return (
        f"{type(inner).__name__} cannot be trained: the log-probs that the learner computes are not the model's own "
        f"({_told(difference, reason)}, at most {limit:g} is rounding){_named(inner)}. Use a model without what is "
        "named, or one of the families in docs/models.md"
    )


def _named(inner: PreTrainedModel) -> str:
    facts = facts_of(inner.config)
    return f"; its configuration says: {'; '.join(facts)}" if facts else ""


def _told(difference: float, reason: str) -> str:
    return reason or f"off by {difference:.3g} nats"


def _may_say(inner: PreTrainedModel) -> Sequence[int]:
    """The ids of a model, without those that it never says."""
    rows = range(int(inner.config.get_text_config().vocab_size))
    never = marked(inner)
    return rows if never is None else sorted(set(rows) - set(never.tolist()))


def _probes(known: Sequence[int]) -> list[Segment]:
    """Turns that share a prefix of a prefix, one that shares nothing, and lengths that differ."""

    def ids(start: int, count: int) -> tuple[int, ...]:
        first = min(5, len(known) - 1)  # the lowest ids are special tokens
        return tuple(known[first + (start + 7 * k + k * k) % (len(known) - first)] for k in range(count))

    root, left, right = ids(0, 9), ids(40, 4), ids(90, 6)
    turns = [
        (root, left),
        (root, right),
        ((*root, *left, *ids(20, 3)), ids(60, 5)),
        ((*root, *left, *ids(20, 3)), ids(75, 2)),
        (ids(33, 6), ids(11, 3)),
    ]
    return [
        Segment(prompt_ids=prompt, action_ids=action, sequence=index) for index, (prompt, action) in enumerate(turns)
    ]


def _own_logprobs(inner: PreTrainedModel, probes: Sequence[Segment]) -> Tensor:
    """[N] by the model's own forward, one sequence at a time, in the flat order."""
    device = next(inner.parameters()).device
    rows = []
    with _eager(inner):
        for probe in probes:
            ids = torch.as_tensor(probe.forward_ids, device=device)[None]
            # `forward_ids` leave out the last action token, so the last positions are those that predict the action.
            logits = without_unknown(inner, _own_logits(inner, ids)[0, -len(probe.action_ids) :].float())
            targets = torch.tensor(probe.action_ids, device=device)[:, None]
            rows.append(logits.log_softmax(-1).gather(-1, targets)[:, 0])
    return torch.cat(rows)


def _own_logits(inner: PreTrainedModel, ids: Tensor) -> Tensor:
    """[1, T] ids -> [1, T, V] by the model's whole forward."""
    try:
        logits: Tensor = inner(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    except Exception as error:  # model files fail in many ways, none of them of our making
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise ConfigError(
            f"{type(inner).__name__} does not run on a few tokens ({what}): its config.json does not fit its own code "
            "in this version of transformers"
        ) from error
    return logits


def _gap(
    policy: nn.Module, probes: Sequence[Segment], expected: Tensor, layout: str, *, precise: bool
) -> tuple[float, str]:
    """How far the learner's way is from `expected`, in nats; and what happened, where it is an error."""
    ways: list[Callable[[PackedBatch], Tensor]] = [lambda packed: TokenScorer(policy)(packed)[0]]
    if layout == "tree":  # few tokens never pay for attention by blocks: it is asked for
        ways.append(lambda packed: TokenScorer(policy).forward(packed, blocks=True)[0])
    gaps = []
    for way in ways:
        flat = torch.zeros_like(expected)
        try:
            for packed in pack(probes, token_budget=_BUDGET, layout=layout):  # type: ignore[arg-type]
                packed = packed.to(expected.device)
                flat[packed.entries] = way(packed).float()
        except Exception as error:  # a model that takes no such arguments fails in a way of its own
            return float("inf"), f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        # Comparisons with NaN are false, so NaN would pass the limit; infinity does not.
        difference = (flat - expected).abs().nan_to_num(float("inf"))
        # In float32 one token that is off is a fault; in low precision rounding alone may move one token far.
        gaps.append(float(difference.max() if precise else difference.mean()))
    return max(gaps), ""


@contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    """Inside, attention is computed by the model's own file, with all its caps; where it can be switched."""
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation("eager")
    except (ValueError, KeyError, AttributeError):  # older model files choose when they are built
        yield
        return
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def _strained(model: PreTrainedModel) -> Iterator[None]:
    """Inside, logits and attention scores are as large as those of trained models, so that caps and scalings show."""
    device = next(model.parameters()).device
    ids = torch.arange(5, 13, device=device)[None] % int(model.config.get_text_config().vocab_size)
    with torch.no_grad():
        largest = float(_own_logits(model, ids).abs().max())
    # Random weights give logits too small for a cap to bend.
    factor = max(1.0, _LARGE_LOGIT / max(largest, 1e-6))
    handles = [model.get_output_embeddings().register_forward_hook(lambda _, __, output: output * factor)]
    # Fused projections hold queries and keys, so each of the two gets the root of the size.
    for name, size in {"q_proj": _LARGE_SCORE, "k_proj": 1.0, **dict.fromkeys(_FUSED, _LARGE_SCORE**0.5)}.items():
        # The last two layers, one of each kind where kinds alternate: more of them would blow up rounding itself.
        found = [module for key, module in model.named_modules() if key.rsplit(".", 1)[-1] == name]
        handles += [module.register_forward_hook(_of_size(size)) for module in found[-2:]]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _of_size(size: float) -> Callable[[Any, Any, Tensor], Tensor]:
    """A hook that brings each token's output to this root mean square."""

    def hook(_: Any, __: Any, output: Tensor) -> Tensor:
        return output * (size / output.float().square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6)).to(output.dtype)

    return hook
