"""What is asked of the generator for each step, and the plain way to get it: ask when the step begins, wait for all.

    take(step s), at version s:   play the batch of step s, all of it

So the weights that a step's episodes were sampled by are those that its update starts from: exactly on-policy.
`pipeline` is the other way, where the generator runs ahead by a bounded staleness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rollwright.contracts import Group, Task, Trajectory, episode_seed
from rollwright.curriculum import Curriculum, StartPool
from rollwright.rollout import ActorSettings, GroupRequest, RolloutSettings, is_informative

EXTRA_DRAWS = 1_000_000
"""Steps from which the tasks of replacements are drawn: no run gets that far, so no step's own tasks are touched."""

Watch = Callable[[Trajectory], None]
"""Told of every episode that ends."""
Play = Callable[[Sequence[GroupRequest], Watch | None], list[Group]]
"""Plays groups; all of them come back, in the order asked for."""


class Requests:
    """The groups that a run asks for: tasks by the curriculum, start states and draws fixed by run seed and step.

    Args:
        seed: of the run.
        starts: where groups may begin besides the tasks' initial states.
        actor: how much of the episodes a guide plays; None = nothing.
    """

    def __init__(
        self,
        settings: RolloutSettings,
        curriculum: Curriculum,
        *,
        seed: int,
        starts: StartPool | None = None,
        actor: ActorSettings | None = None,
    ) -> None:
        self.settings, self.curriculum, self.seed, self.starts, self.actor = settings, curriculum, seed, starts, actor
        self._extras: dict[int, int] = {}

    def batch(self, step: int) -> list[GroupRequest]:
        """The groups of one step."""
        tasks = self.curriculum.next(step, self.settings.groups_per_step)
        return self._placed(step, 0, tasks)

    def extra(self, step: int, count: int) -> list[GroupRequest]:
        """As many further groups for the step, of other tasks or start states."""
        asked = self._extras.get(step, 0)
        tasks = self.curriculum.next(EXTRA_DRAWS * (1 + asked) + step, count)
        # Earlier steps ask for nothing any more, so only this one's count is kept.
        self._extras = {step: asked + count}
        # Numbered on from the step's own groups, as the number decides about key and seed.
        first = self.settings.groups_per_step + asked
        return self._placed(step, first, tasks)

    def _placed(self, step: int, first: int, tasks: Sequence[Task]) -> list[GroupRequest]:
        asked = [self._request(step, first + index, task) for index, task in enumerate(tasks)]
        return asked if self.starts is None else self.starts.place(asked, step, first)

    def _request(self, step: int, index: int, task: Task) -> GroupRequest:
        return GroupRequest(
            # The journal finds answers by this key, so it depends on seed and place and never on time.
            key=f"{self.seed}/{step}/{index}",
            task=task,
            seed=episode_seed("train", self.seed, step, index),
            size=self.settings.group_size,
            guide_frac=self.actor.share_at(step) if self.actor else None,
        )


class Collection(Protocol):
    """Where the loop gets the groups of each step from. Made by the run, lives as long as it."""

    def take(self, step: int) -> list[Group]:
        """One batch of groups for the update of `step`, none of it too old."""

    def more(self, count: int) -> list[Group]:
        """As many groups again for the same step, of other tasks or start states."""

    def watched(self, watch: Watch) -> AbstractContextManager[None]:
        """Meanwhile tell `watch` of every episode that ends."""

    def metrics(self) -> dict[str, float]:
        """What became of the groups since the last call."""

    def dropped(self) -> list[Trajectory]:
        """Finished episodes that no update uses, marked with the reason: to be stored with those that were taken."""

    def close(self) -> None:
        """Give up what is in flight. Idempotent."""


class OnPolicy:
    """Each batch is asked for when its step begins, and all of it is waited for. A `Collection`.

    Args:
        play: plays groups, on the caller's thread.
    """

    def __init__(self, requests: Requests, play: Play) -> None:
        self.requests, self._play = requests, play
        self._watch: Watch | None = None
        self._step, self._rounds = -1, 1

    def take(self, step: int) -> list[Group]:
        """The groups of the step, in the order asked for."""
        self._step, self._rounds = step, 1
        return self._play(self.requests.batch(step), self._watch)

    def more(self, count: int) -> list[Group]:
        """As many groups again for the same step, of other tasks or start states."""
        self._rounds += 1
        return self._play(self.requests.extra(self._step, count), self._watch)

    @contextmanager
    def watched(self, watch: Watch) -> Iterator[None]:
        """Meanwhile tell `watch` of every episode that ends."""
        self._watch = watch
        try:
            yield
        finally:
            self._watch = None

    def metrics(self) -> dict[str, float]:
        """How often groups were asked for in the last step."""
        return {"rollout/rounds_count": float(self._rounds)}

    def dropped(self) -> list[Trajectory]:
        """None: what was played is what is learned from, and the journal has it until then."""
        return []

    def close(self) -> None:
        """Nothing is in flight between two calls."""


def fill_with_informative(
    groups: Sequence[Group],
    *,
    wanted: int,
    max_rounds: int,
    score: Callable[[Sequence[Group]], list[Group]],
    more: Callable[[int], list[Group]],
) -> list[Group]:
    """Dynamic sampling: for every group whose members all earned the same, one more, until `wanted` can teach.

    Args:
        groups: the first round's.
        max_rounds: rounds of collection, the first included.
        score: gives groups their rewards, and tells the curriculum; asked once of each.
        more: plays as many further groups.

    Returns:
        All groups that were played, scored, those without a lesson too: they are part of what happened. At most
        `wanted` of them can teach; fewer, where the rounds did not suffice.

    Sources: arXiv:2503.14476 section 3.2 (DAPO).
    """
    scored = score(groups)
    # The caller has played the first round.
    for _ in range(1, max_rounds):
        missing = wanted - sum(map(is_informative, scored))
        if missing <= 0:
            break
        # Some of the new groups may be equal again, hence the rounds.
        scored += score(more(missing))
    return scored
