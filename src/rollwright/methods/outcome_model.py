"""Trained judges of whole episodes: a YES/NO verifier (WebRL's outcome reward model) and a scalar pair model.

A model is a plain Hugging Face folder with one small file more, `outcome_model.json`: how it is asked, which tokens
answer, and from which score on an episode counts as a success.

Sources: arXiv:2411.02337 sec. 3.1 (verifier: P(YES) against P(NO)); Bradley and Terry 1952 (pairs).
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from rollwright.contracts import ConfigError, DataError, ModelNotFound, Trajectory
from rollwright.methods.outcome_text import Evidence, OutcomePrompt, evidence_of
from rollwright.models import (
    ChatCodec,
    Dtype,
    body_of,
    check_head,
    last_hidden_at,
    load_model,
    load_tokenizer,
    load_whole,
    next_token_logits,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Kind = Literal["verifier", "scalar"]
CARD = "outcome_model.json"
_FORMAT = 1
# Capitals, digits, an accent, blanks and brackets: tokenizers differ in how they split these.
_MARK_PROBE = "Went up 12x, née 3.5?\n  Then: click [1]"
_LEAST_STATE = 32
"""Tokens of the state that are kept before older actions are dropped in its favour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeCard:
    """What `outcome_model.json` says.

    threshold: a score from here on is a success; a probability for a verifier, the model's own unit for a scalar.
    answer_ids: the first token of YES and of NO; unused by a scalar model.
    max_length: tokens of a prompt; longer ones are cut.
    tokenizer: `tokenizer_mark` of the one it was trained with; empty in files of earlier releases.
    """

    kind: Kind
    prompt: OutcomePrompt
    answer_ids: tuple[int, int]
    max_length: int
    threshold: float = 0.5
    tokenizer: str = ""

    def save(self, folder: Path) -> None:
        """Write the file into a model folder."""
        # NaN is no JSON: it has to fail here, not at whoever reads the file.
        text = json.dumps({"format": _FORMAT} | asdict(self), indent=1, allow_nan=False)
        (folder / CARD).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> OutcomeCard:
        """Read it.

        Raises:
            DataError: no such file, one of another format, or one that lacks a field.
        """
        try:
            found = json.loads((folder / CARD).read_text(encoding="utf-8"))
            known = found.pop("format")
            if known != _FORMAT or found.get("kind") not in get_args(Kind):
                raise ValueError(f"format {known}, kind {found.get('kind')!r}")
            prompt = OutcomePrompt(**found.pop("prompt"))
            # A field that this release does not know is a TypeError, which is told below.
            return cls(prompt=prompt, answer_ids=tuple(found.pop("answer_ids")), **found)
        except FileNotFoundError:
            raise DataError(
                f"{folder} holds no {CARD}: it is not an outcome model. Train one with recipes/outcome.py or "
                "recipes/reward_pairs.py and name the folder that it prints"
            ) from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{folder / CARD} cannot be read by this release (format {_FORMAT}): {error!r}") from error


def answer_ids(codec: ChatCodec, prompt: OutcomePrompt) -> tuple[int, int]:
    """The first token of each answer, as it follows the prompt's header.

    Raises:
        ConfigError: both answers begin with the same token.
    """
    # The verifier reads the logits of one position, so only the first token of an answer counts.
    yes, no = codec.encode_text(prompt.yes)[0], codec.encode_text(prompt.no)[0]
    if yes == no:
        raise ConfigError(
            f"the answers {prompt.yes!r} and {prompt.no!r} begin with the same token {yes}: choose answers that differ "
            "in their first letter"
        )
    return yes, no


def tokenizer_mark(codec: ChatCodec) -> str:
    """A short hash of the vocabulary, of how a text is split, and of the chat template.

    The template counts as it is written: rendered, some of them hold the day's date.
    """
    # Sorted, because the order of `get_vocab` is not fixed.
    words = sorted(codec.tokenizer.get_vocab().items())
    found = json.dumps([words, codec.encode_text(_MARK_PROBE), codec.tokenizer.chat_template])
    return hashlib.sha256(found.encode(errors="surrogatepass")).hexdigest()[:16]


def prompt_ids(codec: ChatCodec, prompt: OutcomePrompt, evidence: Evidence, max_length: int) -> tuple[int, ...] | None:
    """The prompt in at most `max_length` tokens: first the state loses its end, then the oldest actions go.

    The goal, the last action and the question always stay; None where even they do not fit.
    """
    ids = codec.encode_start(prompt.messages(evidence))
    if len(ids) <= max_length:
        return ids
    # What the prompt is too long by comes off the state.
    room = len(codec.encode_text(evidence.state)) - (len(ids) - max_length)
    for attempt in range(8):  # the line that says "cut" has tokens too, and merges at edges differ: come nearer
        short = replace(evidence, state=codec.cut(evidence.state, max(_LEAST_STATE, room - 16 * (attempt + 1))))
        ids = codec.encode_start(prompt.messages(short))
        if len(ids) <= max_length:
            return ids
    shown = min(prompt.max_actions, len(evidence.actions))
    # By halves: few prompts have to be encoded, however many actions there are.
    while shown > 1:
        shown //= 2
        ids = codec.encode_start(replace(prompt, max_actions=shown).messages(short))
        if len(ids) <= max_length:
            return ids
    return None


class OutcomeModel:
    """A trained judge, ready to score. Made by `load`; keeps model and tokenizer for as long as it lives."""

    def __init__(self, model: nn.Module, codec: ChatCodec, card: OutcomeCard, *, token_budget: int = 8192) -> None:
        self.card = card
        # Without dropout, so that the same episode gets the same score.
        self._model = model.eval()
        self._codec = codec
        self._token_budget = token_budget

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        dtype: Dtype = "float32",
        device: str = "auto",
        token_budget: int = 8192,
    ) -> OutcomeModel:
        """Open a folder that `recipes/outcome.py` or `recipes/reward_pairs.py` wrote.

        Args:
            device: "auto" is the GPU where there is one.
            token_budget: tokens of one forward pass, padding included.

        Raises:
            ModelNotFound: no such folder.
            DataError: no outcome model, another tokenizer than it was trained with, or weights that are no numbers.
        """
        path = Path(folder).expanduser()
        if not path.is_dir():
            raise ModelNotFound(f"no outcome model folder {str(folder)!r}: train one with recipes/outcome.py")
        card = OutcomeCard.load(path)
        # No day is given: a template with a date is told the day that was saved with the tokenizer.
        codec = ChatCodec(load_tokenizer(path))
        _require_tokenizer(path, codec, card)
        where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        model = load_model(path, dtype, device=where) if card.kind == "verifier" else _load_scalar(path, dtype, where)
        _require_numbers(path, model)
        if card.kind == "verifier":
            # `_forward` calls body and head apart, which is right only where the model does nothing else to its logits.
            check_head(model)
        return cls(model, codec, card, token_budget=token_budget)

    def scores(self, trajectories: Sequence[Trajectory]) -> list[float | None]:
        """One score each: P(YES) / (P(YES) + P(NO)) of a verifier, the scalar of a pair model.

        None where there is nothing to read, the prompt does not fit, or the model gave no number. The same episodes
        give the same bits in whatever order they come.
        """
        return self.score_evidence([evidence_of(trajectory) for trajectory in trajectories])

    def score_evidence(self, evidence: Sequence[Evidence | None]) -> list[float | None]:
        """As `scores`, for evidence that was read before."""
        prompts = [e and prompt_ids(self._codec, self.card.prompt, e, self.card.max_length) for e in evidence]
        # Equal prompts are scored once: in batches of other widths their last bits could differ.
        known: dict[tuple[int, ...], float] = {}
        # Sorted by length and ids, so that the batches do not depend on the order of the episodes.
        for batch in _batches(sorted({ids for ids in prompts if ids}, key=lambda i: (len(i), i)), self._token_budget):
            known |= dict(zip(batch, self._forward(batch), strict=True))
        found = [known[ids] if ids else None for ids in prompts]
        return [None if score is None or not math.isfinite(score) else score for score in found]

    @torch.inference_mode()
    def _forward(self, batch: Sequence[tuple[int, ...]]) -> list[float]:
        device = next(self._model.parameters()).device
        ids, mask = _right_padded(batch, device)
        hidden = body_of(self._model)(input_ids=ids, attention_mask=mask.long(), use_cache=False).last_hidden_state
        last = last_hidden_at(hidden, mask)  # [B, H]
        if self.card.kind == "scalar":
            found: Tensor = self._model.get_submodule("score")(last)[:, 0].float()
        else:
            logits = next_token_logits(self._model, last)[:, list(self.card.answer_ids)].float()
            # The sigmoid of the difference is P(YES) / (P(YES) + P(NO)): no sum over the vocabulary is needed.
            found = (logits[:, 0] - logits[:, 1]).sigmoid()
        return [float(value) for value in found]


def writing_folder(final: Path) -> Path:
    """Where a model is written before it is `publish`ed as `final`: beside it, and nothing there yet."""
    # Beside its place: a rename is atomic only within one file system.
    beside = final.with_name(f".{final.name}.writing")
    shutil.rmtree(beside, ignore_errors=True)  # what an attempt that was killed left behind
    return beside


def publish(beside: Path, final: Path) -> Path:
    """Put a finished model in its place, so that weights never lie beside the card of another training."""
    # A rename onto a folder with files in it fails.
    shutil.rmtree(final, ignore_errors=True)
    return beside.rename(final)


def _require_tokenizer(path: Path, codec: ChatCodec, card: OutcomeCard) -> None:
    """Raises DataError where the tokenizer in the folder would read or answer otherwise than in training."""
    answers, mark = answer_ids(codec, card.prompt), tokenizer_mark(codec)
    if answers != card.answer_ids or card.tokenizer not in ("", mark):
        raise DataError(
            f"{path} was trained with answer tokens {card.answer_ids} of the tokenizer {card.tokenizer or 'unknown'}, "
            f"found {answers} of {mark}: another tokenizer lies in the folder; train the model again, or put back the "
            "tokenizer files that it was trained with"
        )


def _require_numbers(path: Path, model: nn.Module) -> None:
    """Raises DataError where a weight is NaN or infinite: such a model scores nothing."""
    if broken := [name for name, weight in model.named_parameters() if not bool(weight.isfinite().all())]:
        raise DataError(
            f"{path}: {len(broken)} of its weights hold NaN or infinity (the first is {broken[0]}), so it scores "
            "nothing: its training diverged; train it again with a lower fit.learning_rate"
        )


def _load_scalar(folder: Path, dtype: Dtype, device: str) -> PreTrainedModel:
    from transformers import AutoModelForSequenceClassification

    model = load_whole(AutoModelForSequenceClassification, folder, dtype=getattr(torch, dtype), num_labels=1)
    return model.to(torch.device(device))  # type: ignore[no-any-return]


def _batches(prompts: Sequence[tuple[int, ...]], budget: int) -> list[list[tuple[int, ...]]]:
    """Prompts of ascending length in batches that stay under the budget of tokens, one prompt at least."""
    batches: list[list[tuple[int, ...]]] = []
    for ids in prompts:
        # Lengths ascend, so the prompt to be added sets the width of the whole batch.
        if batches and (len(batches[-1]) + 1) * len(ids) <= budget:
            batches[-1].append(ids)
        else:
            batches.append([ids])
    return batches


def _right_padded(batch: Sequence[tuple[int, ...]], device: torch.device) -> tuple[Tensor, Tensor]:
    """[B, T] ids and mask; what lies to the right of a prompt is never looked at."""
    width = max(map(len, batch))
    # Any id will do as padding: the mask hides it, and a causal model looks to the left only.
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in batch], device=device)
    lengths = torch.tensor([len(row) for row in batch], device=device)
    return ids, torch.arange(width, device=device)[None, :] < lengths[:, None]
