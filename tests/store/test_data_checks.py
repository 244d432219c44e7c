"""What recipes refuse to learn from, and what they must not refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from torch import nn

from rollwright.config import load_config
from rollwright.contracts.errors import ConfigError, DataError
from rollwright.contracts.record import StopReason, Task, Trajectory
from rollwright.critics.outcome_values import outcomes
from rollwright.models.codec import ChatCodec
from rollwright.models.loading import load_policy
from rollwright.models.tiny_model import make_tiny_model
from rollwright.recipes import archer, digirl, filtered_bc, hnpg, ilql, mc, webrl
from rollwright.store.data_checks import require_outcomes, require_own_tokens, require_turns
from rollwright.store.replay import TurnTable, valid_turns
from tests import builders

Ids = tuple[int, ...]


def episode(
    name: str,
    action: Ids = (7, 8),
    *,
    text: str = "",
    reward: float = 0.0,
    success: bool | None = None,
    **changes: object,
) -> Trajectory:
    turn = builders.turn((5, 6), action, reward, text=text)
    return replace(builders.episode(name, turn, success=success), **changes)  # type: ignore[arg-type]


def table_of(folder: Path, *episodes: Trajectory) -> TurnTable:
    return builders.table_of(folder, *episodes, may_be_empty=True)


# Something to learn from


def test_nothing_that_tells_good_from_bad_is_refused(tmp_path: Path) -> None:
    flat = table_of(tmp_path / "flat", *(episode(str(k), success=False) for k in range(3)))
    with pytest.raises(DataError, match=r"all 3 trajectories .* no reward at all"):
        require_outcomes(flat, valid_turns(flat))
    with pytest.raises(DataError, match="the outcome 0:"):
        require_outcomes(flat, valid_turns(flat), outcomes(flat))


def test_what_counts_is_the_score_that_is_used(tmp_path: Path) -> None:
    """Verdicts without rewards teach a method of verdicts; rewards that differ between failures do not."""
    judged = table_of(tmp_path / "judged", episode("a", success=True), episode("b", success=False))
    require_outcomes(judged, valid_turns(judged), outcomes(judged))
    with pytest.raises(DataError, match="no reward at all"):
        require_outcomes(judged, valid_turns(judged))
    lost = table_of(tmp_path / "lost", *(episode(str(k), reward=-float(k), success=False) for k in (3, 9)))
    require_outcomes(lost, valid_turns(lost))
    with pytest.raises(DataError, match="the outcome 0:"):
        require_outcomes(lost, valid_turns(lost), outcomes(lost))


def test_a_store_without_a_turn_to_train_on_says_why(tmp_path: Path) -> None:
    held_out = episode("a", task=Task(id="t", split="test"))
    broken = episode("b", stop_reason=StopReason.ENV_ERROR)
    table = table_of(tmp_path / "s", held_out, broken)
    with pytest.raises(DataError, match=r"none of 2 stored trajectories .* 1 are of a held-out split.* 1 broke"):
        require_turns(table, valid_turns(table))
    with pytest.raises(DataError, match="none of 2"):
        require_outcomes(table, valid_turns(table))


@pytest.mark.parametrize("success", [True, False])
def test_filtered_bc_asks_for_something_to_imitate(tmp_path: Path, success: bool) -> None:
    """Successes alone are fine where only successes are imitated; failures alone leave nothing."""
    table = table_of(tmp_path / "s", *(episode(str(k), success=success) for k in range(3)))
    settings = filtered_bc.AlgorithmSettings(score="success", positive_only=True, offline_steps=1)
    if success:
        filtered_bc.require_a_choice(table, settings)
        return
    with pytest.raises(DataError, match="none of the stored episodes succeeded"):
        filtered_bc.require_a_choice(table, settings)


# Somebody else's tokens


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> tuple[ChatCodec, nn.Module]:
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny_model(folder, texts=["up down left right"], hidden=32, layers=1)
    policy, tokenizer = load_policy(folder, "float32")
    return ChatCodec(tokenizer), policy


def test_own_tokens_are_taken(tmp_path: Path, mine: tuple[ChatCodec, nn.Module]) -> None:
    codec, policy = mine
    own = [episode(word, codec.encode_action(word), text=word) for word in ("up", "down", "left")]
    odd = episode("odd", codec.encode_action("right"), text="a word that decodes otherwise")
    silent = [episode(f"silent {k}", codec.encode_action("up"), text="") for k in range(9)]  # an import without texts
    table = table_of(tmp_path / "s", *own, odd, *silent)
    require_own_tokens([str(tmp_path / "s")], table, codec, policy)
    require_own_tokens([], TurnTable(may_be_empty=True), codec, policy)


def test_ids_that_read_otherwise_are_another_tokenizers(tmp_path: Path, mine: tuple[ChatCodec, nn.Module]) -> None:
    """Each id lies in the vocabulary; only reading them shows it. One foreign store among two is enough."""
    codec, policy = mine
    other = {"up": "down", "down": "left", "left": "up"}
    table_of(tmp_path / "own", *(episode(word, codec.encode_action(word), text=word) for word in other))
    table_of(tmp_path / "other", *(episode(word, codec.encode_action(other[word]), text=word) for word in other))
    stores = [str(tmp_path / name) for name in ("own", "other")]
    with pytest.raises(DataError, match=r"other: the action 'up' .* reads as 'down' \(3 of 3 .* another tokenizer"):
        require_own_tokens(stores, TurnTable(*stores), codec, policy)


def test_the_last_id_of_the_vocabulary_is_an_own_one(tmp_path: Path, mine: tuple[ChatCodec, nn.Module]) -> None:
    codec, policy = mine
    size = int(policy.config.vocab_size)  # type: ignore[union-attr,arg-type]
    for last, refused in ((size - 1, False), (size, True)):
        table = table_of(tmp_path / str(last), episode("a", (7, last)))
        if refused:
            with pytest.raises(DataError, match=f"token id {size}, the model's vocabulary has {size}"):
                require_own_tokens([], table, codec, policy)
        else:
            require_own_tokens([], table, codec, policy)


@pytest.mark.parametrize("outcome", ["verdict", "reward"])
def test_digirl_believes_whom_it_is_told_to(tmp_path: Path, outcome: Literal["verdict", "reward"]) -> None:
    table = table_of(tmp_path / "s", episode("a", reward=0.0, success=True), episode("b", reward=1.0, success=False))
    learner: Any = object.__new__(digirl.Digirl)
    learner.algorithm, learner.phases = digirl.AlgorithmSettings(outcome=outcome), SimpleNamespace(table=table)
    assert learner.outcomes().tolist() == ([1.0, 0.0] if outcome == "verdict" else [0.0, 1.0])


def test_one_id_outside_the_vocabulary_is_found_among_many(tmp_path: Path, mine: tuple[ChatCodec, nn.Module]) -> None:
    codec, policy = mine
    many = [episode(f"{k}", codec.encode_action("up"), text="up") for k in range(600)]
    assert len(table_of(tmp_path / "negative", *many, episode("foreign", (7, -1)))) == 600, (
        "passed over where it is read"
    )
    table = table_of(tmp_path / "s", *many, episode("foreign", (7, 100_000)))
    with pytest.raises(DataError, match=r"token id 100000, the model's vocabulary has \d+: .*another tokenizer"):
        require_own_tokens([str(tmp_path / "s")], table, codec, policy)


# Settings that would come to nothing

WORLD = ["world.name=text.maze", "model.path=nowhere"]


@pytest.mark.parametrize(
    ("config", "words", "said"),
    [
        (archer.ArcherConfig, ["learner.epochs=3"], "`learner.epochs` is not read here"),
        (digirl.DigirlConfig, ["learner.minibatches=2"], "`learner.minibatches` is not read here"),
        (webrl.WebrlConfig, ["learner.epochs=3"], "`learner.epochs` is not read here"),
        (filtered_bc.FilteredBcConfig, ["learner.epochs=3"], "`learner.epochs` is not read here"),
        (ilql.IlqlConfig, ["reward.name=success"], "`reward` is not read here: the stored rewards count"),
        (ilql.IlqlConfig, ["rollout.groups_per_step=7"], "`rollout.groups_per_step` is not read here"),
        (mc.McConfig, ["learner.learning_rate=1"], "`learner.learning_rate` is not read here"),
        (mc.McConfig, ["curriculum=band"], "`curriculum` is not read here"),
        (digirl.DigirlConfig, ["algorithm.actor=awr", "algorithm.form=released"], "would imitate failures in full"),
        (webrl.WebrlConfig, ["reward.name=outcome_model", "reward.options.value=score"], "use verdict"),
        (
            digirl.DigirlConfig,
            ["algorithm.outcome=reward", "reward.name=outcome_model", "reward.options.value=score"],
            "use verdict",
        ),
        (
            filtered_bc.FilteredBcConfig,
            ["algorithm.fresh_only=true", "replay.stores=[x]"],
            "nothing ever comes of `replay.stores`",
        ),
    ],
)
def test_settings_without_effect_are_refused(config: type, words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(config, [*WORLD, *words])


def test_one_key_of_the_critic_leaves_the_others_as_the_recipe_has_them() -> None:
    config = load_config(archer.ArcherConfig, [*WORLD, "critic.frozen=true"])
    assert (config.critic.updates, config.critic.batch_size) == (50, 128)
    assert load_config(hnpg.HnpgConfig, [*WORLD, "critic.depth=0.5"]).critic.updates == 20
