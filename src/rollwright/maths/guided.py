"""Which losses see what where a guide begins or ends an episode (RLGF), and when the methods take turns."""

from __future__ import annotations

import random
from typing import Literal, get_args

from torch import Tensor

from rollwright.contracts import require_choice

GuidedMode = Literal["ppo++", "aggrevated"]
"""Who plays the prefix and who the rest: the guide and the policy, or the policy and the guide."""
GuidedMethod = Literal["ppo++", "aggrevated", "lols", "d2lols"]


def guided_masks(positions: Tensor, prefix: Tensor, *, mode: GuidedMode) -> tuple[Tensor, Tensor]:
    """What the policy loss and what the value loss see: two bool tensors of the shape of `positions`.

    PPO++ trains both on what follows the prefix. AggreVaTeD trains the policy inside the prefix, which it wrote, and
    the critic behind it, where the guide acts: that critic is the guide's value function. Both masks are then disjoint.

    Args:
        positions: [N] place of each token (or turn) in its episode, counted from 0.
        prefix: [N] length of the prefix of the same episode, in the same unit; 0 = none.

    Sources: arXiv:2306.11816 with its released code.
    """
    require_choice("mode", mode, get_args(GuidedMode))
    inside = positions < prefix
    return (~inside, ~inside) if mode == "ppo++" else (inside, ~inside)


def guided_mode(method: GuidedMethod, *, step: int, seed: int, ppo_frac: float, switch_step: int) -> GuidedMode:
    """What an iteration plays, all of its episodes alike: LOLS tosses a coin, D2LOLS changes over once and for good.

    Args:
        ppo_frac: lols: chance of PPO++. switch_step: d2lols: the first step of PPO++.

    Sources: arXiv:2306.11816, arXiv:1502.02206 (LOLS).
    """
    require_choice("method", method, get_args(GuidedMethod))
    if method == "lols":
        # By seed and step alone, so that a resumed run tosses the same coin.
        return "ppo++" if random.Random(f"lols/{seed}/{step}").random() < ppo_frac else "aggrevated"
    if method == "d2lols":
        return "aggrevated" if step < switch_step else "ppo++"
    return "aggrevated" if method == "aggrevated" else "ppo++"
