"""Guides that sample: another model, a model behind an endpoint, or the policy itself with a hint in its prompt.

Each reads the episode by itself from its first turn on, in a context or a conversation of its own, so that it can act
in any turn whatever its tokenizer is. What it says is kept in the journal: a resumed run is not answered otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rollwright.contracts import (
    ConfigError,
    ContextOverflow,
    EngineFault,
    Message,
    Observation,
    Producer,
    RollwrightError,
    Span,
    Task,
)
from rollwright.generation import Ask, BatchEngine, ChatClient, ChatFailure, Engine, Generation, Sampling
from rollwright.models import ChatCodec
from rollwright.rollout.actors import Act, Decision, Encode
from rollwright.rollout.contexts import Context
from rollwright.rollout.guides.scripted_guides import Advice, Answer, marked_as
from rollwright.rollout.journal import Journal

Keep = Callable[[Act, Decision], Awaitable[Generation]]
"""Asks by the first for the second, or finds in the journal what was answered before."""


def kept_in(journal: Journal | None, engine: Engine) -> Keep:
    """Answers of a guide in the run's journal, under names of their own. Without a journal nothing is kept.

    engine: of the policy. The journal is ordered by its version, whatever weights the guide has.
    """

    async def keep(ask: Act, decision: Decision) -> Generation:
        named, version = replace(decision, request_id=f"{decision.request_id} guide"), engine.version
        known = journal.recall(named, version=version) if journal is not None else None
        if known is not None:
            return known
        found = await ask(named)
        if journal is not None:
            journal.record([(named, found)], version=version)
        return found

    return keep


async def asked_as_it_is(ask: Act, decision: Decision) -> Generation:
    """For the policy's own engine, whose way of asking has a journal already."""
    return await ask(decision)


@dataclass
class EngineAdvice:
    """Advice by an engine, which reads a context of its own: other instructions, another tokenizer."""

    context: Context
    ask: Act
    keep: Keep
    sampling: Sampling
    show: Callable[[Observation], Observation]
    """The observation as the guide is given it."""
    take: Callable[[Generation], Generation]
    """Its answer in ids of the policy."""
    give: Callable[[str], tuple[int, ...]]
    """The ids by which the guide's context remembers what was said."""
    producer: Producer
    begun: bool = False

    def see(self, decision: Decision) -> None:
        """Take in the observation; first of all the way that lies before the episode."""
        for passed in () if self.begun else decision.passed:
            shown = passed.shown
            self.context.observe(self.show(Observation(text=shown.text, goal=shown.goal)))
            self.remember(passed.action, passed.finish)
        self.begun = True
        self.context.observe(self.show(decision.observation))

    async def act(self, decision: Decision) -> Answer:
        """What the engine samples behind the guide's own prompt."""
        seed = decision.sampling.seed
        sampling = replace(self.sampling, max_tokens=decision.sampling.max_tokens, seed=seed)
        try:
            prompt = self.context.prompt_ids(sampling.max_tokens)
            found = await self.keep(self.ask, replace(decision, prompt_ids=prompt, sampling=sampling))
        except ContextOverflow as error:
            # Not the policy's overflow: an episode that ended for it would be counted as a failure of the policy.
            raise EngineFault(f"the guide's own prompt does not fit: {error}") from error
        return marked_as(self.take(found), self.producer)

    def hear(self, generation: Generation, text: str) -> None:
        """Remember what was done."""
        self.remember(text, generation.finish_reason)

    def remember(self, text: str, finish: Literal["stop", "length"]) -> None:
        """Put an action into the guide's context, in ids of the guide."""
        ids = self.give(text)
        # Said by a script, so that the rule for actions does not look for its marks in what is the action alone.
        span = Span(start=0, end=len(ids), version=-1, producer="dataset")
        said = Generation(
            token_ids=ids, logprobs=(0.0,) * len(ids), finish_reason=finish, spans=(span,) if text else ()
        )
        self.context.act(said)


class EngineGuide:
    """A model with weights of its own, or the policy's engine with a hint in its prompt.

    Args:
        new_context: of the guide, by its own codec and with its own instructions.
        ask, keep: how the engine is asked (`asked_alone`, or the policy's own way), and where answers are kept.
        codec: of the guide; own: of the policy. With one tokenizer for both, ids are passed on as they are.
        engine: closed with the guide; None where it is the policy's.
        hint: stands before the latest observation; empty = none.
    """

    producer: Producer = "guide"

    def __init__(
        self,
        name: str,
        new_context: Callable[[], Context],
        ask: Act,
        keep: Keep,
        *,
        codec: ChatCodec,
        own: ChatCodec,
        sampling: Sampling,
        engine: Engine | None = None,
        hint: str = "",
    ) -> None:
        self.name, self.new_context, self.ask, self.keep = name, new_context, ask, keep
        self.codec, self.own, self.sampling = codec, own, sampling
        self.engine, self.hint = engine, hint
        self.same = same_tokens(codec, own)

    def begin(self, task: Task) -> Advice:
        """For one episode of this task."""
        return EngineAdvice(
            self.new_context(),
            self.ask,
            self.keep,
            self.sampling,
            show=self._shown,
            take=self._taken,
            give=self.codec.encode_action,
            producer=self.producer,
        )

    def _shown(self, observation: Observation) -> Observation:
        return replace(observation, text=f"{self.hint}\n{observation.text}") if self.hint else observation

    def _taken(self, generation: Generation) -> Generation:
        if self.same:
            return generation
        ids = self.own.encode_action(self.codec.decode_action(generation.token_ids))
        return replace(generation, token_ids=ids, logprobs=(0.0,) * len(ids), sampler_mask=None)

    async def show_life(self, tasks: Sequence[Task]) -> None:
        """Raises ConfigError where the engine gives no answer."""
        if self.engine is None:
            return  # the policy's own engine, which the run begins with anyway
        context = self.new_context()
        context.observe(Observation(text="Ready?"))
        try:
            prompt = context.prompt_ids(4)
            await self.engine.generate(prompt, replace(self.sampling, max_tokens=4), request_id="guide/life")
        except RollwrightError as error:
            raise ConfigError(f"the guide {self.name} gave no sign of life before training: {error}") from error

    def close(self) -> None:
        """Free the engine's weights."""
        if self.engine is not None:
            self.engine.close()


def same_tokens(one: ChatCodec, two: ChatCodec) -> bool:
    """Whether the ids of one tokenizer mean the same to the other."""
    # The same words may end in another token, which the policy's engine would not stop at.
    ends = one.stop_token_ids == two.stop_token_ids
    return one is two or (ends and one.tokenizer.get_vocab() == two.tokenizer.get_vocab())


def asked_alone(engine: Engine) -> Act:
    """Ask an engine one request at a time, from a state that holds nothing of earlier ones, where it can.

    Its answers then do not depend on what else waits, and a resumed run gets them again to the bit.
    """
    turn = asyncio.Lock()

    async def ask(decision: Decision) -> Generation:
        prompt, sampling, name = decision.prompt_ids, decision.sampling, decision.request_id
        if not isinstance(engine, BatchEngine):
            return await engine.generate(prompt, sampling, request_id=name)
        one = Ask(prompt_ids=prompt, sampling=sampling, request_id=name)
        async with turn:
            (answer,) = await engine.generate_together([one])
        if isinstance(answer, Generation):
            return answer
        raise answer

    return ask


@dataclass
class ChatAdvice:
    """Advice by an endpoint: the conversation so far as messages."""

    client: ChatClient
    instructions: str
    temperature: float
    encode: Encode
    keep: Keep
    history: list[Message] = field(default_factory=list)

    def see(self, decision: Decision) -> None:
        """Take in the observation; first of all the way that lies before the episode."""
        for passed in decision.passed if not self.history else ():
            self._observe(passed.shown.text, passed.shown.goal)
            self.history.append(Message(role="assistant", content=passed.action))
        self._observe(decision.observation.text, decision.observation.goal)

    def _observe(self, text: str, goal: str) -> None:
        shown = f"Task: {goal}\n{text}" if goal else text
        self.history.append(Message(role="user", content=shown))

    async def act(self, decision: Decision) -> Answer:
        """The answer's text, encoded once into ids of the policy."""
        return marked_as(await self.keep(self._ask, decision), "guide")

    async def _ask(self, decision: Decision) -> Generation:
        """Raises EngineFault where the endpoint gives no answer."""
        system = (Message(role="system", content=self.instructions),) if self.instructions else ()
        request = self.client.request(
            (*system, *self.history),
            temperature=self.temperature,
            max_tokens=decision.sampling.max_tokens,
            seed=decision.sampling.seed or 0,
        )
        try:
            # On a thread: other episodes go on while the endpoint thinks.
            text = await asyncio.to_thread(self.client.ask, request)
        except ChatFailure as error:
            raise EngineFault(f"the guide gave no answer: {error}") from error
        ids = self.encode(text.strip())
        return Generation(token_ids=ids, logprobs=(0.0,) * len(ids), finish_reason="stop", spans=())

    def hear(self, generation: Generation, text: str) -> None:
        """Remember what was done."""
        self.history.append(Message(role="assistant", content=text))


class EndpointGuide:
    """A model behind an OpenAI-compatible endpoint. Its text is untrusted: it becomes an action like any other."""

    producer: Producer = "guide"

    def __init__(
        self, client: ChatClient, instructions: str, encode: Encode, keep: Keep, *, temperature: float
    ) -> None:
        self.client, self.instructions, self.encode = client, instructions, encode
        self.keep, self.temperature = keep, temperature
        self.name = f"endpoint:{client.model}"

    def begin(self, task: Task) -> Advice:
        """For one episode of this task."""
        return ChatAdvice(self.client, self.instructions, self.temperature, self.encode, self.keep)

    async def show_life(self, tasks: Sequence[Task]) -> None:
        """Raises ConfigError where the endpoint does not answer."""
        ready = [Message(role="user", content="Answer with one word: ready")]
        request = self.client.request(ready, temperature=0.0, max_tokens=8, seed=0)
        try:
            await asyncio.to_thread(self.client.ask, request)
        except ChatFailure as error:
            raise ConfigError(
                f"`actor.url`: the guide gave no sign of life before training: {error}. Start its server, or correct "
                "`actor.url`, `actor.model` and `actor.key_variable`"
            ) from error

    def close(self) -> None:
        """Nothing is held."""
