"""The page on one's own parts stays true: each of them runs from a folder outside the repository, wrong ones are told.

Every block of code of the page is saved under the name that stands above it; the block of YAML behind it names it.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml

from rollwright.batching import ADVANTAGES, VALUE_ADVANTAGES
from rollwright.batching.estimator_trials import small_batch, try_advantage, try_value_advantage
from rollwright.config import Config, Parts, build, help_text, make_part
from rollwright.config.named_parts import keys_of_parts
from rollwright.config.part_builder import load_part
from rollwright.config.schema import section_of
from rollwright.contracts import StepResult
from rollwright.critics import RegressedCriticFit, TokenCriticFit, TurnCriticFit, squared_error
from rollwright.critics.open_critics import losses_of
from rollwright.curriculum import CurriculumSettings
from rollwright.envs.text.bandit import BanditEnvironment, BanditWorld
from rollwright.generation import EngineSettings
from rollwright.learner import LOSSES, PolicyLossSettings, objective_of
from rollwright.learner.policy_losses import small_tokens, try_loss
from rollwright.maths import advantages as adv
from rollwright.maths.losses import PpoClip, policy_loss
from rollwright.recipes import grpo, ppo
from rollwright.run_io.tracking import read_metrics
from rollwright.training import run_recipe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"`(\w+)\.py`:\n\n```python\n(.*?)```\n\n```yaml\n(.*?)```", re.DOTALL)
MOST_LINES = 30
SMALL = [
    *("model.path=tiny", "model.tiny_hidden=32", "model.tiny_layers=1", "engine=transformers", "engine.dtype=float32"),
    *("learner.precision=float32", "learner.learning_rate=1e-3", "learner.minibatches=2", "rollout.history=0"),
    *("rollout.max_action_tokens=3", "rollout.groups_per_step=3", "rollout.group_size=3", "rollout.max_turns=1"),
    *("evaluation.seeds_per_task=1", "run.steps=2", "run.transcripts_every=0"),
]


class Shown(NamedTuple):
    """One part of the page."""

    code: str
    settings: str


SHOWN = {name: Shown(code, settings) for name, code, settings in BLOCK.findall(PAGE)}


class Measured(BanditEnvironment):
    """Pays for the length of the answer, so that a random policy's siblings differ."""

    def step(self, action: str) -> StepResult:
        super().step(action)
        length = len(action) % 3
        return StepResult(observation="", reward=float(length), terminated=True, success=length > 0)


class MeasuredWorld(BanditWorld):
    """Four words, of which none has to be known."""

    def make(self) -> Measured:
        return Measured(self)


def measured() -> MeasuredWorld:
    return MeasuredWorld(words=("apple", "pear", "plum", "fig"), pays="plum")


@pytest.fixture
def elsewhere(at_root: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of a user's own on the import path, with the files of the page in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, shown in SHOWN.items():
        (tmp_path / f"{name}.py").write_text(shown.code, encoding="utf-8")
        (tmp_path / f"{name}.yaml").write_text(shown.settings, encoding="utf-8")
    yield tmp_path
    for name in (*SHOWN, "wrong"):
        sys.modules.pop(name, None)


def words_for(name: str, folder: Path) -> list[str]:
    """A short run with the part of the page."""
    world = [] if name == "echo" else ["world.name=test_extending:measured"]
    return [*SMALL, *world, f"{name}.yaml", f"run.folder={folder}"]


def recipe_of(name: str) -> Any:
    return ppo if SHOWN[name].settings.startswith("# of recipes/ppo.py") else grpo


def attribute_of(name: str) -> Any:
    """The class that the settings name."""
    return getattr(importlib.import_module(name), re.findall(rf"{name}:(\w+)", SHOWN[name].settings)[0])


def test_every_kind_is_shown_in_few_lines() -> None:
    kinds = {key for shown in SHOWN.values() for section in yaml.safe_load(shown.settings).items() for key in [
        f"{section[0]}.{next(iter(section[1]))}"
    ]}  # fmt: skip
    assert kinds == {
        *("world.name", "reward.name", "algorithm.advantage", "algorithm.loss", "curriculum.name", "engine.name"),
        "critic.loss",
    }
    lengths = {name: sum(bool(line.strip()) for line in shown.code.splitlines()) for name, shown in SHOWN.items()}
    assert len(SHOWN) == 8 and not {name: n for name, n in lengths.items() if n > MOST_LINES}


CALLED = {"median": "__call__", "monte_carlo": "__call__", "soft_clip": "__call__", "huber": "__call__",
          "ladder": "next", "brief": "score", "echo": "make", "diary": "generate"}  # fmt: skip


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_each_part_of_the_page_runs_by_configuration_alone(
    name: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, calls = attribute_of(name), []
    method = getattr(part, CALLED[name])

    def watched(self: Any, *args: Any, **words: Any) -> Any:
        calls.append(args)
        return method(self, *args, **words)

    monkeypatch.setattr(part, CALLED[name], watched)
    recipe_of(name).main(words_for(name, elsewhere / "run"))
    steps = [row for row in read_metrics(elsewhere / "run" / "metrics.jsonl") if "optim/taught_count" in row]
    assert len(steps) == 2 and len(calls) > 2, "a trial and a step each at least"
    written = yaml.safe_load((elsewhere / "run" / "config.yaml").read_text(encoding="utf-8"))
    for section, keys in yaml.safe_load(SHOWN[name].settings).items():
        assert {key: written[section][key] for key in keys} == keys
    if name in ("median", "soft_clip"):
        assert steps[0]["optim/grad_norm"] > 0
    if name == "ladder":
        assert {row["curriculum/height_count"] for row in steps} <= {1.0, 2.0, 3.0}
    if name == "diary":
        assert (elsewhere / "answers.txt").read_text(encoding="utf-8").count("\n") >= 18


def end_of(recipe: Any, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What a start says that ends in exit code 2."""
    monkeypatch.setattr(sys, "argv", ["recipe", *words])
    with pytest.raises(SystemExit) as ended:
        run_recipe(lambda: recipe.main(None))
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said.count("rollwright: ") == 1 and "Traceback" not in said and "\n\n" not in said
    return said[said.index("rollwright: ") :]


KEYS = {name: next(iter(yaml.safe_load(shown.settings).items())) for name, shown in SHOWN.items()}
MISSPELT = {"echo": "wrods", "brief": "prise", "median": "sacle", "monte_carlo": "gama", "soft_clip": "widht",
            "ladder": "sloved", "diary": "fiel", "huber": "dleta"}  # fmt: skip


def key_of(name: str) -> tuple[str, str, str]:
    """Dotted key of the part, of its options, and the option that the page sets."""
    section, keys = KEYS[name]
    named, options = list(keys)
    return f"{section}.{named}", f"{section}.{options}", next(iter(keys[options]))


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_wrong_options_and_names_end_in_one_paragraph(
    name: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, recipe = elsewhere / "never", recipe_of(name)
    key, options, option = key_of(name)
    base, attribute = words_for(name, folder), attribute_of(name).__name__
    said = end_of(recipe, [*base, f"{options}.{MISSPELT[name]}=1"], monkeypatch, capsys)
    assert f"takes no option `{MISSPELT[name]}`. Did you mean `{option}`?" in said and f"`{options}`" in said
    said = end_of(recipe, [*base, f"{options}.{option}=[1, 2]"], monkeypatch, capsys)
    assert f"the option `{option}` must be" in said and "got [1, 2]" in said
    said = end_of(recipe, [*base, f"{key}={name}:{attribute[:-1]}"], monkeypatch, capsys)
    assert f"module `{name}` has no callable `{attribute[:-1]}`. Did you mean `{name}:{attribute}`?" in said
    said = end_of(recipe, [*base, f"{key}=no_such:{attribute}"], monkeypatch, capsys)
    assert "there is no module `no_such` on the import path" in said and f"`{key}`" in said
    assert not folder.exists()


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_an_object_that_breaks_the_contract_is_refused_before_anything_is_written(
    name: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "wrong.py").write_text("class Nothing:\n    def __init__(self, **options): pass\n", encoding="utf-8")
    key, _, _ = key_of(name)
    words = [*words_for(name, elsewhere / "never"), f"{key}=wrong:Nothing"]
    said = end_of(recipe_of(name), words, monkeypatch, capsys)
    assert f"`{key}`" in said and "breaks its contract" in said and not (elsewhere / "never").exists()


WRONG = {
    "median": ("def __call__(self, batch): return batch.scores", "one number per action token, [24], got [4]"),
    "monte_carlo": ("def __call__(self, batch, values, last_values=None): return values", "must give ValueAdvantages"),
    "soft_clip": (
        "def __call__(self, t, weights=None): return PolicyLoss(losses=t.advantages, ratio=t.mask, clipped=t.mask)",
        "must carry the gradient",
    ),
    "huber": ("def __call__(self, values, targets, old): return (values - targets).mean()", "one loss per value, [4]"),
    "ladder": ("def next(self, step, count): return self.tasks", "`next(0, 3)` must give 3 tasks"),
    "diary": ("generate = None", "has no `generate`"),
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_answers_of_the_wrong_form_are_found_on_a_small_example(
    name: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line, expected = WRONG[name]
    attribute = attribute_of(name).__name__
    text = f"from {name} import *\nfrom {name} import {attribute} as Base\n\n\nclass Wrong(Base):\n    {line}\n"
    (elsewhere / "wrong.py").write_text(text, encoding="utf-8")
    key, _, _ = key_of(name)
    words = [*words_for(name, elsewhere / "never"), f"{key}=wrong:Wrong"]
    said = end_of(recipe_of(name), words, monkeypatch, capsys)
    assert expected in said and "docs/extending.md" in said and not (elsewhere / "never").exists()


def test_rounds_are_refused_for_an_engine_that_takes_single_requests(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*words_for("diary", elsewhere / "never"), "rollout.schedule=rounds"]
    said = end_of(grpo, words, monkeypatch, capsys)
    assert "needs an engine that takes whole batches, and `engine.name=diary:Diary` does not" in said
    assert not (elsewhere / "never").exists()


def test_help_and_plan_show_the_options_of_a_part(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for word, expected in (
        ("--help", "algorithm.advantage_options: of advantage estimator median:AgainstMedian. The return against the"),
        ("--help", "  algorithm.advantage_options.scale = 1.0   (float > 0)"),
        ("--plan", "algorithm.advantage: median:AgainstMedian(scale=2.0)"),
    ):
        with pytest.raises(SystemExit) as ended:
            grpo.main([*words_for("median", elsewhere / "never"), word])
        assert ended.value.code == 0 and expected in capsys.readouterr().out
    assert "algorithm.advantage = grpo   (grpo | dr_grpo" in help_text(grpo.GrpoConfig)
    assert "gigpo | package.module:Attribute)" in help_text(grpo.GrpoConfig)
    assert not (elsewhere / "never").exists()


# --- ours, by the same doors ---------------------------------------------------------------------------------------


def sections(cls: type[Config], prefix: str = "") -> Iterator[tuple[str, type[Config]]]:
    """Every section of a configuration, with its dotted name."""
    yield prefix, cls
    for name, field in cls.model_fields.items():
        section = section_of(field.annotation)
        if section:
            yield from sections(section, f"{prefix}{name}.")


def named_keys() -> Iterator[tuple[type[Config], str, Parts]]:
    for recipe in (grpo.GrpoConfig, ppo.PpoConfig):
        for _, section in sections(recipe):
            yield from ((section, key, parts) for key, parts in keys_of_parts(section.model_fields))


def test_every_word_of_ours_is_there_and_reads_the_keys_that_its_section_says() -> None:
    """`only_for` says of each key which parts read it; their signatures say it too, and the two agree."""
    seen = set()
    for section, key, parts in named_keys():
        assert parts.options in section.model_fields
        readers: dict[str, set[str]] = {}
        for name in parts.ours:
            for option in inspect.signature(load_part(parts, name)).parameters:
                if option in section.model_fields and option not in parts.given:
                    readers.setdefault(option, set()).add(name)
        for option, names in readers.items():
            said = section.only_for.get(option, {}).get(key)
            if parts.what != "engine" and names != set(parts.ours):
                assert said is not None and names <= set(said), (section.__name__, option)
        seen.add(parts.what)
    assert seen == {"advantage estimator", "policy loss", "curriculum", "engine", "critic loss", "overseer"}


def test_estimators_by_name_are_the_functions_of_the_maths() -> None:
    batch = small_batch()
    grouped, token = batch.group_index, batch.sequence_index
    direct = {
        "grpo": adv.grpo(batch.scores, grouped, eps=1e-6)[token],
        "dr_grpo": adv.dr_grpo(batch.scores, grouped)[token],
        "rloo": adv.rloo(batch.scores, grouped)[token],
        "opo": adv.opo(batch.scores, batch.lengths, grouped)[token],
        "pass@k": adv.pass_at_k_advantages(batch.scores, grouped)[token],
        "reinforce": adv.reinforce(batch.rewards, token, num_sequences=4, gamma=0.9),
        "reinforce++": adv.reinforce_plus_plus(batch.rewards, token, num_sequences=4, gamma=0.9),
        "reinforce++baseline": adv.reinforce_plus_plus_baseline(batch.rewards, token, grouped, num_sequences=4),
    }
    for name, expected in direct.items():
        assert torch.equal(make_part(ADVANTAGES, name, {"gamma": 0.9})(batch), expected), name
    for name in ADVANTAGES.ours:
        try_advantage(make_part(ADVANTAGES, name, {}))
    for name in VALUE_ADVANTAGES.ours:
        try_value_advantage(make_part(VALUE_ADVANTAGES, name, {}))
    values = torch.linspace(-1, 1, len(token))
    found = make_part(VALUE_ADVANTAGES, "gae", {"gamma": 0.9, "gae_lambda": 0.8})(batch, values)
    expected = adv.gae(batch.rewards, values, token, num_sequences=4, gamma=0.9, gae_lambda=0.8, last_values=None)
    assert torch.equal(found.advantages, expected.advantages) and torch.equal(found.returns, expected.returns)


def test_losses_by_name_are_the_function_of_the_maths() -> None:
    levels = {"ppo": "token", "gspo": "sequence", "gspo_token": "sequence_token", "rloo_sequence": "sequence_sum"}
    for name in LOSSES.ours:
        try_loss(make_part(LOSSES, name, {}))
    for name, level in levels.items():
        settings = build(PolicyLossSettings, {"loss": name, "clip_low": 0.02, "clip_high": 0.03})
        tokens = small_tokens()
        found = objective_of(settings).loss(tokens, None)
        columns = (tokens.logprobs, tokens.logprobs_old, tokens.advantages, tokens.mask, tokens.sequence_index)
        clip = PpoClip(low=0.02, high=0.03)
        wanted = policy_loss(*columns, num_sequences=2, level=level, clip=clip)  # type: ignore[arg-type]
        assert torch.equal(found.losses, wanted.losses) and torch.equal(found.clipped, wanted.clipped)
        assert found.clipped.any(), "the small example tells clipped from free tokens"


def test_a_critic_loss_stands_in_for_the_squared_error_of_turns_and_for_nothing_else(elsewhere: Path) -> None:
    ours = losses_of(RegressedCriticFit(), ["q", "v"], {"v": torch.minimum})
    assert ours == {"q": squared_error, "v": torch.minimum}
    assert losses_of(TurnCriticFit(), ["q"], {}) == {"q": squared_error}
    fit = build(RegressedCriticFit, {"loss": "huber:Huber", "loss_options": {"delta": 0.5}})
    theirs = losses_of(fit, ["q", "v"], {"v": torch.minimum})
    values, targets = torch.tensor([[0.0, 2.0], [0.25, 0.0]]), torch.zeros(2, 2)
    assert theirs["v"] is torch.minimum
    assert theirs["q"](values, targets).tolist() == [[0.0, 0.875], [0.03125, 0.0]]  # 0.5 (2 - 0.25); 0.25^2 / 2


def test_options_beside_a_part_of_ours_are_refused() -> None:
    for section, values in (
        (CurriculumSettings, {"name": "band", "options": {"a": 1}}),
        (EngineSettings, {"name": "transformers", "options": {"a": 1}}),
        (TokenCriticFit, {"loss": "squared", "loss_options": {"a": 1}}),
        (PolicyLossSettings, {"loss": "ppo", "loss_options": {"a": 1}}),
    ):
        with pytest.raises(Exception, match="no effect with"):
            build(section, values)
