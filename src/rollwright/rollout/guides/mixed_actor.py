"""The policy with others beside it: a guide takes some of its turns, an overseer replaces some of its actions.

Who acts in a turn is drawn by the turn's own name, so that a resumed run draws the same. An episode whose request has
no `guide_frac`, as every evaluation's, is the policy's alone: nobody guides it and nobody watches.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Literal

from rollwright.contracts import ActionRule, Group, Origin, Producer, Task, Turn
from rollwright.generation import Generation
from rollwright.models import ChatCodec
from rollwright.rollout.actors import Act, Actor, Decision
from rollwright.rollout.guides.overseers import Overseer, overridden
from rollwright.rollout.guides.scripted_guides import Advice, Guide, marked_as

Mix = Literal["turn", "episode", "prefix"]
GUIDES: tuple[Producer, ...] = ("guide", "teacher", "dataset")


class MixedActor:
    """Acts as the policy does, except where a guide or an overseer does.

    Args:
        policy: who acts otherwise; a collector finds its rounds here (`rounds.rounds_of`).
        mix: what the guide takes; prefix_turns: the longest prefix.
        codec, rule: of the policy: an overseer is shown the action as the world would be given it.
    """

    origin: Origin = "policy"

    def __init__(
        self,
        policy: Actor,
        *,
        guide: Guide | None,
        overseer: Overseer | None,
        codec: ChatCodec,
        rule: ActionRule,
        mix: Mix = "turn",
        prefix_turns: int = 1,
    ) -> None:
        self.policy, self.guide, self.overseer = policy, guide, overseer
        self.codec, self.rule = codec, rule
        self.mix, self.prefix_turns = mix, prefix_turns
        self.name = policy.name

    def show_life(self, tasks: Sequence[Task]) -> None:
        """Ask the guide once, before training begins. Raises ConfigError where it gives no answer."""
        if self.guide is not None:
            asyncio.run(self.guide.show_life(tasks))

    def close(self) -> None:
        """Free what the guide holds. Idempotent."""
        if self.guide is not None:
            self.guide.close()

    def begin(self, task: Task) -> Act:
        """What chooses the actions of one episode of this task."""
        act = self.policy.begin(task)
        advice: Advice | None = None

        async def play(decision: Decision) -> Generation:
            nonlocal advice
            if decision.guide_frac is None:
                return await act(decision)
            answer: Generation | None = None
            if self.guide is not None:
                advice = advice or self.guide.begin(task)
                # In every turn, also in those of the policy: the guide has to know how the episode came here.
                advice.see(decision)
                answer = await advice.act(decision) if self._guided(decision, decision.guide_frac) else None
            answer = await self._watched(decision, await act(decision) if answer is None else answer)
            if advice is not None:
                advice.hear(answer, self._action_of(answer))
            return answer

        return play

    def _guided(self, decision: Decision, frac: float) -> bool:
        """Whether the guide is asked in this turn."""
        if self.mix == "turn":
            return random.Random(f"guide/{decision.request_id}").random() < frac
        if self.mix == "episode":
            return random.Random(f"guide/{decision.episode}").random() < frac
        # By the group's name and not the member's: siblings are compared, so all of them share the prefix.
        draws = random.Random(f"guide/{decision.episode.rpartition('/')[0]}")
        return draws.random() < frac and decision.turn < 1 + draws.randrange(self.prefix_turns)

    async def _watched(self, decision: Decision, answer: Generation) -> Generation:
        """The answer, or the overseer's in its place."""
        if self.overseer is None:
            return answer
        better = await overridden(self.overseer, decision.env, decision.observation, self._action_of(answer))
        if better is None:
            return answer
        ids = self.codec.encode_action(better)
        # The policy did not choose these ids, so there is no log-prob to learn from.
        human = Generation(token_ids=ids, logprobs=(0.0,) * len(ids), finish_reason="stop", spans=())
        return marked_as(human, "human")

    def _action_of(self, answer: Generation) -> str:
        said = self.codec.decode_action(answer.token_ids)
        return self.rule.action_of(said, answer.finish_reason, scripted=answer.scripted)


def acted_by(turn: Turn, producers: Sequence[Producer]) -> bool:
    """Whether one of these wrote a token of the turn."""
    return any(span.producer in producers for span in turn.spans)


def actor_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Shares of the turns that a guide played and that an overseer replaced; empty without a turn."""
    turns = [turn for g in groups for t in g.trajectories if t.learnable for turn in t.turns]
    if not turns:
        return {}
    return {
        "actor/guided_frac": sum(acted_by(turn, GUIDES) for turn in turns) / len(turns),
        "actor/intervened_frac": sum(acted_by(turn, ("human",)) for turn in turns) / len(turns),
    }
