"""What the loops share, as verbs: collect, score, update, sync, finish; with evaluation and checkpoints when due.

A recipe opens `Training.start(config)` and writes the algorithm; everything here is the same for all of them.

Scores of a step's groups: each group once, shared out over the ranks; and ReMax's greedy episodes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rollwright.batching import TokenBatch
from rollwright.contracts import Group, Reward, RollwrightError, StatefulReward, Trajectory, episode_seed
from rollwright.curriculum import EvolvingCurriculum, StartPool
from rollwright.evaluation import BEST, BEST_MARK, Evaluation, best_checkpoint, evaluate_policy, save_evaluation
from rollwright.learner import CriticSettings, PolicyObjective, Ranks, TeacherObjective, hand_over
from rollwright.maths.losses import constant_length
from rollwright.rollout import Collector, EpisodeRequest, FaultLog, actor_metrics, rollout_metrics, score_or_note
from rollwright.run_io import Progress, StepReport, deadline, say
from rollwright.training import resumption
from rollwright.training.announcements import announce, announce_end, announce_evaluation
from rollwright.training.collection import fill_with_informative
from rollwright.training.lessons import Lessons
from rollwright.training.loop_config import LoopConfig
from rollwright.training.open_run import RunParts, open_run
from rollwright.training.parity_gate import lower_precision, pass_gate
from rollwright.view import write_report, write_transcripts

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Training(RunParts):
    """One run from its first step to its report. Made by `start`, closed by leaving the `with`."""

    _stored_step: int = -1
    _parity: dict[str, float] = field(default_factory=dict)
    _signal: bool | None = None
    lessons: Lessons = field(init=False)
    console: StepReport = field(init=False)

    def __post_init__(self) -> None:
        run = self.config.run
        self.lessons = Lessons(config=self.config, speaks=self.learner.ranks.first)
        self.console = StepReport(run.steps, max_minutes=run.max_minutes)

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
        with open_run(cls, config, reference=reference, critic=critic) as run, run._nothing_lost():
            run.announce()
            yield run
            # Reached only if the recipe's loop has come to its end without an error.
            run._end()

    def announce(self) -> None:
        """Say what was chosen for this run, and why."""
        announce(
            self.config,
            tasks=self.tasks,
            resumed_at=self.resumed.step if self.resumed else None,
            layout=self.learner.checked.layout,
            note=self.learner.checked.note,
            device=str(self.learner.accelerator.device),
        )

    def steps(self) -> Iterator[int]:
        """The step numbers still to do; ends early when `run.max_minutes` are over."""
        if self.config.evaluation.at_start and self.next_step == 0:
            self.evaluate("start")
        self.console.begin(self.next_step)
        for step in range(self.next_step, self.config.run.steps):
            limit = self.config.run.max_minutes
            # Clocks differ, and a rank that stopped one step earlier would leave the others waiting for it.
            if limit and self.learner.ranks.of_first(time.monotonic() - self.started > 60 * limit):
                log.warning("stopping before step %d: run.max_minutes = %g is over", step, limit)
                return
            self.clock.begin()
            self._parity, self._signal = {}, None
            self._grow(step)
            yield step

    def _grow(self, step: int) -> None:
        """New tasks, where the curriculum makes some and a round of it is due."""
        curriculum, ranks = self.curriculum, self.learner.ranks
        if not isinstance(curriculum, EvolvingCurriculum) or not curriculum.due(step):
            return
        with self.clock.timed("time/evolve_s"):
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
        groups = self._play(
            f"step {step + 1} of {self.config.run.steps}: episodes", wanted, lambda: self.collection.take(step)
        )
        # Before the reward is asked, as a run whose engine disagrees ends here.
        self.check_parity(groups)
        if max_rounds == 1:
            return groups
        return fill_with_informative(groups, wanted=wanted, max_rounds=max_rounds, score=self.score, more=self._more)

    def _more(self, count: int) -> list[Group]:
        return self._play("episodes in place of equal groups", count, lambda: self.collection.more(count))

    def _play(self, what: str, groups: int, take: Callable[[], list[Group]]) -> list[Group]:
        rollout = self.config.rollout  # running ahead, episodes of later steps end here too: no total is known
        total = None if rollout.max_staleness else self.collector.played_here(groups) * rollout.group_size
        bar = Progress(what, total=total)
        with self.clock.timed("time/collect_s"), bar, self.collection.watched(lambda _: bar.advance()):
            return take()

    def check_parity(self, groups: Sequence[Group]) -> None:
        """By default before the first update and after the first sync."""
        limit = self.config.run.parity_checks
        if not limit or self.parity_checks < limit:
            self._parity = pass_gate(groups, self.engine, self.learner, dtype=lower_precision(self.config))
            # A check that found no turn to compare does not count and is made with the next batch.
            self.parity_checks += bool(self._parity)

    def score(self, groups: Sequence[Group]) -> list[Group]:
        """Lay the reward on the turns and tell the curriculum; what was scored before stays as it is."""
        with self.clock.timed("time/score_s"), self._limited("scoring", "score_s"):
            scored, fresh = score_once(groups, self.reward, self.collector.faults, self.learner.ranks)
        # How a task goes from its middle says little about it.
        self.curriculum.update([group for group in fresh if group.start is None])
        if self.starts is not None:
            self.starts.learn(fresh)
        return scored

    def greedy_scores(self, groups: Sequence[Group]) -> dict[str, float]:
        """The return of one greedy episode per group, from the group's own start: ReMax's baseline. By group id.

        A group whose greedy episode faulted for good, or got no score, has none.
        """
        requests = greedy_requests(groups, self.collector, self.starts)
        with self.clock.timed("time/greedy_s"):
            played = self.collector.play(requests)
        # These episodes are not stored, but their tokens were sampled all the same.
        self.folder.facts.played(played)
        return greedy_returns(groups, played, self.reward, self.collector.faults, self.learner.ranks)

    def learning(self) -> AbstractContextManager[None]:
        """Around what the learner computes before its update, such as values: it counts as `time/update_s`."""
        return self.clock.timed("time/update_s")

    def update(
        self, batch: TokenBatch, objective: PolicyObjective | TeacherObjective, *, collected: int | None = None
    ) -> dict[str, float]:
        """The optimiser steps of one batch.

        Args:
            collected: sequences that could have been learned from, where those that say nothing were left out of the
                batch: the denominator of the "constant" aggregation counts them. None = the batch's own.
        """
        settings = self.config.learner
        self._signal = bool(batch.advantages.any())
        sized = self._sized(objective, batch, collected) if isinstance(objective, PolicyObjective) else objective
        with self.clock.timed("time/update_s"):
            tap = self.notes.tap(batch)
            found = self.learner.update(batch, sized, minibatches=settings.minibatches, epochs=settings.epochs, tap=tap)
            self.notes.take(tap)
        return found

    def _sized(self, objective: PolicyObjective, batch: TokenBatch, collected: int | None) -> PolicyObjective:
        """The objective with the length that "constant" divides by; without one set, the longest an episode can be."""
        if objective.aggregation != "constant":
            return objective
        # Dr. GRPO divides by a constant, so that the length of an answer does not scale its gradient.
        longest = self.config.rollout.max_action_tokens * self.collector.limits.max_turns
        kept = batch.num_sequences
        length = constant_length(objective.max_length or longest, collected=max(collected or 0, kept), kept=kept)
        return replace(objective, max_length=length)

    def sync(self) -> None:
        """Give the engine the learner's weights; from here on its tokens carry the new version."""
        with self.clock.timed("time/sync_s"), self._limited("the weight sync", "sync_s"):
            hand_over(self.learner.policy, self.engine, version=self.engine.version + 1)

    def remember(self, step: int, groups: Sequence[Group]) -> None:
        """Put the step's episodes into the store now, for an update that replays them; else `finish` does it."""
        self._keep([t for group in groups for t in group.trajectories], tag=f"step_{step}")
        self._keep(self.collection.dropped(), tag=f"dropped_{step}")
        self.learner.ranks.wait()  # every rank reads what the first has written
        self._stored_step = step

    def finish(self, step: int, groups: Sequence[Group], metrics: Mapping[str, float]) -> None:
        """Log, keep, evaluate and checkpoint after one step."""
        if self._stored_step != step:
            self.remember(step, groups)
        every = self.config.run.transcripts_every
        if every and step % every == 0 and self.learner.ranks.first:
            write_transcripts(groups[:4], self.folder.path / "transcripts" / f"step_{step:05d}.txt")
        timings = self.clock.metrics()
        played = rollout_metrics(groups) | self.collection.metrics()
        if self.starts is not None:
            played |= self.starts.metrics(groups)
        played |= actor_metrics(groups) if self.config.actor.active else {}
        self.notes.write(step, self.codec.tokenizer)
        taught = self.lessons.take(step, groups, metrics, signal=self._signal)
        everything = played | self.curriculum.metrics() | dict(metrics) | taught | timings | self._parity
        self.tracker.log(step, everything)
        self.console.step(step + 1, everything)
        self._count(timings)
        # Before evaluation and checkpoint: both are named after the step that comes next.
        self.next_step = step + 1
        if self._due(step, self.config.evaluation.every):
            self._keep_best(self.evaluate(f"step_{step + 1:05d}"))
        if self._due(step, self.config.run.checkpoint_every):
            resumption.save(self)

    def _count(self, timings: Mapping[str, float]) -> None:
        """Bring `run.json` up to the step that ends: what a killed run spent is known to its last whole step."""
        facts = self.folder.facts
        facts.add(learner_s=timings.get("time/update_s", 0.0))
        facts.put(tokens_trained=self.learner.tokens_trained)
        facts.set_clocks(self.collector.occupancy.seconds())
        facts.save()

    def _due(self, step: int, every: int) -> bool:
        # After the last step `_end` evaluates and saves in any case.
        return bool(every) and (step + 1) % every == 0 and step + 1 < self.config.run.steps

    def evaluate(self, name: str) -> Evaluation:
        """Judge the current policy on held-out start states and write `eval/<name>.json`.

        Logged at the number of the next step: what is judged is what that step will play with.
        """
        settings = self.config.evaluation
        # The step's clock does not count it: evaluations lie between steps.
        began = time.monotonic()
        result, played = evaluate_policy(self.collector, self.tasks[settings.split], settings, name=name)
        took = {"time/evaluate_s": time.monotonic() - began}
        if self.learner.ranks.first:
            save_evaluation(result, self.folder.path)
        self._keep(played, tag=f"eval_{name}")
        self.tracker.log(self.next_step, announce_evaluation(result, settings) | took)
        return result

    def _keep_best(self, result: Evaluation) -> None:
        """Export the policy that was just judged to `best`, where no earlier one scored higher on the validation split.

        The test split chooses nothing: a checkpoint chosen by the score that is then reported sells luck as skill.
        """
        if result.split != "validation":
            return
        folder, first = self.folder.path / BEST, self.learner.ranks.first
        # Only the first rank has written the evaluation, and all ranks export together.
        if self.learner.ranks.of_first(best_checkpoint(self.folder.path).evaluation if first else "") != result.name:
            return
        if first:
            (folder / BEST_MARK).unlink(
                missing_ok=True
            )  # a kill during the export leaves nothing that claims to be best
        self._export(folder)
        self.learner.ranks.wait()
        if first:
            (folder / BEST_MARK).write_text(f"{result.name}\n", encoding="utf-8")
            say(f"best on validation so far: {result.name}, kept in {folder}")

    def _keep(self, played: Sequence[Trajectory], *, tag: str) -> None:
        # A run whose folder was taken over must not add to the other one's store.
        if self.lock is not None:
            self.lock.require()
        self.folder.facts.played(played)
        if self.learner.ranks.first:
            self.store.append(played, tag=tag)

    def _end(self) -> None:
        """The last checkpoint, the final evaluation, the policy as a plain folder, the report."""
        # What is still in flight serves no update any more.
        self.collection.close()
        resumption.save(self)
        self._end_collection()  # after the checkpoint: a longer run plays these anew, and sets the old ones aside
        # Before the evaluation, which may take long.
        self._export(self.folder.path / "policy")
        self.evaluate("final")
        self.folder.facts.set_clocks(self.collector.occupancy.seconds())
        self.lessons.end()
        if self.learner.ranks.first:
            write_report(self.folder.path)
        spent = time.monotonic() - self.started
        announce_end(self.folder.path, done=self.next_step, steps=self.config.run.steps, seconds=spent)
        self.learner.ranks.wait()

    def _export(self, folder: Path) -> None:
        """The policy with its tokenizer: a folder that any program opens, and the next recipe as `model.path`."""
        self.learner.save_pretrained(folder)
        if self.learner.ranks.first:
            self.codec.tokenizer.save_pretrained(folder)

    @contextmanager
    def _nothing_lost(self) -> Iterator[None]:
        """A run that stops on an error stores what is finished, as far as it still can."""
        try:
            yield
        except BaseException:
            try:
                self._end_collection()
            # The error that has stopped the run is the one to be raised.
            except RollwrightError as error:
                log.warning("finished episodes could not be stored while the run stopped: %s", error)
            raise

    def _end_collection(self) -> None:
        """Give up what is in flight; episodes that are finished and that no update will use are stored, marked."""
        self.collection.close()
        self._keep(self.collection.dropped(), tag="unused")

    def _limited(self, stage: str, key: str) -> AbstractContextManager[None]:
        report = partial(self.collector.faults.note, subject=stage)
        return deadline(stage, getattr(self.config.run, key), setting=f"run.{key}", report=report)


def score_once(
    groups: Sequence[Group], reward: Reward, faults: FaultLog, ranks: Ranks
) -> tuple[list[Group], list[Group]]:
    """Score the groups that have no score yet. All ranks call with the same groups.

    Returns:
        All groups in their order, those scored before as they were; and the newly scored ones alone.

    Raises:
        FaultBudgetExceeded: the reward failed too often.
    """
    is_new = [not any(t.score is not None for t in group.trajectories) for group in groups]
    fresh = _scored([group for group, new in zip(groups, is_new, strict=True) if new], reward, faults, ranks)
    coming = iter(fresh)
    return [next(coming) if new else group for group, new in zip(groups, is_new, strict=True)], fresh


def _scored(groups: Sequence[Group], reward: Reward, faults: FaultLog, ranks: Ranks) -> list[Group]:
    def work(mine: Sequence[Group]) -> list[Group]:
        return [score_or_note(group, reward, faults) for group in mine]

    # A reward that remembers has to see every group on every rank.
    return work(groups) if isinstance(reward, StatefulReward) else ranks.spread(groups, work)


def greedy_requests(
    groups: Sequence[Group], collector: Collector, starts: StartPool | None = None
) -> list[EpisodeRequest]:
    """One greedy episode for each group, from the group's own start."""
    greedy = replace(collector.sampling, temperature=0.0)
    requests = []
    for group in groups:
        # The group's own start state: the baseline has to be of what the group was asked to do.
        request = collector.request(f"{group.id} greedy", group.task, group.seed, sampling=greedy)
        if group.start is not None and starts is not None:
            # Who starts in mid-episode has fewer turns left.
            request = replace(request, start=group.start, max_turns=starts.limit_from(group.start))
        requests.append(request)
    return requests


def greedy_returns(
    groups: Sequence[Group], played: Sequence[Trajectory], reward: Reward, faults: FaultLog, ranks: Ranks
) -> dict[str, float]:
    """Id of each group -> the return of its greedy episode, as the reward scores it. All ranks call alike.

    A group whose greedy episode faulted for good, or got no score, is not among them: it has no baseline.

    Raises:
        FaultBudgetExceeded: the reward failed too often.
    """
    # Each in a group of its own, as a greedy episode is no sibling of those that were sampled.
    lone = [group.with_trajectories([t]) for group, t in zip(groups, played, strict=True)]
    scored, _ = score_once(lone, reward, faults, ranks)
    return {group.id: t.total_reward for group in scored for t in group.trajectories if t.learnable}
