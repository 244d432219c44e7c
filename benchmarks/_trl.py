"""TRL's GRPOTrainer on our environments: every answer a tool call, and vLLM made to work on CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

# The dialogue of `rollwright.models.tiny_model`, and besides it tool calls and tool answers, which TRL asks of a
# template. An answer of the environment is rendered as a user's message, as ours is: both sides give the policy the
# same text.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ 'user' if message['role'] == 'tool' else message['role'] }}\n"
    "{% if message['tool_calls'] %}{% for call in message['tool_calls'] %}{{ call['function']['name'] }} "
    "{{ call['function']['arguments'] | tojson }}{% endfor %}{% else %}{{ message['content'] }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOL, ARGUMENT = "act", "text"


def tool_tokenizer(folder: str | Path) -> Any:
    """The folder's tokenizer; whatever was sampled parses as one call of the environment's `act`.

    A small random model writes no JSON. This way an episode has the same turns, prompts and tokens on both sides.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.padding_side = "left"

    def parse_response(ids: list[int], prefix: object = None, tools: object = None) -> dict[str, Any]:
        text = tokenizer.decode(ids, skip_special_tokens=True)
        call = {"type": "function", "function": {"name": TOOL, "arguments": {ARGUMENT: text}}}
        return {"role": "assistant", "content": text, "tool_calls": [call]}

    tokenizer.parse_response = parse_response
    tokenizer.response_template = {}
    return tokenizer


def grpo_trainer(folder: Path, *, output: Path, **settings: Any) -> Any:
    """A GRPOTrainer for CPU and float32 that only trains: no logs, no checkpoints, no gradient checkpointing.

    Args:
        settings: `model_init` apart, everything of `GRPOConfig`; and `rewards`, `dataset`, `environment`, `callbacks`.
    """
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl import GRPOConfig, GRPOTrainer

    parts = {name: settings.pop(name, None) for name in ("rewards", "dataset", "environment", "callbacks")}
    config = GRPOConfig(
        output_dir=str(output),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        model_init_kwargs={"dtype": "float32"},
        **settings,
    )
    return GRPOTrainer(
        model=str(folder),
        args=config,
        processing_class=tool_tokenizer(folder),
        reward_funcs=parts["rewards"],
        train_dataset=parts["dataset"],
        environment_factory=parts["environment"],
        callbacks=parts["callbacks"],
    )


def repair_vllm_on_cpu() -> None:
    """Two changes without which TRL 1.16's colocated vLLM fails or takes minutes on CPU.

    Eager mode, in float32: compiling takes two minutes, and TRL has no argument for it. And the weight update: TRL
    copies into parameters that vLLM has packed away; vLLM's own reload is used, with the tied head packed again.
    """
    import vllm
    from trl.generation import vllm_generation

    from rollwright.generation import rank_without_compiling, repack_tied_head

    def eager(*args: Any, **kwargs: Any) -> Any:
        return vllm.LLM(*args, **kwargs, enforce_eager=True, dtype="float32", block_size=32)

    def sync_weights(self: Any) -> None:
        weights = ((name, value.detach()) for name, value in self._iter_named_params())
        self.llm.llm_engine.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        self.llm.llm_engine.apply_model(repack_tied_head)
        self.llm.reset_prefix_cache()

    rank_without_compiling()
    vllm_generation.LLM = eager
    vllm_generation.VLLMGeneration.sync_weights = sync_weights
