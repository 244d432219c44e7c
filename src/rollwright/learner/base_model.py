"""The model that a run in stages is held near in all of them, where the policy does not begin with it.

A run keeps a copy of the policy that it begins with, and that is the reference of its KL. A run that only goes on with
a later stage begins with another policy, so it names the base itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rollwright.batching import TokenBatch
from rollwright.contracts import ConfigError
from rollwright.learner.frozen_teacher import FrozenTeacher
from rollwright.learner.learner import Learner
from rollwright.models import load_policy

EMBEDDED = "smollm2"


def open_base(
    path: str, learner: Learner, tokenizer: PreTrainedTokenizerBase, *, temperature: float
) -> Callable[[TokenBatch], Tensor]:
    """What gives the log-probs of a batch's tokens by the base model: -> [N] float32 on the CPU.

    Args:
        path: of the base; "" = the reference that the learner keeps.
        tokenizer: the policy's.
        temperature: that the policy samples at.

    Raises:
        ConfigError: the base has another tokenizer, so its log-probs would be of other tokens.
    """
    if not path:
        return learner.reference_logprobs
    model, its_own = load_policy(path)
    if its_own.get_vocab() != tokenizer.get_vocab():
        raise ConfigError(
            f"`algorithm.base={path}` has another tokenizer than `model.path`, so its log-probs would be of other "
            "tokens: name the model that the first stage began with"
        )
    base = FrozenTeacher(learner, model, temperature=temperature)
    return lambda batch: base.logprobs(batch, [turn.prompt_ids for turn in batch.turns])


def require_stage_base(policy: str, base: str, *, stage_one_steps: int) -> None:
    """Refuse, before any weight is loaded, a later stage that would be held near the policy of the stage before.

    Args:
        policy: `model.path`.
        base: `algorithm.base`, "" where none is named.
        stage_one_steps: of this run; with some of them it begins anew.

    Raises:
        ConfigError: the base is no model folder; or the run has no stage I, its policy comes from a run that had one,
            and no base is named.
    """
    if base and base != EMBEDDED and not (Path(base) / "config.json").is_file():
        raise ConfigError(
            f"`algorithm.base={base}` is no folder of a model: name one, or {EMBEDDED}, or leave it empty"
        )
    if base or stage_one_steps:
        return
    earlier = _stage_one_of(Path(policy))
    if earlier is not None:
        steps, began_with = earlier
        raise ConfigError(
            f"`model.path={policy}` is the policy of a run with {steps} steps of stage I, and this run has none: its "
            f"KL would hold it near that policy instead of the model that stage I began with. Set "
            f"algorithm.base={began_with}, or run both stages in one run, which keeps its base when it is resumed"
        )


def _stage_one_of(policy: Path) -> tuple[int, str] | None:
    """Steps of stage I and the starting model of the run that wrote this policy; None where no such run did."""
    # A made starting model lies in the run's folder too, and that is the base itself.
    if policy.name in ("policy", "best"):
        folder = policy.parent
    elif policy.parent.name == "checkpoints":
        folder = policy.parent.parent
    else:
        return None
    try:
        content = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        steps, began_with = content["algorithm"]["stage_one_steps"], content["model"]["path"]
    # A folder of somebody else may hold any file of that name.
    except (yaml.YAMLError, OSError, KeyError, TypeError, ValueError):
        return None
    if not isinstance(steps, int) or steps < 1:
        return None
    return steps, str(folder / "tiny_model") if began_with == "tiny" else str(began_with)
