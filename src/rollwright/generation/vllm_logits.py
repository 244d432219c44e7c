"""A change of logits inside vLLM: what `VLLMEngine.perturb` is made of.

vLLM makes its logits processors by itself, from classes, and tells them how its batch changes; a class that is made
for one engine knows the hook through which that engine reaches it. Engine and learner are one process, so the change
reads the weights that are being trained, and no copy of them has to be kept in step.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from rollwright.generation.engine import Perturb


@dataclass(eq=False, slots=True)
class LogitsHook:
    """What one engine and its processor share. `attached`: vLLM has made the processor, and in this process."""

    change: Perturb | None = None
    attached: bool = False


def processor_class(hook: LogitsHook) -> type[Any]:
    """A class of logits processors for `LLM(logits_processors=[...])`; without a change it leaves logits as they are.

    vLLM has two model runners with an interface each, and chooses between them by itself when it reads its settings (a
    CPU always has the first, a GPU mostly the second), so the class speaks both.
    """
    from vllm.v1.sample.logits_processor import BatchUpdate, process_dict_updates
    from vllm.v1.sample.logits_processor import LogitsProcessor as FirstRunner

    class Perturbing(FirstRunner, *_of_second_runner()):  # type: ignore[misc]
        """Called by vLLM before temperature, top-k and top-p.

        The first runner tells how its batch changes, so that the ids of every row are kept; the second has them in
        slots (`states`) and says at every step which row is which slot's.
        """

        def __init__(self, vllm_config: Any, device_or_states: Any, is_pin_memory: bool | None = None) -> None:
            self._rows: dict[int, tuple[list[int], list[int]]] = {}  # place in the batch -> prompt, tokens so far
            self._states = device_or_states  # of the second runner
            hook.attached = True

        def is_argmax_invariant(self) -> bool:
            return False  # or greedy requests would be left out

        def update_state(self, batch_update: BatchUpdate | None) -> None:
            process_dict_updates(self._rows, batch_update, lambda _, prompt, output: (prompt or [], output))

        def apply(self, logits: Tensor, ctx: Any = None) -> Tensor:
            if hook.change is None:
                return logits
            if ctx is not None:
                return hook.change(ids_of_slots(self._states.all_token_ids.gpu, ctx), logits)
            # vLLM appends to `output` by itself. A row that it does not know any more would be a KeyError here.
            pairs = [self._rows[place] for place in range(len(logits))]
            return hook.change([(*prompt, *output) for prompt, output in pairs], logits)

    return Perturbing


def can_attach(*, on_cpu: bool) -> bool:
    """Whether a class of ours may be given to vLLM: a second runner without an interface would not start with one.

    Its engine core must be in this process: the class could not be sent to another, nor could it see the critic there.
    """
    here = os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") == "0"
    return here and (on_cpu or bool(_of_second_runner()) or os.environ.get("VLLM_USE_V2_MODEL_RUNNER") == "0")


def _of_second_runner() -> tuple[type[Any], ...]:
    """Its interface, where this vLLM has one; older ones refuse processors there."""
    try:
        from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor
    except ImportError:
        return ()
    return (LogitsProcessor,)


def ids_of_slots(all_ids: Tensor, ctx: Any) -> list[tuple[int, ...]]:
    """The ids up to the one that each row of logits comes after.

    Args:
        all_ids: [slots, longest] prompt and tokens of each request, what lies behind them left over from others.
        ctx: vLLM's `LogitsContext`. The newest token is taken from it: it may not have reached `all_ids` yet.
    """
    lengths, newest = (ctx.pos + 1).tolist(), ctx.input_ids.tolist()
    # Cut on the device: the slots are as wide as the context, and only the longest row's width is copied from there.
    rows = all_ids[ctx.expanded_idx_mapping.to(all_ids.device).long(), : max(lengths, default=0)].tolist()
    return [(*row[: n - 1], token) for row, n, token in zip(rows, lengths, newest, strict=True)]
