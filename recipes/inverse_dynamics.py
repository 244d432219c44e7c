"""Inverse dynamics: read the actions into logs that lack them, from a few episodes that have them.

    read      stored episodes with actions, and logs without (screen recordings, page histories)
    train     a model of the action between two observations, by TRL's SFTTrainer
    judge     its labels on whole held-out episodes: labels.json
    label     every step of the logs; below `label.threshold` a step stays without an action, and nothing learns from it
    write     a store that recipes/sft.py, filtered_bc.py and the other offline recipes read, tag "inverse_dynamics"

`data.hide_frac` takes the actions off a share of the known episodes first, so that the labels can be measured: the
protocol of the paper. Source: arXiv:2210.06518 (SS-ORL); docs/methods/inverse_dynamics.md.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/inverse_dynamics.py \
        recipes/text/maze_inverse.yaml
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

from contextlib import closing
from typing import ClassVar

from pydantic import Field

from rollwright.config import Config, Unread, dump
from rollwright.contracts import ConfigError
from rollwright.generation import Engine, EngineSettings, open_engine
from rollwright.learner import SftSettings, fit, go_on_alone, require_trl
from rollwright.methods import (
    TAG,
    InverseEpisodes,
    InversePrompt,
    ModelLabeller,
    inverse_rows,
    judge_labels,
    label,
    labelled,
    tell_labels,
    without_actions,
)
from rollwright.models import ChatCodec, ModelSettings
from rollwright.rollout import NewContext, RolloutSettings, require_same_prompts
from rollwright.run_io import RunFolder
from rollwright.store import TrajectoryStore
from rollwright.training import NO_GROUPS, WorldSettings, announce, open_context, recipe_config, run_recipe

_WORDS = InversePrompt()
_OF_PLAYING = (
    *("max_turns", "temperature", "max_observation_tokens", "retries", "max_fault_frac"),
    *("episode_s", "env_call_s", "engine_call_s"),
)


class DataSettings(Config):
    """Who teaches the model, and what it labels."""

    stores: list[str] = Field([], description="Folders of stored episodes whose actions are known.")
    logs: list[str] = Field([], description="Folders of stored episodes without actions.")
    hide_frac: float = Field(
        0.0, ge=0, lt=1, description="Share of `stores` whose actions are hidden, to measure the labels."
    )
    held_out_frac: float = Field(0.1, gt=0, lt=1, description="Share of known episodes held out for the report.")


class LabelSettings(Config):
    """What is asked, and which answers count."""

    threshold: float = Field(
        0.9, ge=0, le=1, description="Minimum probability of a label; below it, the step stays unlabelled."
    )
    history: int = Field(0, ge=0, description="Number of observations shown besides the two around the action.")
    system: str = Field(_WORDS.system, description="Instruction of the question; empty = no instruction.")
    before: str = Field(_WORDS.before, description="Heading above each observation before the action.")
    after: str = Field(_WORDS.after, description="Heading above the observation after the action.")
    ended: str = Field(_WORDS.ended, description="Text shown in place of the observation after the last action.")
    with_known: bool = Field(True, description="Also write the episodes with known actions into the store.")

    def prompt(self) -> InversePrompt:
        """The question, in these words."""
        return InversePrompt(**self.model_dump(exclude={"threshold", "with_known"}))


class InverseRun(Config):
    """Where the run writes and from which seed."""

    folder: str = Field("runs/inverse", description="Run folder; the store is its `trajectories`.")
    seed: int = Field(0, ge=0, description="Seed of the splits, the order and the initialisation.")


class InverseConfig(Config):
    """Everything an inverse-dynamics run reads."""

    run: InverseRun = InverseRun()
    model: ModelSettings = ModelSettings()
    world: WorldSettings
    rollout: RolloutSettings = RolloutSettings()
    engine: EngineSettings = EngineSettings()
    data: DataSettings = DataSettings()
    label: LabelSettings = LabelSettings()
    sft: SftSettings = SftSettings()

    unread: ClassVar[Unread] = NO_GROUPS | dict.fromkeys(
        [f"rollout.{key}" for key in _OF_PLAYING],
        "nothing is played here: episodes are read from data.stores and data.logs",
    )


def main(argv: list[str] | None = None) -> None:
    """Train the model, judge its labels and write the labelled store."""
    config = recipe_config(InverseConfig, argv)
    if not go_on_alone("inverse dynamics"):
        return
    require_trl("inverse dynamics")
    # Before the folder is made, as data that cannot be used need no run.
    data, seed = config.data, config.run.seed
    episodes = InverseEpisodes.read(
        data.stores, data.logs, hide_frac=data.hide_frac, held_out_frac=data.held_out_frac, seed=seed
    )
    with RunFolder.opened(config.run.folder, config_yaml=dump(config)) as folder:
        require_empty(folder)
        announce(config)
        learn_and_label(config, folder, episodes)


def learn_and_label(config: InverseConfig, folder: RunFolder, episodes: InverseEpisodes) -> None:
    """Train the model on those who teach it, then label."""
    start, codec, new_context = open_context(config.world, config.model, config.rollout, folder.path)
    for trajectory in [*episodes.teach, *episodes.aside]:
        # Labelled episodes are rendered by this context, so it must reproduce the prompts that are known.
        require_same_prompts(trajectory, new_context)
    rows = inverse_rows(episodes.teach, codec, config.label.prompt(), max_length=config.sft.max_length)
    model = fit(rows, start, folder.path, config.sft, seed=config.run.seed, name="inverse_model", facts=folder.facts)
    engine = open_engine(config.engine, model, codec, seed=config.run.seed, run_folder=folder.path)
    with closing(engine):
        label_all(config, folder, codec, engine, new_context, episodes)


def require_empty(folder: RunFolder) -> None:
    """Raises ConfigError where the run folder's store holds episodes: a second run would write them all once more."""
    if len(TrajectoryStore(folder.trajectories)):
        raise ConfigError(f"{folder.trajectories} holds labelled episodes already: name another run.folder")


def label_all(
    config: InverseConfig,
    folder: RunFolder,
    codec: ChatCodec,
    engine: Engine,
    new_context: NewContext,
    episodes: InverseEpisodes,
) -> None:
    """Judge the labels where the truth is known, label the logs, fill the store."""
    settings, prompt = config.label, config.label.prompt()
    asked = ModelLabeller(engine, codec, prompt, max_tokens=config.rollout.max_action_tokens)
    aside, hidden = episodes.aside, episodes.hidden
    reports = {"held_out": judge_labels(aside, label(aside, asked, prompt), codec, threshold=settings.threshold)}
    # The hidden ones come first, and are found by that place when their labels are judged.
    blind = [*(without_actions(t) for t in hidden), *episodes.logs]
    labels = label(blind, asked, prompt)
    if hidden:
        reports["hidden"] = judge_labels(hidden, labels[: len(hidden)], codec, threshold=settings.threshold)
    filled = [labelled(t, row, new_context, threshold=settings.threshold) for t, row in zip(blind, labels, strict=True)]
    kept = [t for t in filled if t.has_actions]
    store = TrajectoryStore(folder.trajectories)
    if settings.with_known:
        # Those that judged the labels as well: their actions are known all the same.
        store.append([*episodes.teach, *aside], tag="known")
    store.append(kept, tag=TAG)
    tell_labels(folder, reports, kept, len(blind))


if __name__ == "__main__":
    run_recipe(main)
