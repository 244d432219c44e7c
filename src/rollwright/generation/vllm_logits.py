"""A change of logits inside vLLM: what `VLLMEngine.perturb` is made of.

vLLM makes its logits processors by itself, from classes, and tells them how its batch changes; a class that is made
for one engine knows the hook through which that engine reaches it. Engine and learner are one process, so the change
reads the weights that are being trained, and no copy of them has to be kept in step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from rollwright.generation.base import Perturb


@dataclass(eq=False, slots=True)
class LogitsHook:
    """What one engine and its processor share. `attached`: vLLM has made the processor, and in this process."""

    change: Perturb | None = None
    attached: bool = False


def processor_class(hook: LogitsHook) -> type[Any]:
    """A class of logits processors for `LLM(logits_processors=[...])`; without a change it leaves logits as they are.

    The interface is that of vLLM's first model runner, the only one on a CPU.
    """
    from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, process_dict_updates

    class Perturbing(LogitsProcessor):
        """Keeps the ids of every row of the batch. Called by vLLM before temperature, top-k and top-p."""

        def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
            self._rows: dict[int, tuple[list[int], list[int]]] = {}  # place in the batch -> prompt, tokens so far
            hook.attached = True

        def is_argmax_invariant(self) -> bool:
            return False  # or greedy requests would be left out

        def update_state(self, batch_update: BatchUpdate | None) -> None:
            process_dict_updates(self._rows, batch_update, lambda _, prompt, output: (prompt or [], output))

        def apply(self, logits: Tensor) -> Tensor:
            if hook.change is None:
                return logits
            # vLLM appends to `output` by itself. A row that it does not know any more would be a KeyError here.
            pairs = [self._rows[place] for place in range(len(logits))]
            return hook.change([(*prompt, *output) for prompt, output in pairs], logits)

    return Perturbing
