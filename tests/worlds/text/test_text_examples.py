"""The examples of docs/worlds/text.md run as they stand, with the real gymnasium and the real TRL, and do something."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from rollwright.envs.text import from_gymnasium
from rollwright.envs.text.adapters.to_trl import environment_factory, prompt_rows, tool_tokenizer
from rollwright.models.tiny_model import make_tiny_model
from rollwright.recipes import grpo

gymnasium = pytest.importorskip("gymnasium")
trl = pytest.importorskip("trl")
pytestmark = pytest.mark.slow
PAGE = (Path(__file__).parents[3] / "docs" / "worlds" / "text.md").read_text(encoding="utf-8")
(CONFIG,) = [block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "from_gymnasium" in block]
(SCRIPT,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_gymnasium_run_trains_from_yaml_and_trl_takes_its_policy_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("frozen_lake.yaml").write_text(CONFIG, encoding="utf-8")
    small = ["run.steps=1", "rollout.group_size=2", "rollout.groups_per_step=1", "world.options.max_turns=4"]
    grpo.main(["frozen_lake.yaml", *small])
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(SCRIPT, "docs/worlds/text.md", "exec"), names)
    assert names["trainer"].state.global_step == 1
    again = tool_tokenizer("runs/frozen_lake_trl/policy")
    assert "tool_call" in again.chat_template and again.response_template


def test_a_model_that_calls_the_tool_plays_the_world_in_trls_loop(tmp_path: Path) -> None:
    """A tiny model is taught the one call by heart; TRL finds it, plays it, and books what the world paid."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM

    options = {**yaml.safe_load(CONFIG)["world"]["options"], "env_options": {"is_slippery": False, "desc": ["SG"]}}
    world = from_gymnasium.build(**options)  # the goal lies one step to the right
    factory, rows = environment_factory(world), prompt_rows(world, split="train", count=2)
    call = '<tool_call>{"name": "act", "arguments": {"action": "right"}}</tool_call><|im_end|>'
    texts = [*world.texts(), json.dumps(rows[0]["prompt"]), call]
    folder = make_tiny_model(tmp_path / "tiny", texts=texts * 3, tokenizer="bpe", hidden=64, context_length=2048)
    tokenizer, model = tool_tokenizer(folder), AutoModelForCausalLM.from_pretrained(folder)
    env = factory()
    said = [rows[0]["prompt"][0], {"role": "user", "content": env.reset(**rows[0])}]
    shown = tokenizer.apply_chat_template(said, tools=[env.act], add_generation_prompt=True, tokenize=False)
    prompt, answer = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (shown, call))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        ids, labels = torch.tensor([prompt + answer]), torch.tensor([[-100] * len(prompt) + answer])
        model(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    trainer = trl.GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        args=trl.GRPOConfig(
            output_dir=str(tmp_path / "out"),
            max_steps=1,
            per_device_train_batch_size=2,
            num_generations=2,
            max_completion_length=256,
            max_tool_calling_iterations=1,
            temperature=0.01,
            report_to=[],
            use_cpu=True,
            bf16=False,
            save_strategy="no",
        ),
        train_dataset=Dataset.from_list(rows),
        environment_factory=factory,
    )
    trainer.train()
    logged = next(entry for entry in trainer.state.log_history if "reward" in entry)
    assert logged["tools/call_frequency"] == 1.0 and logged["tools/failure_frequency"] == 0.0
    assert logged["rewards/WorldTools/mean"] == 1.0
