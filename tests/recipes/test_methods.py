"""Methods of `recipes/grpo.py`: what a preset sets, what it is called, which groups it leaves out, that it learns."""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rollwright.batching.credit import flatten, with_kl, with_members
from rollwright.batching.estimators import ADVANTAGES, DrGrpo, ReinforcePlusPlus, Rloo, estimator_needs
from rollwright.config import build, build_part, dump, help_text
from rollwright.contracts.environment import StepResult, episode_seed, fingerprint_kind
from rollwright.contracts.errors import ConfigError
from rollwright.contracts.record import Group, Span, StopReason, Task, Trajectory
from rollwright.envs.text.bandit import BanditEnvironment, BanditWorld
from rollwright.learner.method_presets import METHODS, method_name
from rollwright.maths.advantages import gigpo
from rollwright.maths.losses import LossCounts, constant_length, loss_denominator
from rollwright.recipes import grpo
from rollwright.recipes.grpo import AlgorithmSettings, GrpoConfig, num_episodes, those_that_teach
from rollwright.rollout.ledger import is_informative, met_again_frac
from rollwright.run_io.tracking import read_metrics
from rollwright.training.plan import plan_text
from rollwright.training.resumption import changed_keys
from tests import builders

TASK = Task(id="t", split="train")


class Measured(BanditEnvironment):
    """Pays for the length of the answer, so that a random policy's siblings differ."""

    def step(self, action: str) -> StepResult:
        super().step(action)
        return StepResult(observation="", reward=float(len(action) % 3), terminated=True, success=True)


class MeasuredWorld(BanditWorld):
    def make(self) -> Measured:
        return Measured(self)


def measured() -> MeasuredWorld:
    return MeasuredWorld(words=("apple", "pear", "plum", "fig"), pays="plum")


class ForgetfulWorld(MeasuredWorld):
    """Says that its fingerprints are whole histories."""

    name = "forgetful"
    fingerprint_kind = "history"


def forgetful() -> ForgetfulWorld:
    return ForgetfulWorld(words=("apple", "pear"), pays="pear")


SMALL = [
    *("world.name=test_methods:measured", "model.path=tiny", "model.tiny_hidden=32", "model.tiny_layers=1"),
    *("engine=transformers", "engine.dtype=float32", "learner.precision=float32", "learner.learning_rate=1e-3"),
    *("rollout.max_action_tokens=3", "rollout.history=0", "rollout.groups_per_step=3", "rollout.group_size=3"),
    *("evaluation.seeds_per_task=1", "run.steps=1"),
]


@pytest.fixture
def worlds(at_root: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worlds of this file can be named on a command line."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def run(folder: Path, *words: str) -> dict[str, Any]:
    """One short run; its first line of training."""
    grpo.main([*SMALL, f"run.folder={folder}", *words])
    return next(row for row in read_metrics(folder / "metrics.jsonl") if "optim/taught_count" in row)


def moved(folder: Path) -> float:
    """The largest change of a weight since the start."""
    before, after = (load_file(folder / part / "model.safetensors") for part in ("tiny_model", "policy"))
    return max(float((before[name] - after[name]).abs().max()) for name in before)


def episode(name: str, *rewards: float, tokens: int = 1, states: Sequence[str] = ()) -> Trajectory:
    keys = states or [f"s{i}" for i in range(len(rewards))]
    turns = [
        builders.turn(action=(2,) * tokens, reward=reward, logprobs=-0.5, text="go", state_key=key)
        for reward, key in zip(rewards, keys, strict=True)
    ]
    return builders.episode(name, *turns, task=TASK, seed=1)


def group(name: str, *returns: float) -> Group:
    return builders.group(*(episode(f"{name}/{i}", earned) for i, earned in enumerate(returns)), name=name)


# --- which groups are left out --------------------------------------------------------------------------------------

SOLVED, FAILED, MIXED = group("solved", 1, 1, 1), group("failed", 0, 0, 0), group("mixed", 1, 0, 0)


@pytest.mark.parametrize("advantage", tuple(ADVANTAGES.ours))
def test_only_estimators_that_compare_siblings_leave_equal_groups_out(advantage: str) -> None:
    """DAPO's preset drops; what it fills in must not reach an estimator to which an equal group says something."""
    algorithm = AlgorithmSettings(preset="dapo", advantage=advantage)
    compares = advantage not in ("reinforce", "reinforce++", "remax")
    assert compares == estimator_needs(advantage, "siblings")
    usable = with_members([SOLVED, FAILED, MIXED], algorithm.members)
    kept = [g.id for g in those_that_teach(usable, drops=algorithm.drops)]
    assert kept == (["mixed"] if compares else ["solved", "failed", "mixed"])
    assert algorithm.rounds == (10 if compares else 1)
    given = {"world": {"name": "text.bandit"}, "algorithm": {"advantage": advantage, "drop_equal_groups": True}}
    if compares:
        assert build(GrpoConfig, given).algorithm.drops
    else:
        with pytest.raises(ConfigError, match=r"`algorithm\.drop_equal_groups` has no effect with"):
            build(GrpoConfig, given)


def test_one_group_all_solved_and_one_all_failed_tell_reinforce_plus_plus_what_is_good() -> None:
    """Six tokens, returns 1 1 1 0 0 0: mean 0.5, unbiased variance 6 * 0.25 / 5 = 0.3, so 0.5 / sqrt(0.3) = 0.913."""
    algorithm = AlgorithmSettings(preset="reinforce++")
    batch = flatten(those_that_teach([SOLVED, FAILED], drops=algorithm.drops))
    wanted = [0.5 / math.sqrt(0.3)] * 3 + [-0.5 / math.sqrt(0.3)] * 3
    assert build_part(algorithm, "advantage")(batch).tolist() == pytest.approx(wanted, abs=1e-6)
    assert wanted[0] == pytest.approx(0.913, abs=5e-4)


def test_equal_is_what_the_estimators_call_equal() -> None:
    """What a guide earned before the policy's first turn counts in no advantage, so it tells nobody apart."""
    guided = Span(start=0, end=1, version=0, producer="guide")
    members = []
    for name, before, after in (("a", 5.0, 1.0), ("b", 0.0, 1.0), ("c", 0.0, 2.0)):
        whole = episode(name, before, after)
        members.append(replace(whole, turns=(replace(whole.turns[0], spans=(guided,)), whole.turns[1])))
    pair = Group(id="g", task=TASK, seed=1, trajectories=tuple(members[:2]))
    assert not is_informative(pair) and not DrGrpo()(flatten([pair])).any()
    assert is_informative(pair.with_trajectories(members))


@pytest.mark.usefixtures("worlds")
@pytest.mark.parametrize("advantage", ["reinforce", "reinforce++", "remax"])
def test_estimators_without_siblings_learn_from_groups_of_one(advantage: str, tmp_path: Path) -> None:
    words = ["rollout.group_size=1", "rollout.groups_per_step=8", f"algorithm.advantage={advantage}"]
    row = run(tmp_path, *words, "algorithm.kl_coef=0", "algorithm.aggregation=token-mean")
    assert row["optim/taught_count"] == 1 and "optim/skipped_count" not in row
    assert row["rollout/groups_informative_frac"] == 0 and moved(tmp_path) > 0


def test_dropped_groups_stay_in_the_constant_denominator() -> None:
    """L = 4, four sequences collected, two kept with losses [1, 1] and [2, 2, 2, 2]: 10 / (4 * 4), not 10 / (4 * 2)."""
    length = constant_length(4, collected=4, kept=2)
    kept = LossCounts(num_tokens=6, num_sequences=2, num_rows=2)
    assert 10 / loss_denominator([kept], "constant", max_length=length) == pytest.approx(0.625)
    whole = LossCounts(num_tokens=12, num_sequences=4, num_rows=4)
    assert loss_denominator([whole], "constant", max_length=4) == loss_denominator(
        [kept], "constant", max_length=length
    )
    # In minibatches of one sequence each: the two steps share out what the four would have been.
    single = LossCounts(num_tokens=3, num_sequences=1, num_rows=1)
    assert loss_denominator([single], "constant", max_length=length) == 8
    assert constant_length(7, collected=5, kept=5) == 7
    with pytest.raises(ValueError, match="0 of 4 sequences kept"):
        constant_length(4, collected=4, kept=0)


@pytest.mark.usefixtures("worlds")
def test_the_step_of_dr_grpo_is_the_same_whether_equal_groups_are_dropped_or_not(tmp_path: Path) -> None:
    """By the recipe itself, with the gradient that the learner reports: an equal group adds nothing and counts."""
    words = [
        "algorithm.preset=dr_grpo",
        "rollout.schedule=rounds",
        "rollout.groups_per_step=12",
        "rollout.group_size=2",
    ]
    kept = run(tmp_path / "kept", *words)
    dropped = run(tmp_path / "dropped", *words, "algorithm.drop_equal_groups=true")
    assert 0 < kept["rollout/groups_informative_frac"] < 1, "some groups must be equal, and some not"
    assert dropped["optim/grad_norm"] == pytest.approx(kept["optim/grad_norm"], rel=1e-4)
    assert kept["optim/grad_norm"] > 0


# --- what a preset sets ---------------------------------------------------------------------------------------------

PAPERS: dict[str, dict[str, Any]] = {
    "grpo": {"advantage": "grpo", "loss": "ppo", "aggregation": "seq-mean-token-mean", "kl_coef": 0.04, "drops": False},
    "dr_grpo": {"advantage": "dr_grpo", "loss": "ppo", "aggregation": "constant", "kl_coef": 0, "drops": False},
    "dapo": {"advantage": "grpo", "clip_high": 0.28, "aggregation": "token-mean", "kl_coef": 0, "drops": True},
    "gspo": {"loss": "gspo", "clip_low": 3e-4, "clip_high": 4e-4, "aggregation": "seq-mean-token-mean", "kl_coef": 0},
    "cispo": {"loss": "cispo", "clip_low": 10, "clip_high": 0.2, "aggregation": "token-mean", "kl_coef": 0},
    "rloo": {"advantage": "rloo", "loss": "reinforce", "aggregation": "seq-mean-token-sum", "kl_in_reward": 0.03},
    "reinforce++": {"advantage": "reinforce++", "clip_high": 0.2, "gamma": 1, "kl_coef": 0, "kl_in_reward": 0.01},
    "gigpo": {"advantage": "gigpo", "gamma": 0.95, "step_weight": 1, "gigpo_scale": "std", "kl_coef": 0.01},
}
NAMES = {
    "grpo": "GRPO (arXiv:2402.03300)",
    "dr_grpo": "Dr. GRPO (arXiv:2503.20783)",
    "dapo": "DAPO (arXiv:2503.14476)",
    "gspo": "GSPO (arXiv:2507.18071)",
    "cispo": "CISPO (arXiv:2506.13585)",
    "rloo": "RLOO (arXiv:2402.14740)",
    "reinforce++": "REINFORCE++ (arXiv:2501.03262)",
    "gigpo": "GiGPO (arXiv:2505.10978)",
}


def algorithm_of(**keys: Any) -> AlgorithmSettings:
    return build(GrpoConfig, {"world": {"name": "text.bandit"}, "algorithm": keys}).algorithm


@pytest.mark.parametrize("preset", METHODS)
def test_a_preset_is_what_its_paper_says_and_bears_its_name(preset: str) -> None:
    algorithm = algorithm_of(preset=preset)
    assert {key: getattr(algorithm, key) for key in PAPERS[preset]} == PAPERS[preset]
    assert algorithm.method == NAMES[preset]
    config = build(GrpoConfig, {"world": {"name": "text.bandit"}, "algorithm": {"preset": preset}})
    assert plan_text(config).startswith(f"method: {NAMES[preset]}\n")
    written = dump(config)
    again = GrpoConfig.model_validate(_loaded(written))
    assert again == config and dump(again) == written, "what is written down reads back as the same method"


def _loaded(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)


def test_the_defaults_are_those_of_the_default_preset() -> None:
    fields = AlgorithmSettings.model_fields
    assert fields["preset"].default == "grpo" and algorithm_of().method == NAMES["grpo"]
    shown = {key: fields[key].default for key in METHODS["grpo"].keys}
    assert shown == dict(METHODS["grpo"].keys), "--help would show other defaults than a run has"
    assert "algorithm.preset = grpo   (grpo | dr_grpo" in help_text(GrpoConfig)


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ({"kl_coef": 0.0}, "own mix: GRPO (arXiv:2402.03300), but kl_coef=0 (there 0.04)"),
        (
            {"preset": "dr_grpo", "aggregation": "token-mean", "drop_equal_groups": True},
            "own mix: Dr. GRPO (arXiv:2503.20783), but aggregation=token-mean (there constant), "
            "drop_equal_groups=true (there false)",
        ),
        ({"preset": "dapo", "dual_clip": 3.0}, "own mix: DAPO (arXiv:2503.14476), but dual_clip=3 (there null)"),
        # Away from its preset and onto another method: the run's own keys decide what it is.
        ({"advantage": "dr_grpo", "aggregation": "constant", "kl_coef": 0.0}, NAMES["dr_grpo"]),
        ({"preset": "gspo", "clip_low": 3e-4, "correction": "none", "min_groups": 4}, NAMES["gspo"]),
        ({"preset": "reinforce++", "kl_in_reward": 0.0, "kl_coef": 0.01}, None),
    ],
)
def test_a_run_says_what_it_is_or_what_it_mixes(keys: dict[str, Any], name: str | None) -> None:
    method = algorithm_of(**keys).method
    if name is None:
        assert method.startswith("own mix: REINFORCE++") and "kl_in_reward=0 (there 0.01)" in method
    else:
        assert method == name


def test_a_key_that_was_set_and_has_no_effect_is_an_error_under_a_preset_too() -> None:
    assert algorithm_of(preset="dapo", loss="reinforce").clip_high == 0.28
    with pytest.raises(ConfigError, match=r"`algorithm\.clip_high` has no effect with `algorithm\.loss=reinforce`"):
        algorithm_of(preset="dapo", loss="reinforce", clip_high=0.3)
    assert algorithm_of(preset="dapo", clip_high=0.3).clip_high == 0.3
    with pytest.raises(ConfigError, match=r"`clip_low=10` \(the preset's, set your own\)"):
        algorithm_of(preset="cispo", loss="ppo")


def test_a_run_of_before_the_presets_goes_on_under_one_with_the_same_keys() -> None:
    config = build(GrpoConfig, {"world": {"name": "text.bandit"}, "algorithm": {"preset": "dr_grpo"}})
    before = config.model_dump(mode="json")
    del before["algorithm"]["preset"], before["algorithm"]["kl_in_reward"]
    idle = {"gamma": 1.0, "gigpo_scale": "none", "step_weight": 1.0, "max_rounds": 1}  # as every run wrote them down
    before["algorithm"] |= idle
    assert changed_keys(before, config) == []
    assert changed_keys(before | {"algorithm": before["algorithm"] | {"aggregation": "token-mean"}}, config) == [
        "algorithm.aggregation"
    ]


def test_the_nearest_method_is_the_one_with_the_fewest_differences() -> None:
    assert method_name({**METHODS["gspo"].keys, "kl_coef": 0.1}, "grpo").startswith("own mix: GSPO")


# --- the KL inside the reward ---------------------------------------------------------------------------------------


def test_the_kl_inside_the_reward_is_k1_of_every_token() -> None:
    """Two answers of two tokens; beta 0.1 and log pi - log pi_ref of 0.5, -0.25 and 1, 0: rewards by hand."""
    pair = Group(id="g", task=TASK, seed=1, trajectories=(episode("a", 1.0, tokens=2), episode("b", 0.0, tokens=2)))
    batch = flatten([pair])
    old, reference = torch.tensor([-1.0, -1.0, -1.0, -1.0]), torch.tensor([-1.5, -0.75, -2.0, -1.0])
    with pytest.raises(ValueError, match="`logprobs_old` and `logprobs_ref`"):
        with_kl(batch, kl_coef=0.1)
    inside = with_kl(batch.with_columns(logprobs_old=old, logprobs_ref=reference), kl_coef=0.1)
    assert inside.rewards.tolist() == pytest.approx([-0.05, 1.025, -0.1, 0.0])
    assert inside.scores.tolist() == pytest.approx([0.975, -0.1])
    assert inside.turn_rewards.tolist() == pytest.approx([0.975, -0.1])
    # REINFORCE++: returns-to-go 0.975, 1.025, -0.1, 0, whitened over the four tokens.
    to_go = torch.tensor([0.975, 1.025, -0.1, 0.0])
    wanted = (to_go - to_go.mean()) / to_go.std()
    assert ReinforcePlusPlus()(inside).tolist() == pytest.approx(wanted.tolist(), abs=1e-5)
    # RLOO: the score of the answer less that of the other.
    assert Rloo()(inside).tolist() == pytest.approx([1.075, 1.075, -1.075, -1.075])
    assert batch.scores.tolist() == [1.0, 0.0], "the batch itself is as it was"


@pytest.mark.usefixtures("worlds")
@pytest.mark.parametrize("preset", METHODS)
def test_every_preset_runs_and_learns(preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = run(tmp_path, f"algorithm.preset={preset}", "learner.minibatches=2")
    assert f"method: {NAMES[preset]}" in capsys.readouterr().out
    assert row["optim/taught_count"] == 1 and moved(tmp_path) > 0
    assert ("policy/kl_ref_mean" in row) == (preset in ("grpo", "gigpo"))
    assert ("rollout/anchor_met_frac" in row) == (preset == "gigpo")


# --- GiGPO's anchors ------------------------------------------------------------------------------------------------


def test_the_share_of_anchors_that_are_met_again() -> None:
    """States s0 s1 s2 | s0 s1 | s0 of one group: s0 three times, s1 twice, s2 once: 5 of 6 turns meet another."""
    rows = [("s0", "s1", "s2"), ("s0", "s1"), ("s0",)]
    members = tuple(episode(str(i), *[0.0] * len(states), states=states) for i, states in enumerate(rows))
    together = Group(id="g", task=TASK, seed=1, trajectories=members)
    assert met_again_frac([together]) == pytest.approx(5 / 6)
    other = Group(id="h", task=TASK, seed=1, trajectories=(episode("x", 0.0, states=["s0"]),))
    assert met_again_frac([together, other]) == pytest.approx(5 / 7), "states are compared within their group only"
    assert met_again_frac([]) == 0


def test_the_share_of_anchors_counts_the_turns_that_gigpo_compares() -> None:
    """A guide's turns have states too, but no advantage."""
    by_a_guide = (Span(start=0, end=1, producer="guide", version=0),)
    members = [episode(str(i), 0.0, 1.0, states=("s0", f"s{i}")) for i in range(3)]
    shown = replace(members[0].turns[0], rewards={}, spans=by_a_guide, action_ids=(2,), action_logprobs=(0.0,))
    guided = replace(members[0], turns=(shown, shown, *members[0].turns))
    group = Group(id="g", task=TASK, seed=1, trajectories=(guided, *members[1:]))
    batch = flatten([group])
    keys = [turn.state_key for turn in batch.turns]
    found = gigpo(batch.turn_rewards, batch.trajectory_index, keys, batch.group_index, gamma=1.0, scale="none")
    assert met_again_frac([group]) == pytest.approx(1 - found.lone_frac) == pytest.approx(4 / 6)


@pytest.mark.usefixtures("worlds")
def test_anchors_that_are_whole_histories_are_said_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run(tmp_path / "seen", "algorithm.preset=gigpo")
        assert "whole histories" not in caplog.text
        row = run(tmp_path / "hidden", "algorithm.preset=gigpo", "world.name=test_methods:forgetful")
    assert "GiGPO's anchors in forgetful are whole histories" in caplog.text
    assert row["rollout/anchor_met_frac"] == 1.0, "with one turn an episode every turn is a first one"


@pytest.mark.parametrize(
    "name",
    [
        "maze",
        "guess_number",
        "navigation",
        "household",
        "combination_lock",
        "wordle",
        "twenty_questions",
        "car_dealer",
        "guess_city",
    ],
)
def test_a_world_says_that_its_anchors_are_histories_where_a_useless_action_makes_a_new_one(name: str) -> None:
    """Nothing moves in any of these worlds: in the same state the key is the same, in a history each action counts."""
    world = importlib.import_module(f"rollwright.envs.text.{name}").build()
    env = world.make()
    env.reset(world.tasks("train")[0], episode_seed("train", 0))
    keys = {env.fingerprint()}
    for _ in range(3):
        env.step("zzz")
        keys.add(env.fingerprint())
    env.close()
    assert len(keys) == {"state": 1, "history": 4}[fingerprint_kind(world)]


def test_learnable_episodes_are_counted_for_the_denominator() -> None:
    broken = Trajectory(id="f", task=TASK, seed=1, turns=(), stop_reason=StopReason.ENV_ERROR)
    assert num_episodes([MIXED, SOLVED.with_trajectories([*SOLVED.trajectories[:2], broken])]) == 5
