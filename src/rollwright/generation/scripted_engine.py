"""An engine without a model: it says what a list or a function tells it to. For teachers, guides and tests."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from rollwright.contracts import ContextOverflow, EngineFault, Producer, Span
from rollwright.generation.engine import Generation, Sampling

if TYPE_CHECKING:
    from torch import Tensor

Script = Callable[[tuple[int, ...], str], str | Awaitable[str]]
"""(prompt_ids, request_id) to the action's text."""


class ScriptedEngine:
    """Engine "scripted".

    Log-probs are 0: a script is certain. The spans name the producer, so nothing of it passes for the policy's own
    tokens unless a test says `producer="policy"`.

    Args:
        script: texts, given out in the order of the requests and over again; or a function of prompt and request id.
        encode_action: text to ids, stop token included (`ChatCodec.encode_action`).
        delay_s: how long each answer takes.
    """

    name = "scripted"

    def __init__(
        self,
        script: Sequence[str] | Script,
        encode_action: Callable[[str], Sequence[int]],
        *,
        producer: Producer = "dataset",
        context_length: int = 1_000_000,
        delay_s: float = 0.0,
    ) -> None:
        if not callable(script) and not script:
            raise ValueError("the script is empty: give one text at least")
        self.script, self.encode_action, self.producer = script, encode_action, producer
        self.context_length, self.delay_s = context_length, delay_s
        self.version = 0
        self._calls = 0
        self._closed = False

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, *, request_id: str) -> Generation:
        """The next text of the script as ids, cut at `max_tokens` (finish reason "length")."""
        if self._closed:
            raise EngineFault("engine scripted is closed")
        if len(prompt_ids) + sampling.max_tokens > self.context_length:
            raise ContextOverflow(
                f"the prompt has {len(prompt_ids)} tokens and max_tokens is {sampling.max_tokens}, but the scripted "
                f"engine takes {self.context_length}"
            )
        ids = tuple(self.encode_action(await self._text(tuple(prompt_ids), request_id)))
        await asyncio.sleep(self.delay_s)  # 0 s as well: the loop turns to other episodes, as with a real engine
        kept = ids[: sampling.max_tokens]
        return Generation(
            token_ids=kept,
            logprobs=(0.0,) * len(kept),
            finish_reason="stop" if len(kept) == len(ids) else "length",
            spans=(Span(start=0, end=len(kept), version=self.version, producer=self.producer),),
            generate_s=self.delay_s,
        )

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], *, version: int) -> None:
        """Nothing to load; counts the version."""
        self.version = version

    def close(self) -> None:
        """Nothing to give back."""
        self._closed = True

    async def _text(self, prompt_ids: tuple[int, ...], request_id: str) -> str:
        if not callable(self.script):
            text = self.script[self._calls % len(self.script)]
            self._calls += 1
            return text
        result = self.script(prompt_ids, request_id)
        return await result if inspect.isawaitable(result) else result
