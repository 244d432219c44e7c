"""What the loops share: run folder, world, engine, learner, collection, parity gate, evaluation, checkpoints.

A recipe opens `Training.start(config)` and writes the algorithm; everything here is the same for all of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from rollwright import resumption
from rollwright.assembly import (
    close_world,
    join_ranks,
    judge,
    open_actor,
    open_codec,
    open_collector,
    open_engine,
    open_learner,
    open_reward,
    open_tracker,
    open_world,
    players_of,
    policy_folder,
    resolve_precision,
)
from rollwright.batching import Segment, segment_of
from rollwright.checkpoint import Checkpoint, Checkpoints
from rollwright.config import dump
from rollwright.critic import CriticSettings
from rollwright.curriculum import Curriculum
from rollwright.deadlines import deadline
from rollwright.env import episode_seed
from rollwright.errors import RollwrightError
from rollwright.evaluation import Evaluation
from rollwright.evaluation import metrics as evaluation_metrics
from rollwright.evolving import EvolvingCurriculum, open_curriculum
from rollwright.generation.base import Engine, Sampling
from rollwright.generation.parity import Sampled, check_parity, measure_parity
from rollwright.learner import Learner
from rollwright.ledger import Ledger
from rollwright.pipeline import Pipeline, fill_with_informative, open_pipeline
from rollwright.progress import Progress
from rollwright.ranks import Ranks
from rollwright.records import TokenObjective
from rollwright.report import write_report, write_transcripts
from rollwright.reward import Reward, StatefulReward, score_group
from rollwright.rollout import Collector, FaultLog, Journal, rollout_metrics, score_or_note
from rollwright.rollout.episode import EpisodeRequest
from rollwright.settings import LoopConfig
from rollwright.start_assembly import open_starts, taught_groups
from rollwright.starts import StartPool
from rollwright.store import TrajectoryStore
from rollwright.task_generators import open_generator
from rollwright.tracking import RunFolder, Tracker
from rollwright.types import Group, Task, Trajectory, Turn
from rollwright.weights import hand_over

log = logging.getLogger(__name__)
_PARITY_TURNS = 8


@dataclass(kw_only=True)
class Training:
    """One run from its first step to its report. Made by `start`, closed by leaving the `with`."""

    config: LoopConfig
    folder: RunFolder
    tracker: Tracker
    tasks: Mapping[str, Sequence[Task]]
    curriculum: Curriculum
    reward: Reward
    learner: Learner
    engine: Engine
    collector: Collector
    store: TrajectoryStore
    checkpoints: Checkpoints
    journal: Journal
    pipeline: Pipeline
    ledger: Ledger
    starts: StartPool | None = None
    next_step: int = 0
    parity_checks: int = 0
    parts: list[resumption.Part] = field(default_factory=list)
    resumed: Checkpoint | None = None
    start_values: Callable[[Sequence[tuple[int, ...]]], Sequence[Sequence[float]]] | None = None
    """By a recipe with a critic: [heads, prompts] chance of success at first prompts, for the band of new tasks."""
    _stored_step: int = -1
    started: float = field(default_factory=time.monotonic)
    _timings: dict[str, float] = field(default_factory=dict)
    _parity: dict[str, float] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def start(
        cls, config: LoopConfig, *, reference: bool = False, critic: CriticSettings | None = None
    ) -> Iterator[Training]:
        """Open everything a run needs, cheap and refusable things first; close all of it at the end.

        Args:
            reference: keep a frozen copy of the starting policy (KL terms).
            critic: train a token critic beside the policy.
        """
        accelerator = join_ranks(config)
        ranks = Ranks(accelerator)
        with ranks.first_goes_ahead():
            folder = RunFolder.create(config.run.folder, config_yaml=dump(config))
        world = open_world(config.world)
        collector = engine = None
        try:
            tasks = {split: world.tasks(split) for split in ("train", "validation", "test")}
            curriculum = open_curriculum(config.curriculum, tasks["train"], seed=config.run.seed, world=world)
            reward = open_reward(config.reward)
            starts = open_starts(config, world, ranks)
            with ranks.first_goes_ahead():
                model_folder = policy_folder(config.model, world, folder.path)
            learner = open_learner(config, model_folder, reference=reference, critic=critic, accelerator=accelerator)
            tracker = open_tracker(folder, config, learner)
            codec = open_codec(model_folder)
            engine = open_engine(
                config.engine,
                model_folder,
                codec,
                seed=config.run.seed,
                lora_rank=config.model.lora_rank,
                run_folder=folder.path,
                plays=ranks.first or players_of(config.engine) == "each",
            )
            if isinstance(curriculum, EvolvingCurriculum):
                seed = config.run.seed
                curriculum.generator = open_generator(config.curriculum, world, engine, codec, folder.path, seed=seed)
            faults = FaultLog(ranks.own(folder.faults), max_frac=config.rollout.max_fault_frac)
            journal = Journal(ranks.own(folder.path / "journal.jsonl"), run=resumption.run_name(config))
            collector = open_collector(
                config.rollout,
                world,
                open_actor(config.rollout, engine, journal),
                codec,
                context_length=engine.context_length,
                faults=faults,
                ranks=ranks,
                players=players_of(config.engine),
            )
            run = cls(
                config=config,
                folder=folder,
                tracker=tracker,
                tasks=tasks,
                curriculum=curriculum,
                reward=reward,
                learner=learner,
                engine=engine,
                collector=collector,
                store=TrajectoryStore(folder.trajectories),
                checkpoints=Checkpoints(
                    folder.checkpoints,
                    keep=config.run.keep_checkpoints,
                    is_main=learner.accelerator.is_main_process,
                    wait=learner.accelerator.wait_for_everyone,
                ),
                journal=journal,
                pipeline=open_pipeline(config, collector, curriculum, engine, starts),
                ledger=Ledger(collector.occupancy, engine),
                starts=starts,
            )
            resumption.resume(run)
            if starts is not None:
                run.attach(starts)
                if config.starts.source == "teacher" and run.resumed is None:
                    starts.learn(taught_groups(config, collector, codec, tasks["train"]))
            with run._nothing_lost():
                yield run
                run._end()
        finally:
            if collector is not None:
                collector.close()
            else:
                close_world(world)
            if engine is not None:
                engine.close()

    def attach(self, part: resumption.Part) -> None:
        """Make a further critic or sampler of the recipe a part of checkpoints; in a resumed run it is put back now."""
        self.parts.append(part)
        if self.resumed is not None:
            part.load_state(self.resumed.path)

    def steps(self) -> Iterator[int]:
        """The step numbers still to do; ends early when `run.max_minutes` are over."""
        if self.config.evaluation.at_start and self.next_step == 0:
            self.evaluate("start")
        for step in range(self.next_step, self.config.run.steps):
            limit = self.config.run.max_minutes
            if limit and self.learner.ranks.of_first(time.monotonic() - self.started > 60 * limit):
                log.warning("stopping before step %d: run.max_minutes = %g is over", step, limit)
                return
            self._timings, self._parity = {"time/step_started_s": time.monotonic()}, {}
            self.ledger.begin()
            self._grow(step)
            yield step

    def _grow(self, step: int) -> None:
        """New tasks, where the curriculum makes some and a round of it is due."""
        curriculum, ranks = self.curriculum, self.learner.ranks
        if not isinstance(curriculum, EvolvingCurriculum) or not curriculum.due(step):
            return
        with self._timed("time/evolve_s"):
            seed = episode_seed("train", self.config.run.seed, "first look", step)
            look = partial(self.collector.look, seed=seed)
            # An endpoint may answer each rank otherwise.
            found = ranks.of_first(curriculum.candidates(step, look) if ranks.first else [])
            read = self.start_values
            curriculum.take(found, read([c.prompt for c in found]) if read and found else None)

    def collect(self, step: int, *, max_rounds: int = 1) -> list[Group]:
        """One batch of groups: tasks by the curriculum, start states and draws fixed by run seed and step.

        Args:
            max_rounds: above 1, groups whose members all earned the same are replaced in so many rounds at most. All
                that were played come back, scored.
        """
        wanted = self.config.rollout.groups_per_step
        groups = self._play(f"step {step}: episodes", wanted, lambda: self.pipeline.take(step))
        self._parity_gate(groups)
        if max_rounds == 1:
            return groups
        return fill_with_informative(groups, wanted=wanted, max_rounds=max_rounds, score=self.score, more=self._more)

    def _more(self, count: int) -> list[Group]:
        return self._play("episodes in place of equal groups", count, lambda: self.pipeline.more(count))

    def _play(self, what: str, groups: int, take: Callable[[], list[Group]]) -> list[Group]:
        rollout = self.config.rollout  # running ahead, episodes of later steps end here too: no total is known
        total = None if rollout.max_staleness else groups * rollout.group_size
        bar = Progress(what, total=total)
        with self._timed("time/collect_s"), bar, self.pipeline.ahead.watched(lambda _: bar.advance()):
            return take()

    def score(self, groups: Sequence[Group]) -> list[Group]:
        """Lay the reward on the turns and tell the curriculum; what was scored before stays as it is."""
        new = [not any(t.score is not None for t in group.trajectories) for group in groups]
        with self._timed("time/score_s"), self._limited("scoring", "score_s"):
            scored = self._score([group for group, is_new in zip(groups, new, strict=True) if is_new])
        fresh = iter(scored)
        scored = [next(fresh) if is_new else group for group, is_new in zip(groups, new, strict=True)]
        self._tell([group for group, is_new in zip(scored, new, strict=True) if is_new])
        return scored

    def _tell(self, groups: Sequence[Group]) -> None:
        """Curriculum and start states hear of new outcomes; how a task goes from its middle says little about it."""
        self.curriculum.update([group for group in groups if group.start is None])
        if self.starts is not None:
            self.starts.learn(groups)

    def _score(self, groups: Sequence[Group]) -> list[Group]:
        def work(mine: Sequence[Group]) -> list[Group]:
            return [score_or_note(group, self.reward, self.collector.faults) for group in mine]

        # A reward that remembers has to see every group on every rank.
        return work(groups) if isinstance(self.reward, StatefulReward) else self.learner.ranks.spread(groups, work)

    def greedy_scores(self, groups: Sequence[Group]) -> dict[str, float]:
        """The return of one greedy episode per group, from the group's own start: ReMax's baseline. By group id.

        Raises:
            RollwrightError: a greedy episode faulted for good, so its group has no baseline.
        """
        greedy = replace(self.collector.sampling, temperature=0.0)
        requests = [self._greedy_request(group, greedy) for group in groups]
        with self._timed("time/greedy_s"):
            played = self.collector.play(requests)
        lone = [g.with_trajectories([t]) for g, t in zip(groups, played, strict=True)]
        scored = {group.id: score_group(group, self.reward).trajectories[0] for group in lone}
        if lost := [name for name, t in scored.items() if not t.learnable]:
            raise RollwrightError(f"the greedy episodes of groups {lost} ended in faults, see {self.folder.faults}")
        return {name: t.total_reward for name, t in scored.items()}

    def _greedy_request(self, group: Group, greedy: Sampling) -> EpisodeRequest:
        request = self.collector.request(f"{group.id} greedy", group.task, group.seed, sampling=greedy)
        if group.start is None or self.starts is None:
            return request
        return replace(request, start=group.start, max_turns=self.starts.limit_from(group.start))

    def learning(self) -> AbstractContextManager[None]:
        """Around what the learner computes before its update, such as values: it counts as `time/update_s`."""
        return self._timed("time/update_s")

    def update(self, segments: Sequence[Segment], objective: TokenObjective) -> dict[str, float]:
        """The optimiser steps of one batch."""
        settings = self.config.learner
        with self._timed("time/update_s"):
            return self.learner.update(segments, objective, minibatches=settings.minibatches, epochs=settings.epochs)

    def sync(self) -> None:
        """Give the engine the learner's weights; from here on its tokens carry the new version."""
        with self._timed("time/sync_s"), self._limited("the weight sync", "sync_s"):
            hand_over(self.learner.policy, self.engine, version=self.engine.version + 1)

    def remember(self, step: int, groups: Sequence[Group]) -> None:
        """Put the step's episodes into the store now, for an update that replays them; else `finish` does it."""
        self._keep([t for group in groups for t in group.trajectories], tag=f"step_{step}")
        self._keep(self.pipeline.dropped(), tag=f"dropped_{step}")
        self.learner.ranks.wait()  # every rank reads what the first has written
        self._stored_step = step

    def finish(self, step: int, groups: Sequence[Group], metrics: Mapping[str, float]) -> None:
        """Log, keep, evaluate and checkpoint after one step."""
        if self._stored_step != step:
            self.remember(step, groups)
        every = self.config.run.transcripts_every
        if every and step % every == 0 and self.learner.ranks.first:
            write_transcripts(groups[:4], self.folder.path / "transcripts" / f"step_{step:05d}.txt")
        timings = dict(self._timings)
        timings["time/step_s"] = time.monotonic() - timings.pop("time/step_started_s")
        timings |= self.ledger.end(timings)
        played = rollout_metrics(groups) | self.pipeline.metrics()
        if self.starts is not None:
            played |= self.starts.metrics(groups)
        everything = played | self.curriculum.metrics() | dict(metrics) | timings | self._parity
        self.tracker.log(step, everything)
        self.next_step = step + 1
        if self._due(step, self.config.evaluation.every):
            self.evaluate(f"step_{step + 1:05d}")
        if self._due(step, self.config.run.checkpoint_every):
            resumption.save(self)

    def evaluate(self, name: str) -> Evaluation:
        """Judge the current policy on held-out start states and write `eval/<name>.json`."""
        settings = self.config.evaluation
        with self._timed("time/evaluate_s"):
            result, played = judge(self.collector, self.tasks[settings.split], settings, name=name)
        if self.learner.ranks.first:
            result.save(self.folder.path)
        self._keep(played, tag=f"eval_{name}")
        self.tracker.log(self.learner.step, evaluation_metrics(result))
        return result

    def _keep(self, played: Sequence[Trajectory], *, tag: str) -> None:
        if self.learner.ranks.first:
            self.store.append(played, tag=tag)

    def _parity_gate(self, groups: Sequence[Group]) -> None:
        """By default before the first update and after the first sync: does the engine have the learner's weights?"""
        limit = self.config.run.parity_checks
        if limit and self.parity_checks >= limit:
            return
        now = self.engine.version  # what older weights sampled says nothing about these
        turns = [u for g in groups for t in g.trajectories if t.learnable for u in t.turns if u.version == now]
        chosen = turns[:: max(1, len(turns) // _PARITY_TURNS)][:_PARITY_TURNS]
        if not chosen:
            return
        self.parity_checks += 1
        parity = measure_parity([Sampled.of_turn(turn) for turn in chosen], self._learner_logprobs(chosen))
        check_parity(parity, dtype=self._lower_precision(), where=f"at engine version {self.engine.version}")
        log.info("parity gate passed: %s", parity)
        self._parity = {"engine/parity_max": parity.max_difference, "engine/parity_mean": parity.mean_difference}

    def _lower_precision(self) -> Literal["float32", "bfloat16"]:
        both = {resolve_precision(self.config.engine.dtype), resolve_precision(self.config.learner.precision)}
        return "float32" if both == {"float32"} else "bfloat16"

    def _learner_logprobs(self, turns: Sequence[Turn]) -> list[list[float]]:
        plain = [segment_of(t, advantages=(0.0,) * len(t.action_ids), sequence=i) for i, t in enumerate(turns)]
        return [logprobs.tolist() for logprobs in self.learner.logprobs(plain)]

    def _due(self, step: int, every: int) -> bool:
        return bool(every) and (step + 1) % every == 0 and step + 1 < self.config.run.steps

    def _end(self) -> None:
        """The last checkpoint, the final evaluation, the policy as a plain folder, the report."""
        self.pipeline.close()
        resumption.save(self)
        self._end_pipeline()  # after the checkpoint: a longer run plays these anew, and sets the old ones aside
        self.learner.save_pretrained(self.folder.path / "policy")
        self.evaluate("final")
        if self.learner.ranks.first:
            write_report(self.folder.path)
        self.learner.ranks.wait()

    @contextmanager
    def _nothing_lost(self) -> Iterator[None]:
        """A run that stops on an error stores what is finished, as far as it still can."""
        try:
            yield
        except BaseException:
            try:
                self._end_pipeline()
            except RollwrightError as error:
                log.warning("finished episodes could not be stored while the run stopped: %s", error)
            raise

    def _end_pipeline(self) -> None:
        """Give up what is in flight; episodes that are finished and that no update will use are stored, marked."""
        self.pipeline.close()
        self._keep(self.pipeline.dropped(), tag="unused")

    def _limited(self, stage: str, key: str) -> AbstractContextManager[None]:
        report = partial(self.collector.faults.note, subject=stage)
        return deadline(stage, getattr(self.config.run, key), setting=f"run.{key}", report=report)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        before = time.monotonic()
        yield
        self._timings[name] = self._timings.get(name, 0.0) + time.monotonic() - before
