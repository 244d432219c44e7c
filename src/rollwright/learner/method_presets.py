"""Critic-free methods as their papers have them, and the name of what a run really does.

`algorithm.preset` of `recipes/grpo.py` fills in the keys of one of these. What only makes up for our engine (the
importance weights of `algorithm.correction`) or saves work (`algorithm.min_groups`) is no part of a method. Nor are the
keys of other sections: sizes of groups and batches, the learning rate, the number of updates per batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from rollwright.config import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A published method: the keys of `algorithm` as its paper has them, all of them that it reads."""

    title: str
    source: str
    keys: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.title} ({self.source})"


_PPO_CLIP = {"loss": "ppo", "clip_low": 0.2, "clip_high": 0.2}
_NO_KL = {"kl_coef": 0.0, "kl_in_reward": 0.0}
# A group of equal scores has advantages of 0, but these papers count it in their means.
_ALL_GROUPS = {"drop_equal_groups": False}
# At most ten rounds, as in the authors' code; the paper samples until the batch is full.
_DYNAMIC_SAMPLING = {"drop_equal_groups": True, "max_rounds": 10}

METHODS: Mapping[str, Method] = {
    "grpo": Method(  # section 4.1, equation 3; the coefficient in section 4.2
        title="GRPO",
        source="arXiv:2402.03300",
        keys={
            "advantage": "grpo",
            **_PPO_CLIP,
            "aggregation": "seq-mean-token-mean",
            # In the loss and not in the reward.
            "kl_coef": 0.04,
            "kl_kind": "k3",
            "kl_in_reward": 0.0,
            **_ALL_GROUPS,
        },
    ),
    "dr_grpo": Method(  # no division by the spread or by the answer's own length, no KL
        title="Dr. GRPO",
        source="arXiv:2503.20783",
        keys={"advantage": "dr_grpo", **_PPO_CLIP, "aggregation": "constant", **_NO_KL, **_ALL_GROUPS},
    ),
    "dapo": Method(  # section 3: clip-higher, dynamic sampling, the token-level loss; the fourth part is a reward
        title="DAPO",
        source="arXiv:2503.14476",
        keys={
            "advantage": "grpo",
            "loss": "ppo",
            "clip_low": 0.2,
            "clip_high": 0.28,
            "aggregation": "token-mean",
            **_NO_KL,
            **_DYNAMIC_SAMPLING,
        },
    ),
    "gspo": Method(  # equation 5; the clip range of section 5.1
        title="GSPO",
        source="arXiv:2507.18071",
        keys={
            "advantage": "grpo",
            "loss": "gspo",
            # A geometric mean of ratios moves far less than the ratio of one token.
            "clip_low": 3e-4,
            "clip_high": 4e-4,
            "aggregation": "seq-mean-token-mean",
            **_NO_KL,
            **_ALL_GROUPS,
        },
    ),
    "cispo": Method(  # section 3.1, with DAPO's dynamic sampling; no lower cap. The upper one is not printed: verl's
        title="CISPO",
        source="arXiv:2506.13585",
        keys={
            "advantage": "grpo",
            "loss": "cispo",
            # 1 - 10 is below every ratio: the lower cap is 0.
            "clip_low": 10.0,
            "clip_high": 0.2,
            "aggregation": "token-mean",
            **_NO_KL,
            **_DYNAMIC_SAMPLING,
        },
    ),
    "rloo": Method(  # whole answers as single actions, the KL of the sequence in the reward (0.03 for TL;DR)
        title="RLOO",
        source="arXiv:2402.14740",
        keys={
            "advantage": "rloo",
            "loss": "reinforce",
            "aggregation": "seq-mean-token-sum",
            "kl_coef": 0.0,
            "kl_in_reward": 0.03,
            **_ALL_GROUPS,
        },
    ),
    "reinforce++": Method(  # section 3: k1 per token inside the reward, whitened over the batch, PPO's clip
        title="REINFORCE++",
        source="arXiv:2501.03262",
        keys={
            "advantage": "reinforce++",
            "gamma": 1.0,
            **_PPO_CLIP,
            "aggregation": "token-mean",
            "kl_coef": 0.0,
            "kl_in_reward": 0.01,
        },
    ),
    "gigpo": Method(  # gamma, omega and the KL of its ALFWorld runs; the aggregation of the released code
        title="GiGPO",
        source="arXiv:2505.10978",
        keys={
            "advantage": "gigpo",
            "gamma": 0.95,
            "gigpo_scale": "std",
            "step_weight": 1.0,
            **_PPO_CLIP,
            "aggregation": "token-mean",
            "kl_coef": 0.01,
            "kl_kind": "k3",
            "kl_in_reward": 0.0,
            **_ALL_GROUPS,
        },
    ),
}
_IN_NO_PAPER = {"dual_clip": None, "entropy_coef": 0.0, "sequence_filter": "none"}
"""Keys that change what is learned and that none of these methods uses."""


class MethodChoice(Config):
    """The key of a section that sets the section's others; a base class of its own, so that it stands before them."""

    preset: Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce++", "gigpo"] = Field(
        "grpo",
        description="A method as its paper defines it; it fills in the keys of this section that are not set."
        " --plan shows the result.",
    )


def method_name(keys: Mapping[str, Any], preset: str) -> str:
    """ "GRPO (arXiv:2402.03300)", or "own mix: ..." with what differs from the nearest method.

    Args:
        keys: the keys of `algorithm` that the run reads; those without effect are left out.
        preset: the one that was chosen; named where others are as near.
    """
    # `min` takes the first of equals, so the chosen preset goes first.
    order = sorted(METHODS, key=lambda name: name != preset)
    nearest = min(order, key=lambda name: len(differences(METHODS[name], keys)))
    method, differs = METHODS[nearest], differences(METHODS[nearest], keys)
    if not differs:
        return str(method)
    words = ", ".join(f"{key}={_word(mine)} (there {_word(theirs)})" for key, (mine, theirs) in differs.items())
    return f"own mix: {method}, but {words}"


def differences(method: Method, keys: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Key -> (the run's value, the method's). A key that one side does not read follows from another difference."""
    # A key outside the papers counts against every method alike.
    theirs = {**_IN_NO_PAPER, **method.keys}
    if not keys.get("kl_coef"):
        theirs.pop("kl_kind", None)  # no KL, no estimator of it
    return {key: (keys[key], value) for key, value in theirs.items() if key in keys and keys[key] != value}


def _word(value: Any) -> str:
    """As a YAML writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
