"""Model folders: read whole or refused, asked for no more positions than they have, adapters added to their model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, LlamaConfig, Phi3Config, RobertaConfig, RobertaForMaskedLM

from rollwright.contracts.errors import ConfigError, ModelNotFound
from rollwright.critics.critic_body import other_body
from rollwright.generation.open_engine import open_engine
from rollwright.generation.select_engine import make_engine
from rollwright.methods.outcome_model import _load_scalar
from rollwright.models import loading as models
from rollwright.models.loading import load_model, load_policy, load_tokenizer, with_lora
from rollwright.models.model_files import positions_of
from rollwright.models.starting_model import open_codec
from rollwright.models.tiny_model import make_tiny_model
from rollwright.recipes.evaluate import EvaluateConfig
from rollwright.training.preflight_models import require_context, require_models
from rollwright.training.recipe_entry import recipe_config

TEXTS = ["move up", "move down"]
FIRST = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "m", texts=TEXTS, hidden=32, layers=2, context_length=64)


@pytest.fixture
def changed(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the folder whose tensors were changed by a function."""

    def change(edit: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
        shutil.copytree(folder, tmp_path / "changed")
        file = tmp_path / "changed" / "model.safetensors"
        tensors = load_file(file)
        edit(tensors)
        save_file(tensors, file, metadata={"format": "pt"})
        return tmp_path / "changed"

    return change


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda tensors: tensors.pop(FIRST), "it lacks"),
        (lambda tensors: tensors.update({"v_head.weight": torch.zeros(2)}), "it holds unknown v_head.weight"),
        (lambda tensors: tensors.update({FIRST: torch.zeros(5, 32)}), r"\(5, 32\) where \(96, 32\) is wanted"),
        (lambda tensors: tensors.update({"other": tensors.pop(FIRST)}), "holds unknown other"),
    ],
    ids=["missing", "surplus", "shape", "renamed"],
)
def test_tensors_that_do_not_fit_are_refused_by_name(changed: Any, edit: Any, told: str) -> None:
    broken = changed(edit)
    with pytest.raises(ModelNotFound, match=told) as refused:
        load_model(broken)
    assert ("v_head" in str(refused.value)) or (FIRST in str(refused.value))


def test_an_evaluation_of_a_folder_that_lacks_a_layer_ends_before_an_episode(changed: Any, tmp_path: Path) -> None:
    broken = changed(lambda tensors: [tensors.pop(name) for name in list(tensors) if ".layers.1." in name])
    with pytest.raises(ModelNotFound, match=r"it lacks model\.layers\.1"):
        make_engine("transformers", model_path=broken, context_length=64)


def test_tables_of_older_versions_are_no_surplus(changed: Any) -> None:
    load_model(changed(lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})))


def test_a_scorer_needs_its_head_and_a_critics_model_all_but_the_head(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"it lacks score\.weight"):
        _load_scalar(folder, "float32", "cpu")
    config = RobertaConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    RobertaForMaskedLM(config).save_pretrained(tmp_path / "roberta")
    load_tokenizer(folder).save_pretrained(tmp_path / "roberta")
    other_body(tmp_path / "roberta", load_tokenizer(folder))
    file = tmp_path / "roberta" / "model.safetensors"
    tensors = {name: value for name, value in load_file(file).items() if ".layer.0.output" not in name}
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"it lacks encoder\.layer\.0\.output"):
        other_body(tmp_path / "roberta", load_tokenizer(folder))


# --- positions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["transformers", "vllm", "vllm_server"])
def test_no_engine_is_asked_for_more_positions_than_there_are(folder: Path, engine: str) -> None:
    with pytest.raises(ConfigError, match=r"engine\.max_context=65.* takes 64 tokens"):
        make_engine(engine, model_path=folder, context_length=65)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["model.path={folder}", "engine.max_context=65"], "takes 64 tokens"),
        (["model.path=tiny", "model.tiny_context=128", "engine.max_context=129"], "model.tiny_context=128"),
    ],
)
def test_the_plan_finds_a_context_beyond_the_positions(folder: Path, words: list[str], told: str) -> None:
    argv = [word.format(folder=folder) for word in words]
    with pytest.raises(ConfigError, match=told):
        recipe_config(EvaluateConfig, ["world.name=text.maze", "engine.name=transformers", *argv, "--plan"])


def test_a_context_that_nobody_wrote_down_gives_way_to_the_model(folder: Path) -> None:
    words = ["world.name=text.maze", "engine.name=transformers", f"model.path={folder}"]
    engine_settings = recipe_config(EvaluateConfig, words).engine
    assert engine_settings.max_context == 1024
    engine = open_engine(engine_settings, folder, open_codec(folder))
    assert engine.context_length == 64
    engine.close()
    require_context(recipe_config(EvaluateConfig, ["world.name=text.maze", "model.path=tiny"]))
    with pytest.raises(ConfigError, match="takes 64 tokens"):  # written down, even as the default has it
        recipe_config(EvaluateConfig, [*words, "engine.max_context=1024"])


def test_positions_are_counted_as_the_model_uses_them() -> None:
    plain = {"hidden_size": 32, "num_attention_heads": 2, "max_position_embeddings": 100}
    scaled = {"factor": 4.0, "original_max_position_embeddings": 100, "rope_theta": 1e4}
    factors = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    long = Phi3Config(
        hidden_size=32,
        num_attention_heads=2,
        max_position_embeddings=400,
        original_max_position_embeddings=100,
        pad_token_id=0,
        rope_parameters={"rope_type": "longrope", **scaled, **factors},
    )
    cases = [
        (GPT2Config(n_positions=77), 77),
        (LlamaConfig(**plain), 100),
        (LlamaConfig(**plain, rope_parameters={"rope_type": "yarn", **scaled}), 400),
        (LlamaConfig(**plain, rope_parameters={"rope_type": "dynamic", **scaled}), 100),
        (long, 100),
    ]
    for config, count in cases:
        assert positions_of(config)[0] == count, config
    assert "LongRoPE" in positions_of(long)[1]


# --- adapters -----------------------------------------------------------------------------------------------------


@pytest.fixture
def adapter(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    adapted = with_lora(load_model(folder), rank=4)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(20)[None]).logits


def test_an_adapter_folder_is_a_model(folder: Path, adapter: Path) -> None:
    model, tokenizer = load_policy(adapter)
    expected = PeftModel.from_pretrained(load_model(folder), adapter)
    torch.testing.assert_close(logits_of(model), logits_of(expected), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits_of(model), logits_of(load_model(folder)), atol=1e-2)
    assert tokenizer.chat_template
    assert models.resolve_model(adapter) == models.resolve_model(adapter)
    engine = make_engine("transformers", model_path=adapter, context_length=64)
    engine.close()


def test_the_plan_takes_an_adapter_folder(adapter: Path) -> None:
    words = ["world.name=text.maze", "engine.name=transformers", "engine.max_context=64", f"model.path={adapter}"]
    config = recipe_config(EvaluateConfig, words)
    require_models(config)
    require_context(config)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda a: _say(a, base_model_name_or_path="/nowhere"), "/nowhere"),
        (lambda a: _say(a, base_model_name_or_path=None), "does not name its model"),
        (lambda a: _say(a, base_model_name_or_path=str(a)), "names itself"),
        (lambda a: (a / "adapter_model.safetensors").unlink(), "adapter_model.safetensors"),
        (lambda a: (a / "adapter_config.json").write_text("{"), "cannot be read"),
        (lambda a: _say(a, r=8), "does not fit"),
        (lambda a: _drop(a), "it lacks .*lora_A"),
    ],
    ids=["no base", "unnamed base", "itself", "no weights", "broken", "other rank", "half"],
)
def test_an_adapter_that_cannot_be_added_is_refused(adapter: Path, harm: Any, told: str) -> None:
    harm(adapter)
    with pytest.raises(ModelNotFound, match=told):
        models.resolve_model(adapter)


def _say(adapter: Path, **words: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | words))


def _drop(adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    tensors = {name: value for name, value in load_file(file).items() if "layers.1" not in name}
    save_file(tensors, file, metadata={"format": "pt"})
