"""`rollwright components`: every part that a configuration can name, kind by kind."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """`rollwright components` takes no options."""


def run(arguments: argparse.Namespace) -> None:
    """Print the names; any of them can also be one's own, `package.module:Attribute`."""
    # Inside the function: these rooms load torch.
    from rollwright.batching import ADVANTAGES, VALUE_ADVANTAGES
    from rollwright.config import available, engine_note
    from rollwright.curriculum import CURRICULA
    from rollwright.generation import ENGINES
    from rollwright.learner import CRITIC_LOSSES, LOSSES, METHODS

    kinds = {
        "worlds (world.name)": available("envs"),
        "rewards (reward.name)": available("rewards"),
        "methods of train grpo (algorithm.preset)": list(METHODS),
        "advantage estimators of train grpo (algorithm.advantage)": list(ADVANTAGES.ours),
        "advantage estimators of train ppo (algorithm.advantage)": list(VALUE_ADVANTAGES.ours),
        "policy losses (algorithm.loss)": list(LOSSES.ours),
        "critic losses (critic.loss)": list(CRITIC_LOSSES.ours),
        "curricula (curriculum.name)": list(CURRICULA.ours),
    }
    for heading, names in kinds.items():
        print(f"{heading}:", *(f"  {name}" for name in names), sep="\n")
    print("engines (engine.name):")
    for name in ENGINES.ours:
        note = engine_note(name)
        print(f"  {name}" + (f" ({note})" if note else ""))
    print("Your own is named package.module:Attribute in any of these keys.")
