"""RLGF on the combination lock: a guide begins or ends the policy's episodes, against PPO alone."""

from __future__ import annotations

from pathlib import Path

from _guided_table import train

from rollwright.envs.text import combination_lock

TITLE = "Guides: PPO++ and AggreVaTeD against PPO"
ABOUT = (
    "With **tables in place of a language model** (`_guided_table.py`: logits and a value per state; the world, the\n"
    "collector, the guide, roll-ins, masks, GAE and PPO's loss are those of the recipes): a lock of 14 dials of two\n"
    "digits where one wrong digit ends the episode (a guess opens it once in 16384 tries). The guide is the lock's\n"
    "scripted teacher. All arms of a seed begin with the same table and have the same number of environment steps,\n"
    "roll-ins included. Success is that of 64 sampled episodes from held-out seeds, played by the policy alone."
)
ARMS = {
    "ppo": "PPO, advantages not whitened",
    "ppo_plus": "PPO++: the guide begins, beta 0.8",
    "aggrevated": "AggreVaTeD: the guide ends, beta 0.8",
}
METRICS = {
    "lock_success": "share of held-out episodes in which the lock opens",
    "lock_episodes": "own episodes that the budget bought",
    "lock_env_steps": "environment steps of the training",
}
CLAIMS = [
    ("ppo_plus", "ppo", "lock_success", "PPO++ opens the lock where PPO does not"),
    ("aggrevated", "ppo", "lock_success", "AggreVaTeD opens the lock where PPO does not"),
]
MISSING = [
    "the maze: the machine was too busy. One seed (0) of 8,000 environment steps with tables gave success 0.25 (PPO), "
    "0.40 (PPO++) and 0.48 (AggreVaTeD) over 60 held-out episodes, which decides nothing",
    "D2LOLS, for the same reason",
    "a language model: one run of a tiny one (PPO++, a lock of 10 dials, 40 steps of 24 episodes, seed 100) opened "
    "the lock in 0 of 64 held-out episodes; it was not tuned further",
]
METHODS = {"ppo": "ppo", "ppo_plus": "ppo++", "aggrevated": "aggrevated"}
ENV_STEPS = 10_000


def play(arm: str, seed: int, folder: Path) -> dict[str, float]:
    """One arm from one seed."""
    lock = combination_lock.build(lengths=(14,), digits=2, slip="over", max_turns=14, wording="compact")
    found = train(lock, lock.digits, method=METHODS[arm], seed=seed, env_steps=ENV_STEPS, episodes=24)
    return {f"lock_{name}": found[name] for name in ("success", "episodes", "env_steps")}
