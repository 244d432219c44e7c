"""Mistakes in the words of every recipe: each is one paragraph that names the key, what it takes, and what to do."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from rollwright.contracts import Split, Task
from rollwright.envs.text import bandit
from tests.user_mistakes import told

ROOT = Path(__file__).resolve().parents[2]
YAML = ROOT / "recipes" / "text"
WORLD = ["world.name=text.maze", "model.path=tiny"]
LOOP = [*WORLD, "engine=transformers"]
ONLY_TRAIN = "tests.recipes.test_mistakes_of_recipes:OnlyTrain"

# recipe -> mistakes of it: the words, and what the message must have: key, expectation, nearest name or way out.
MISTAKES: dict[str, list[tuple[list[str], tuple[str, ...]]]] = {
    "grpo": [
        ([*LOOP, "algorithm.preset=gppo"], ("`algorithm.preset`", "dr_grpo", "Did you mean `gspo`?")),
        ([*LOOP, "algorithm.advantage=grp"], ("`algorithm.advantage`", "Did you mean `grpo`?")),
        ([*LOOP, "algorithm.advantage=mine_no:Adv"], ("`algorithm.advantage`", "no module `mine_no`", "start in")),
        ([*LOOP, "curriculum=bnad"], ("`curriculum.name`", "Did you mean `band`?")),
        ([*LOOP, "starts=snapshot"], ("`starts.name`", "initial | snapshots", "Did you mean `snapshots`?")),
        ([*LOOP, "learner.layout=flat"], ("`learner.layout`", "auto | tree | padded", "'flat'")),
        ([*LOOP, "evaluation.split=train"], ("`evaluation.split`", "validation | test", "'train'")),
        ([*LOOP, "model.path=empty"], ("`model.path`", "without config.json", "`policy` of a finished run")),
        ([*LOOP, "algorithm.clip_low=-1"], ("`algorithm.clip_low`", "> 0", "-1")),
        ([*LOOP, "learner=1e-6"], ("`learner`", "section of keys", "1e-06")),
        ([*LOOP, f"world.name={ONLY_TRAIN}"], ("`evaluation.split=validation`", "no tasks of that split", "train")),
        ([*LOOP, "~run.steps"], ("`~run.steps`", "nothing to remove")),
        (
            [str(YAML / "maze_sft.yaml")],
            ("unknown keys `data`, `sft`", "written for another recipe", "`maze_sft.yaml`"),
        ),
        ([str(YAML / "maze_ppo.yaml")], ("`algorithm.gae_lambda`", "`critic`", "another recipe")),
    ],
    "ppo": [
        ([*LOOP, "algorithm.lamda=0.9"], ("`algorithm.lamda`", "Did you mean `gae_lambda`?")),
        ([*LOOP, "algorithm.gamma=1.5"], ("`algorithm.gamma`", ">= 0, <= 1", "1.5")),
        ([*LOOP, "critic.learning_rate=-1"], ("`critic.learning_rate`", "> 0", "-1")),
        ([str(YAML / "maze_grpo.yaml")], ("`algorithm.preset`", "another recipe")),
    ],
    "sft": [
        (["model.path=tiny"], ("missing section `world`", "`world.name=...`")),
        ([*WORLD, "sft.epoch=2"], ("`sft.epoch`", "Did you mean `epochs`?")),
        ([*WORLD, "sft.learning_rate=.nan"], ("`sft.learning_rate`", "float > 0", "nan")),
        ([*WORLD, "data.per_task=0"], ("`data.per_task`", ">= 1", "got 0")),
        ([*WORLD, "data.stores=runs/a"], ("`data.stores`", "list of str", "Write a list: `data.stores=[runs/a]`")),
        ([*WORLD, "data.stores=[empty]"], ("`data.stores`", "no trajectory store", "recipes/collect.py")),
        ([*WORLD, "data.stores=[run]"], ("`data.stores`", "a run folder", "its store is 'run/trajectories'")),
        ([str(YAML / "maze_grpo.yaml")], ("`run.steps`", "`engine`", "`learner`", "another recipe")),
    ],
    "evaluate": [
        ([*LOOP, "evaluation.seed_per_task=3"], ("Did you mean `seeds_per_task`?",)),
        ([*LOOP, "evaluation.every=3"], ("`evaluation.every` is not read here", "Remove it")),
        ([*LOOP, "name=a/b"], ("`name` cannot be 'a/b'", "without a slash")),
        ([*LOOP, "run.folder=x"], ("unknown key `run`", "folder")),
        ([*WORLD, "engine=vlm"], ("`engine.name`", "Did you mean `vllm`?")),
        (
            [*LOOP, f"world.name={ONLY_TRAIN}", "evaluation.split=test"],
            ("`evaluation.split=test`", "no tasks of that split", "train"),
        ),
    ],
    "collect": [
        (
            [*LOOP, "collect.by=random", "collect.random_frac=0.5"],
            ("`collect.random_frac` has no effect with `collect.by=random`", "only with teacher", "Remove it"),
        ),
        ([*LOOP, "collect.per_task=many"], ("`collect.per_task`", "int >= 1", "'many'")),
        ([*LOOP, "reward=judg"], ("`reward`", "section", "Did you mean `reward.name=judg`?")),
        ([*LOOP, "run.folder=file"], ("`run.folder`", "is a file", "name a folder")),
        ([*LOOP, "world.options.variant=[fo]"], ("`world.options`", "`variant`")),
    ],
    "demo": [
        (["step=3"], ("`step`", "Did you mean `steps`?")),
        (["steps=0"], ("`steps`", ">= 1")),
        (["folder=file/x"], ("`folder`", "is a file", "`folder=runs/mine`")),
        (["max_minutes=soon"], ("`max_minutes`", "float > 0", "'soon'")),
    ],
    "rlgf": [
        (LOOP, ("RLGF needs a guide", "`actor.guide` is none")),
        ([*LOOP, "actor=teacher", "algorithm.beta=1.2"], ("`algorithm.beta`", "<= 1", "1.2")),
        ([*LOOP, "actor=teacher", "actor.guide_frac=0.5"], ("`actor.guide_frac` is not read here", "Remove it")),
        ([*LOOP, "actor=teacher", "algorithm.switch_step=3"], ("`algorithm.switch_step` has no effect", "d2lols")),
        ([*LOOP, "actor=store", "actor.store=nowhere"], ("`actor.store`", "'nowhere'", "does not exist")),
        ([*LOOP, "actor=model", "actor.model=nowhere/x/y"], ("`actor.model`", "no model folder is there")),
    ],
    "constrained": [
        (LOOP, ("`constraint.cost` is empty", "recipes/ppo.py")),
        ([*LOOP, "constraint=hazard", "constraint.rate=0"], ("`constraint.rate`", "> 0")),
        ([*LOOP, "constraint=hazard", "constraint.initial=9"], ("`constraint.initial=9`", "`constraint.most=5`")),
        ([*LOOP, "constraint=hazard", "algorithm.advantage=rloo"], ("`algorithm.advantage` has no effect", "critics")),
        (
            [*LOOP, "constraint=hazard", "algorithm.critics=false", "algorithm.advantage=remax"],
            ("`algorithm.advantage=remax`", "rloo or dr_grpo"),
        ),
        ([*LOOP, "constraint.costs=hazard"], ("Did you mean `cost`?",)),
    ],
    "satori": [
        ([*LOOP, "starts=restarts", "starts.frac=1.5"], ("`starts.frac`", "<= 1", "1.5")),
        ([*LOOP, "algorithm.gae_lambd=1"], ("Did you mean `gae_lambda`?",)),
    ],
    "score": [
        ([*LOOP, "algorithm.bonus=-1"], ("`algorithm.bonus`", ">= 0")),
        ([*LOOP, "algorithm.stage_one_step=3"], ("Did you mean `stage_one_steps`?",)),
    ],
    "distill": [
        ([*LOOP, "distill.teacher=model"], ("`distill", "`teacher=model` needs `path`")),
        ([*LOOP, "distill.hint_from=world"], ("distill.hint_from=world", "text.maze", "`hint(task)`")),
        ([*LOOP, "distill.hint=x"], ("`distill.hint` has no effect", "Remove it")),
        ([*LOOP, "algorithm.form=full", "distill.teacher=script"], ("sampled token alone", "algorithm.form=sampled")),
        ([*LOOP, "algorithm.rl_to=1", "rollout.group_size=1"], ("`rollout.group_size` is 1", "2 or more")),
        ([*LOOP, "rollout.max_staleness=1"], ("older weights", "Set it to 0")),
        ([*LOOP, "algorithm.top_k=9"], ("`algorithm.top_k` has no effect", "Remove it")),
    ],
    "reasoner": [
        ([*LOOP, "algorithm.phase_one_steps=0"], ("`algorithm.phase_one_steps`", ">= 1", "got 0")),
        ([*LOOP, "search.rule=beam"], ("`search.rule`", "puct", "beam")),
        ([*LOOP, "search.value=rollouts"], ("`search.value`", "the value model in phase 2")),
        ([*LOOP, "search.temperature=0.5"], ("`search.temperature`", "rollout.temperature")),
        ([*LOOP, "algorithm.rollouts=4"], ("`algorithm.rollouts", "phase_one_rule")),
        ([*LOOP, "critic.width=0"], ("`critic.width`", "0")),
    ],
    "agent_r": [
        ([*LOOP, "algorithm.alphas=[0.5, 1.2]"], ("`algorithm", "alphas=[0.5, 1.2]", "within [0, 1]")),
        ([*LOOP, "algorithm.beta=-0.2"], ("`algorithm.beta`", ">= 0", "-0.2")),
        ([*LOOP, "algorithm.threshold=above"], ("no score lies above 1", "at_least")),
        ([*LOOP, "algorithm.verifer=value"], ("Did you mean `verifier`?",)),
        (LOOP, ("`algorithm.revise=message`", "text.maze", "`algorithm.wait`", "algorithm.revise=none")),
        ([*LOOP, "algorithm.wait=wait", "rollout.history=0"], ("rollout.history to 1", "algorithm.revise=none")),
        ([*LOOP, "algorithm.wait=wait", "algorithm.revision=oh {thought}"], ("`algorithm.revision", "{wait}")),
        ([*LOOP, "algorithm.revise=none", "algorithm.general_frac=0.2"], ("set both, or none",)),
        ([*LOOP, "algorithm.revise=none", "search.rule='off'"], ("search.rule=off", "uct")),
        (
            ["world.name=text.household", "model.path=tiny", "engine=transformers", "algorithm.verifier=world"],
            ("`algorithm.verifier=world`", "text.household", "verifier=value"),
        ),
    ],
    "archer": [
        ([*LOOP, "algorithm.actor_update=3"], ("Did you mean `actor_updates`?",)),
        ([*LOOP, "critic.loss=mse"], ("`critic.loss`", "'mse'")),
        ([str(YAML / "maze_digirl.yaml")], ("`instruction_critic`", "another recipe")),
    ],
    "digirl": [
        ([*LOOP, "algorithm.offline_steps=1"], ("`algorithm.offline_steps=1`", "name some in `replay.stores`")),
        ([*LOOP, "replay.stores=[nowhere]"], ("`replay.stores`", "'nowhere'", "does not exist")),
        ([*LOOP, "algorithm.top_frac=2"], ("`algorithm.top_frac`", "<= 1", "got 2")),
    ],
    "webrl": [
        ([*LOOP, "algorithm.form=relesed"], ("`algorithm.form`", "Did you mean `released`?")),
        ([*LOOP, "algorithm.beta=-1"], ("`algorithm.beta`", "> 0")),
    ],
    "filtered_bc": [
        ([*LOOP, "algorithm.top_frac=0"], ("`algorithm.top_frac`", "> 0, <= 1")),
        ([*LOOP, "algorithm.positive=true"], ("`algorithm.positive`", "Did you mean `positive_only`?")),
    ],
    "hnpg": [
        ([*LOOP, "rollout.group_size=0"], ("`rollout.group_size`", ">= 1")),
        ([*LOOP, "algorithm.offline_wieght=1"], ("Did you mean `offline_weight`?",)),
    ],
    "ilql": [
        (LOOP, ("`replay.stores` is empty", "recipes/collect.py writes stores")),
        ([*LOOP, "algorithm.expectile=1.5"], ("`algorithm.expectile`", "> 0, < 1")),
        ([*LOOP, "curriculum=band"], ("`curriculum", "not read here", "Remove it")),
    ],
    "mc": [
        (LOOP, ("`replay.stores` is empty",)),
        ([*LOOP, "algorithm.expectile=0.9"], ("`algorithm.expectile`", "Keys here")),
        ([*LOOP, "algorithm.beta=abc"], ("`algorithm.beta`", "float >= 0", "'abc'")),
    ],
    "outcome": [
        ([], ("replay.stores", "name some")),
        (["data.held_out_frac=1.5"], ("`data.held_out_frac`", "< 1")),
        (["fit.batch_sise=4"], ("Did you mean `batch_size`?",)),
        (["replay.stores=[one]"], ("`replay.stores`", "without episodes", "recipes/collect.py")),
    ],
    "reward_pairs": [
        (["replay.stores=[empty]"], ("`replay.stores`", "no trajectory store")),
        (["data.per_sucess=4"], ("Did you mean `per_success`?",)),
    ],
    "inverse_dynamics": [
        (WORLD, ("data.stores", "data.logs")),
        ([*WORLD, "label.treshold=0.5"], ("Did you mean `threshold`?",)),
        ([*WORLD, "label.threshold=2"], ("`label.threshold`", "<= 1")),
    ],
    "return_conditioned": [
        (LOOP, ("replay.stores", "name some")),
        ([*LOOP, "algorithm.target=[1]"], ("Did you mean `targets`?",)),
        ([*LOOP, "algorithm.levels=0"], ("`algorithm.levels`", ">= 2")),
    ],
}
CASES = [(recipe, words, parts) for recipe, mistakes in MISTAKES.items() for words, parts in mistakes]


class OnlyTrain(bandit.BanditWorld):
    """A world whose tasks are all for training."""

    def __init__(self) -> None:
        super().__init__(words=("yes", "no"), pays="yes")

    def tasks(self, split: Split) -> Sequence[Task]:
        return super().tasks(split) if split == "train" else []


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with some things to name rightly and wrongly."""
    folder = tmp_path_factory.mktemp("words")
    (folder / "file").write_text("a file")
    (folder / "empty").mkdir()
    for store in ("one", "run/trajectories"):
        for table in ("trajectories", "turns"):
            (folder / store / table).mkdir(parents=True)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("recipe", "words", "parts"), CASES, ids=[f"{r}-{w[-1] if w else 'bare'}" for r, w, _ in CASES]
)
def test_a_mistake_is_one_paragraph(
    recipe: str,
    words: list[str],
    parts: tuple[str, ...],
    things: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(things)
    monkeypatch.delenv("ROLLWRIGHT_DEBUG", raising=False)
    module = importlib.import_module(f"rollwright.recipes.{recipe}")
    key = "folder" if recipe in ("evaluate", "demo") else "run.folder"
    place = [] if any(word.startswith(f"{key}=") for word in words) else [f"{key}=out/run"]
    said = told(module, [*words, *place], monkeypatch, capsys)
    assert not [part for part in parts if part not in said], said


def test_every_recipe_has_mistakes_here() -> None:
    recipes = {file.stem for file in (ROOT / "recipes").glob("[a-z]*.py")}
    assert set(MISTAKES) >= recipes and sum(map(len, MISTAKES.values())) >= 50
