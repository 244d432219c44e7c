"""Loss and gradient equal TRL's, computed by its own trainers on a shared batch with a tiny random Llama.

Ours takes the log-probs of a plain forward pass and flat action tokens; TRL's takes padded rows through its own code.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rollwright.maths.losses import (
    CispoClip,
    Clip,
    PpoClip,
    aggregate,
    count_loss_units,
    filter_off_policy,
    kl_loss,
    loss_denominator,
    policy_loss,
)
from tests.maths.padded_layout import flatten_padded, padded_sequence_index

trl = pytest.importorskip("trl")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow  # importing the trainers takes most of it

VOCABULARY = 32
MAX_LENGTH = 7  # `max_completion_length`: longer than any completion here, as in a real run


def tiny_model() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        initializer_range=0.3,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).to(torch.float32)


def tiny_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"<pad>": 0, "<bos>": 1, "<eos>": 2} | {f"w{n}": n for n in range(3, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )


@pytest.fixture(scope="module")
def shared_batch() -> dict[str, Tensor]:
    """Four rollouts of two tasks: left-padded prompts, right-padded completions with an observation in the middle."""
    generator = torch.Generator().manual_seed(1)
    prompt_ids = torch.randint(3, VOCABULARY, (4, 3), generator=generator)
    prompt_mask = torch.tensor([[1, 1, 1], [1, 1, 1], [0, 1, 1], [0, 1, 1]])
    completion_ids = torch.randint(3, VOCABULARY, (4, 6), generator=generator)
    completion_mask = (torch.arange(6)[None] < torch.tensor([6, 3, 5, 1])[:, None]).long()
    tool_mask = torch.ones(4, 6, dtype=torch.long)
    tool_mask[0, 2:4] = 0
    tool_mask[2, 1] = 0
    return {
        "prompt_ids": prompt_ids * prompt_mask,
        "prompt_mask": prompt_mask,
        "completion_ids": completion_ids * completion_mask,
        "completion_mask": completion_mask,
        "tool_mask": tool_mask,
        "advantages": torch.tensor([1.0, -1.0, 0.4, -0.4]),
        "drift": 0.4 * torch.randn(4, 6, generator=generator),
        "reference_drift": 0.3 * torch.randn(4, 6, generator=generator),
    }


def completion_logprobs(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Log-prob of every completion token by a plain forward pass. -> [B, T]."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    length = batch["completion_ids"].shape[1]
    logits = model(input_ids=ids, attention_mask=attention).logits[:, -length - 1 : -1]
    return logits.log_softmax(-1).gather(-1, batch["completion_ids"][..., None])[..., 0]


def make_trainer(kind: str, folder: Path, model: Any, **options: Any) -> Any:
    from datasets import Dataset

    config_class, trainer_class = getattr(trl, f"{kind}Config"), getattr(trl, f"{kind}Trainer")
    config = config_class(
        output_dir=str(folder), use_cpu=True, bf16=False, report_to=[], per_device_train_batch_size=4,
        num_generations=2, max_completion_length=MAX_LENGTH, gradient_accumulation_steps=1,
        gradient_checkpointing=False, disable_dropout=True, **options,
    )  # fmt: skip
    trainer = trainer_class(
        model=model,
        reward_funcs=lambda completions, **kwargs: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_list([{"prompt": "w5 w6"}] * 4),
        processing_class=tiny_tokenizer(),
    )
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def gradients(loss: Tensor, model: Any) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def compare(theirs: tuple[Tensor, dict[str, Tensor]], ours: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(ours[0].detach(), theirs[0].detach(), atol=1e-6, rtol=1e-5)
    assert set(ours[1]) == set(theirs[1]) and max(g.abs().max() for g in theirs[1].values()) > 1e-3
    for name, gradient in theirs[1].items():
        # Entries whose terms nearly cancel are as exact as the large ones, not as their own size would have it.
        exact = max(1e-6, 1e-5 * float(gradient.abs().max()))
        torch.testing.assert_close(ours[1][name], gradient, atol=exact, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def flat_batch(batch: dict[str, Tensor], logprobs: Tensor, old: Tensor, mask: Tensor) -> dict[str, Any]:
    index = padded_sequence_index(mask)
    return {
        "logprobs": flatten_padded(logprobs, mask),
        "logprobs_old": flatten_padded(old, mask),
        "advantages": batch["advantages"][index],
        "mask": torch.ones_like(index, dtype=torch.bool),
        "sequence_index": index,
        "num_sequences": mask.shape[0],
    }


GRPO_CASES: dict[str, tuple[dict[str, Any], str, str, Clip]] = {
    "grpo": ({"loss_type": "grpo"}, "seq-mean-token-mean", "token", PpoClip(low=0.2, high=0.2)),
    "bnpo": ({"loss_type": "bnpo"}, "token-mean", "token", PpoClip(low=0.2, high=0.2)),
    "dr_grpo": ({"loss_type": "dr_grpo"}, "constant", "token", PpoClip(low=0.2, high=0.2)),
    "dapo": ({"loss_type": "dapo", "epsilon_high": 0.28}, "token-mean", "token", PpoClip(low=0.2, high=0.28)),
    "dual clip": (
        {"loss_type": "dapo", "delta": 1.5}, "token-mean", "token", PpoClip(low=0.2, high=0.2, dual=1.5),
    ),
    "cispo": ({"loss_type": "cispo", "epsilon_high": 1.3}, "token-mean", "token", CispoClip.absolute(cap=1.3)),
    "gspo": (
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.1},
        "seq-mean-token-mean", "sequence", PpoClip(low=0.1, high=0.1),
    ),
    "grpo with kl": (
        {"loss_type": "grpo", "beta": 0.05, "use_bias_correction_kl": False},
        "seq-mean-token-mean", "token", PpoClip(low=0.2, high=0.2),
    ),
    "dapo with weighted kl": (
        {"loss_type": "dapo", "beta": 0.05, "use_bias_correction_kl": True},
        "token-mean", "token", PpoClip(low=0.2, high=0.2),
    ),
    "off-policy mask": (
        {"loss_type": "grpo", "off_policy_mask_threshold": 0.05},
        "seq-mean-token-mean", "token", PpoClip(low=0.2, high=0.2),
    ),
}  # fmt: skip


def our_grpo_loss(
    batch: dict[str, Tensor],
    logprobs: Tensor,
    old: Tensor,
    ref: Tensor,
    how: str,
    level: str,
    clip: Clip,
    trl_options: dict,
) -> Tensor:
    mask = batch["completion_mask"] * batch["tool_mask"]
    flat = flat_batch(batch, logprobs, old, mask)
    where = {"sequence_index": flat["sequence_index"], "num_sequences": 4}
    counts = count_loss_units(flat["mask"], **where)
    denominator = loss_denominator([counts], how, max_length=MAX_LENGTH if how == "constant" else None)
    kept = flat
    if "off_policy_mask_threshold" in trl_options:
        correction = filter_off_policy(
            flat["logprobs"], flat["logprobs_old"], flat["advantages"], flat["mask"], **where,
            threshold=trl_options["off_policy_mask_threshold"],
        )  # fmt: skip
        assert 0 < correction.mask.sum() < len(correction.mask)
        kept = flat | {"mask": correction.mask}  # TRL drops the sequence from the loss, not from the denominator
    losses = policy_loss(**kept, level=level, clip=clip).losses
    if "beta" in trl_options:
        losses = losses + trl_options["beta"] * kl_loss(
            flat["logprobs"], flat["logprobs_old"], flatten_padded(ref, mask), flat["mask"],
            kind="k3", ratio_weighted=trl_options["use_bias_correction_kl"],
        )  # fmt: skip
    return aggregate(losses, flat["mask"], **where, how=how, denominator=denominator)


@pytest.mark.parametrize("far", [0.0, 2.65, 30.0])
@pytest.mark.parametrize("name", ["grpo with kl", "dapo with weighted kl", "gspo"])
def test_one_token_far_from_reference_and_old_policy(
    name: str, far: float, shared_batch: dict[str, Tensor], tmp_path: Path
) -> None:
    """The first token is e^far times likelier under the reference (KL) or was so under the old policy (ratio)."""
    moved = shared_batch | {key: shared_batch[key].clone() for key in ("drift", "reference_drift")}
    moved["drift" if name == "gspo" else "reference_drift"][0, 0] = far
    test_grpo_losses_and_gradients(name, moved, tmp_path)


@pytest.mark.parametrize("name", list(GRPO_CASES))
def test_grpo_losses_and_gradients(name: str, shared_batch: dict[str, Tensor], tmp_path: Path) -> None:
    options, how, level, clip = GRPO_CASES[name]
    model = tiny_model()
    plain = copy.deepcopy(model)
    logprobs = completion_logprobs(plain, shared_batch)
    old = logprobs.detach() + shared_batch["drift"]
    ref = logprobs.detach() + shared_batch["reference_drift"]
    model.save_pretrained(tmp_path / "model")  # a run with KL loads its reference from where the model came from
    model = type(model).from_pretrained(tmp_path / "model")
    trainer = make_trainer("GRPO", tmp_path, model, **options)
    mask = shared_batch["completion_mask"] * shared_batch["tool_mask"]
    inputs = {key: value for key, value in shared_batch.items() if "drift" not in key}
    inputs |= {"old_per_token_logps": old, "ref_per_token_logps": ref, "num_items_in_batch": mask.sum()}
    loss = trainer.compute_loss(trainer.model, inputs)
    theirs = loss, gradients(loss, trainer.model)
    our_loss = our_grpo_loss(shared_batch, logprobs, old, ref, how, level, clip, options)
    compare(theirs, (our_loss, gradients(our_loss, plain)))


@pytest.mark.parametrize("drift", [0.0, 1.0])
def test_rloo_loss_and_gradient(drift: float, shared_batch: dict[str, Tensor], tmp_path: Path) -> None:
    model = tiny_model()
    plain = copy.deepcopy(model)
    logprobs = completion_logprobs(plain, shared_batch)
    old = logprobs.detach() + drift * 0.2 * shared_batch["drift"]
    mask = shared_batch["completion_mask"]  # TRL's RLOO has no observation tokens
    trainer = make_trainer("RLOO", tmp_path, model, beta=0.0)  # its KL is in the reward, not in the loss
    inputs = {key: value for key, value in shared_batch.items() if "drift" not in key and key != "tool_mask"}
    loss = trainer.compute_loss(trainer.model, inputs | {"old_logps": (old * mask).sum(1)})
    theirs = loss, gradients(loss, trainer.model)
    flat = flat_batch(shared_batch, logprobs, old, mask)
    losses = policy_loss(**flat, level="sequence_sum", clip=PpoClip(low=0.2, high=0.2)).losses
    ours = aggregate(
        losses, flat["mask"], flat["sequence_index"], num_sequences=4, how="seq-mean-token-mean", denominator=4.0
    )
    compare(theirs, (ours, gradients(ours, plain)))


def test_micro_batches_of_the_token_mean(shared_batch: dict[str, Tensor], tmp_path: Path) -> None:
    """TRL's dapo loss over two micro-batches of one step adds up to our one loss."""
    model = tiny_model()
    plain = copy.deepcopy(model)
    logprobs = completion_logprobs(plain, shared_batch)
    old = logprobs.detach() + shared_batch["drift"]
    trainer = make_trainer("GRPO", tmp_path, model, loss_type="dapo")
    mask = shared_batch["completion_mask"] * shared_batch["tool_mask"]
    inputs = {key: value for key, value in shared_batch.items() if "drift" not in key} | {"old_per_token_logps": old}
    pick: Callable[[slice], dict[str, Tensor]] = lambda rows: {key: value[rows] for key, value in inputs.items()}  # noqa: E731
    loss = sum(
        trainer.compute_loss(trainer.model, pick(rows) | {"num_items_in_batch": mask.sum()})
        for rows in (slice(0, 1), slice(1, 4))
    )
    theirs = loss, gradients(loss, trainer.model)
    ours = our_grpo_loss(shared_batch, logprobs, old, old, "token-mean", "token", PpoClip(low=0.2, high=0.2), {})
    compare(theirs, (ours, gradients(ours, plain)))
