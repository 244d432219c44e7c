"""What a turn-level critic reads with: a copy of the policy's transformer, or any other, an encoder such as RoBERTa."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rollwright.batching import PackedBatch
from rollwright.contracts import ConfigError
from rollwright.learner import copied_body
from rollwright.models import body_hidden, load_whole, resolve_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]
# The same states are read in update after update; each is decoded and encoded once.
_MOST_TRANSLATED = 20_000


@dataclass(frozen=True, slots=True)
class CriticBody:
    """A transformer without a head.

    module: `PreTrainedModel` whose output has `last_hidden_state`.
    translate: the policy's ids to the module's own; None where they are the same.
    """

    module: Any
    translate: Callable[[Ids], Ids] | None = None

    @property
    def width(self) -> int:
        """Of its hidden states."""
        return int(self.module.config.get_text_config().hidden_size)

    @property
    def foreign(self) -> bool:
        """Whether it reads other ids than the policy's; it may then look both ways, and prefixes cannot be shared."""
        return self.translate is not None

    def own_ids(self, sequences: Sequence[Sequence[int]]) -> list[Ids]:
        """The sequences as the module reads them."""
        plain = [tuple(ids) for ids in sequences]
        return plain if self.translate is None else [self.translate(ids) for ids in plain]


def hidden_at_ends(body: nn.Module, packed: PackedBatch, *, foreign: bool) -> Tensor:
    """[U, d] float32 hidden states at `packed.gather`; of a foreign body each row is one whole sequence."""
    if foreign:
        # A reading lies at the last real token of its row, so what stands behind that place is padding.
        rows, ends = packed.positions.T
        last = torch.zeros(len(packed.input_ids), dtype=ends.dtype, device=ends.device).index_put((rows,), ends)
        columns = torch.arange(packed.input_ids.shape[1], device=ends.device)
        # An encoder looks both ways: without the mask its states would depend on the padding.
        mask = (columns[None] <= last[:, None]).long()
        hidden = body(input_ids=packed.input_ids, attention_mask=mask).last_hidden_state
    else:
        hidden = body_hidden(body, packed)  # type: ignore[arg-type]
    # Values are regressed in full precision: bfloat16 has no room between 0.990 and 0.994.
    gathered: Tensor = hidden.reshape(-1, hidden.shape[-1])[packed.gather].float()
    return gathered


def cut_to(body: CriticBody, depth: float) -> CriticBody:
    """The lower part of a body: the first `depth` of its layers, one at least. The others are thrown away.

    Raises:
        ConfigError: its layers are not found.
    """
    config = body.module.config.get_text_config()
    kept = max(1, round(depth * config.num_hidden_layers))
    if kept == config.num_hidden_layers:
        return body
    # Found by their length: architectures give the list different names (layers, h, layer).
    stacks = [
        (parent, name)
        for parent in body.module.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == config.num_hidden_layers
    ]
    if len(stacks) != 1:
        raise ConfigError(
            f"the critic's depth is {depth:g}, but {type(body.module).__name__} has {len(stacks)} stacks of "
            f"{config.num_hidden_layers} layers where one was expected: use depth 1"
        )
    ((parent, name),) = stacks
    # The body is a copy of its own or was loaded for this critic, so nobody else loses these layers.
    setattr(parent, name, getattr(parent, name)[:kept])
    # The number of layers is read elsewhere too, such as for a cache of keys and values.
    config.num_hidden_layers = kept
    return body


def policy_body(policy: nn.Module) -> CriticBody:
    """A copy of the policy's own transformer."""
    return CriticBody(copied_body(policy))


def other_body(name_or_path: str | Path, policy_tokenizer: PreTrainedTokenizerBase) -> CriticBody:
    """Another transformer with its own tokenizer: it reads the words of the sequence, the last ones where it is long.

    Args:
        name_or_path: a folder in Hugging Face format or a hub name.

    Raises:
        ConfigError: there is no such model, it has no tokenizer, or it is an encoder and decoder in one.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    words: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    try:
        folder = resolve_model(name_or_path)
        tokenizer = AutoTokenizer.from_pretrained(folder, truncation_side="left", **words)
        config = _without_dropout(AutoConfig.from_pretrained(folder, **words))
        module = load_whole(AutoModel, folder, new=("pooler",), spare=True, config=config, dtype=torch.float32)
    except Exception as error:  # broken folders fail in many ways, none of them of our making
        raise ConfigError(f"the critic's model {str(name_or_path)!r} cannot be read: {error}") from error
    if module.config.is_encoder_decoder:
        raise ConfigError(f"the critic's model {str(name_or_path)!r} is encoder and decoder in one: use an encoder")
    module.pooler = None  # read by nobody, and distributed training waits for the gradient of what is there
    # A tokenizer without a limit of its own reports a huge number.
    longest = min(tokenizer.model_max_length, _positions(module.config))

    @lru_cache(maxsize=_MOST_TRANSLATED)
    def translate(ids: Ids) -> Ids:
        """The policy's ids as words, and these as the other model's ids."""
        # The marks of the policy's chat template are no words to another model.
        text = policy_tokenizer.decode(list(ids), skip_special_tokens=True)
        own = tuple(tokenizer(text, truncation=True, max_length=longest)["input_ids"])
        return own or (0,)  # where no words are left

    return CriticBody(module, translate)


def _without_dropout(config: Any) -> Any:
    """Targets and values are of one function, and a resumed run would draw other masks."""
    for name, value in vars(config).items():
        if "dropout" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    return config


def _positions(config: Any) -> int:
    """Tokens that it can read; RoBERTa and its kin count their positions from the padding id on."""
    # RoBERTa's 514 positions read 512 tokens: its padding id is 1.
    positions = int(getattr(config, "max_position_embeddings", 512))
    offset = config.model_type in ("roberta", "xlm-roberta", "camembert", "longformer")
    return positions - (int(config.pad_token_id or 0) + 1 if offset else 0)
