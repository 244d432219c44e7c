"""The worlds of `learning.py`, and the methods that each is learned by: recipe, settings, source of the episodes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A recipe with its settings for one world.

    per_step: own episodes of one step, 0 where it learns from the store alone.
    offline: steps on the store before the first own episode. logs: own episodes, and the store beside them.
    """

    recipe: str
    settings: str
    per_step: int
    words: tuple[str, ...] = ()
    offline: int = 0
    logs: bool = False

    @property
    def needs_store(self) -> bool:
        return self.logs or self.offline > 0 or not self.per_step


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """How the start is made, how the store is filled, how a policy is judged and what counts as having learned.

    data_first: the start imitates the store; otherwise the store is filled with the start at hand.
    """

    start: tuple[str, ...]
    data: tuple[str, ...]
    threshold: float
    methods: dict[str, Method]
    judged: tuple[str, ...] = ()
    data_first: bool = False


OFFLINE = ("algorithm.offline_steps=100000",)
SAMPLED = "evaluation.temperature=1"
FROM_START = ("starts=initial", "~starts.source", "~starts.episodes", "~starts.pick")
EIGHT = ("world.options.lengths=[8]", "world.options.wording=compact")
WORLDS = {
    "maze": World(
        start=("sft.py", "text/maze_sft.yaml"),
        data=("collect.py", "text/maze_collect.yaml"),
        threshold=0.9,
        # The longest way has 12 moves; with 100 even a walker who strays mostly gets there.
        judged=(SAMPLED, "evaluation.max_turns=20"),
        methods={
            "grpo": Method(recipe="grpo.py", settings="text/maze_grpo.yaml", per_step=64),
            "ppo": Method(recipe="ppo.py", settings="text/maze_ppo.yaml", per_step=64),
            "filtered_bc": Method(recipe="filtered_bc.py", settings="text/maze_filtered.yaml", per_step=64),
            "digirl": Method(recipe="digirl.py", settings="text/maze_digirl.yaml", per_step=64),
            "digirl_released": Method(
                recipe="digirl.py",
                settings="text/maze_digirl.yaml",
                per_step=64,
                words=("algorithm.form=released",),
            ),
            "webrl": Method(recipe="webrl.py", settings="text/maze_webrl.yaml", per_step=64),
            "webrl_released": Method(
                recipe="webrl.py",
                settings="text/maze_webrl.yaml",
                per_step=64,
                words=("algorithm.form=released",),
            ),
            # The same update on five near starts that stay, and on the same five and what grows out of them.
            "webrl_fixed": Method(
                recipe="webrl.py",
                settings="text/maze_webrl.yaml",
                per_step=64,
                words=("world.options.seed_starts=5",),
            ),
            "webrl_evolving": Method(
                recipe="webrl.py",
                settings="text/maze_webrl.yaml",
                per_step=64,
                words=("world.options.seed_starts=5", "curriculum=evolving", "curriculum.every=2"),
            ),
            "archer": Method(recipe="archer.py", settings="text/maze_archer.yaml", per_step=32),
            "hnpg": Method(recipe="hnpg.py", settings="text/maze_hnpg.yaml", per_step=32, logs=True),
            "hnpg_own": Method(
                recipe="hnpg.py",
                settings="text/maze_hnpg.yaml",
                per_step=32,
                words=("~replay.stores", "algorithm.offline_weight=0", "algorithm.logged_states=0"),
            ),
            # The same updates and as many own episodes as "digirl", after ten steps on the walkers' store.
            "digirl_both": Method(
                recipe="digirl.py",
                settings="text/maze_digirl.yaml",
                per_step=64,
                words=("algorithm.offline_steps=10",),
                offline=10,
            ),
            "bc": Method(
                recipe="filtered_bc.py",
                settings="text/maze_filtered.yaml",
                per_step=0,
                words=(*OFFLINE, "algorithm.top_frac=1"),
            ),
            "filtered_bc_offline": Method(
                recipe="filtered_bc.py", settings="text/maze_filtered.yaml", per_step=0, words=OFFLINE
            ),
            "digirl_offline": Method(recipe="digirl.py", settings="text/maze_digirl.yaml", per_step=0, words=OFFLINE),
            "archer_offline": Method(
                recipe="archer.py",
                settings="text/maze_archer.yaml",
                per_step=0,
                words=(*OFFLINE, "algorithm.critic=iql", "algorithm.actor=awr", "algorithm.actor_updates=20"),
            ),
        },
    ),
    # Walks that stay in their part of the maze: only a method that joins them leaves the arms. Everybody acts by
    # sampling, as LMRL-Gym does; greedily, the walkers' 15% of optimal moves would be the mode of plain BC.
    "maze_parts": World(
        start=("sft.py", "text/maze_sft.yaml", "world.options.teacher_stays=true"),
        data=("collect.py", "text/maze_parts_collect.yaml"),
        threshold=0.9,
        methods={
            "bc": Method(
                recipe="filtered_bc.py",
                settings="text/maze_filtered.yaml",
                per_step=0,
                words=(*OFFLINE, "algorithm.top_frac=1", SAMPLED),
            ),
            "filtered_bc_offline": Method(
                recipe="filtered_bc.py",
                settings="text/maze_filtered.yaml",
                per_step=0,
                words=(
                    *OFFLINE,
                    "algorithm.score=success",
                    "algorithm.positive_only=true",
                    "algorithm.top_frac=1",
                    SAMPLED,
                ),
            ),
            "mc": Method(recipe="mc.py", settings="text/maze_mc.yaml", per_step=0, words=(SAMPLED,)),
            "ilql": Method(recipe="ilql.py", settings="text/maze_ilql.yaml", per_step=0, words=(SAMPLED,)),
        },
    ),
    # A policy that turns six dials in ten the right way, before a lock of twelve that opens for no wrong one.
    "lock": World(
        start=("sft.py", "text/lock_sft.yaml"),
        data=("collect.py", "text/lock_collect.yaml"),
        data_first=True,
        threshold=0.7,
        methods={
            "grpo": Method(
                recipe="grpo.py",
                settings="text/lock_grpo.yaml",
                per_step=64,
                words=FROM_START,
            ),
            "grpo_snapshots": Method(recipe="grpo.py", settings="text/lock_grpo.yaml", per_step=64),
            "grpo_own_snapshots": Method(
                recipe="grpo.py",
                settings="text/lock_grpo.yaml",
                per_step=64,
                words=("starts.source=own", "starts.episodes=10"),
            ),
        },
    ),
    # The same with eight dials, which such a policy opens once in sixty tries: one reward at the end of eight turns.
    # A state is one word: the methods are compared, not how soon a tiny model finds the dial in a sentence.
    "lock8": World(
        start=("sft.py", "text/lock_sft.yaml", *EIGHT),
        data=("collect.py", "text/lock_collect.yaml", *EIGHT),
        data_first=True,
        threshold=0.7,
        methods={
            "grpo": Method(recipe="grpo.py", settings="text/lock_grpo.yaml", per_step=64, words=(*EIGHT, *FROM_START)),
            "ppo": Method(recipe="ppo.py", settings="text/lock_ppo.yaml", per_step=64, words=EIGHT),
            "archer": Method(recipe="archer.py", settings="text/lock_archer.yaml", per_step=32, words=EIGHT),
            "archer_baseline": Method(
                recipe="archer.py",
                settings="text/lock_archer.yaml",
                per_step=32,
                words=(*EIGHT, "algorithm.baseline=token", "baseline.learning_rate=2e-3"),
            ),
        },
    ),
    # SmolLM2 on pages in a browser, from a few demonstrations. Judged greedily, as the demo is.
    "miniwob": World(
        start=("sft.py", "web/miniwob_sft.yaml"),
        data=("collect.py", "web/miniwob_collect.yaml"),
        threshold=0.7,
        methods={
            "grpo": Method(recipe="grpo.py", settings="web/miniwob_grpo.yaml", per_step=96),
            "ppo": Method(recipe="ppo.py", settings="web/miniwob_ppo.yaml", per_step=96),
            "filtered_bc": Method(recipe="filtered_bc.py", settings="web/miniwob_filtered.yaml", per_step=96),
            "digirl": Method(recipe="digirl.py", settings="web/miniwob_digirl.yaml", per_step=96),
            "webrl": Method(recipe="webrl.py", settings="web/miniwob_webrl.yaml", per_step=96),
            "archer": Method(recipe="archer.py", settings="web/miniwob_archer.yaml", per_step=96),
            "hnpg": Method(recipe="hnpg.py", settings="web/miniwob_hnpg.yaml", per_step=96, logs=True),
            "bc": Method(
                recipe="filtered_bc.py",
                settings="web/miniwob_filtered.yaml",
                per_step=0,
                words=(*OFFLINE, "algorithm.top_frac=1", "algorithm.positive_only=false"),
            ),
            "filtered_bc_offline": Method(
                recipe="filtered_bc.py", settings="web/miniwob_filtered.yaml", per_step=0, words=OFFLINE
            ),
            "digirl_offline": Method(recipe="digirl.py", settings="web/miniwob_digirl.yaml", per_step=0, words=OFFLINE),
            "mc": Method(recipe="mc.py", settings="web/miniwob_mc.yaml", per_step=0),
            "ilql": Method(recipe="ilql.py", settings="web/miniwob_ilql.yaml", per_step=0),
        },
    ),
}
