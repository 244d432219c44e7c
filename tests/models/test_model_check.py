"""The model check: every family is exact, falls back by itself, or is refused with what its configuration names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from rollwright.config import load_config
from rollwright.contracts.errors import ConfigError
from rollwright.generation.cache_check import check_cache
from rollwright.generation.transformers_engine import TransformersEngine
from rollwright.generation.vllm_engine import complete, weight_names
from rollwright.learner.learner import Learner
from rollwright.learner.objective import PolicyObjective
from rollwright.learner.policy_losses import Ppo
from rollwright.learner.token_critic import CriticSettings
from rollwright.learner.weights import checkpoint_weights
from rollwright.methods.outcome_model import next_token_logits
from rollwright.models.loading import load_model, with_lora
from rollwright.models.model_check import check_model
from rollwright.models.model_files import facts_of, window_of
from rollwright.models.tiny_model import make_tiny_model, tiny_llama
from rollwright.recipes.grpo import GrpoConfig
from rollwright.training.preflight_models import require_context
from rollwright.training.recipe_entry import recipe_config
from tests.model_families import FAMILIES, VOCAB, WINDOW, Family, build
from tests.token_batches import SpelledTurn, batch_of, per_turn

CASES = [pytest.param(family, id=name) for name, family in FAMILIES.items()]


def turns(count: int = 6, *, length: int = 12, seed: int = 0) -> list[SpelledTurn]:
    """Two-turn episodes from one start, whose sequences are longer than a small window."""
    generator = torch.Generator().manual_seed(seed)

    def draw(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCAB, (n,), generator=generator).tolist())

    root, rows = draw(length), []
    for _ in range(count):
        first, second = draw(3), draw(4)
        rows += [(root, first), ((*root, *first, *draw(2)), second)]
    return [
        SpelledTurn(
            prompt_ids=prompt,
            action_ids=action,
            logprobs_sampled=(-4.0,) * len(action),
            advantages=(1.0 if index % 2 else -1.0,) * len(action),
            returns=(1.0,) * len(action),
            sequence=index // 2,
        )
        for index, (prompt, action) in enumerate(rows)
    ]


@torch.no_grad()
def own_logprobs(model: Any, segments: Sequence[SpelledTurn]) -> list[torch.Tensor]:
    """The plain way: one sequence at a time, under the attention of the model's own file."""
    before = model.config._attn_implementation
    if model.config.model_type != "falcon":  # whose file chooses when it is built
        model.set_attn_implementation("eager")
    rows = []
    for segment in segments:
        ids = torch.tensor([[*segment.prompt_ids, *segment.action_ids]])
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
        part = logits[len(segment.prompt_ids) - 1 : -1].log_softmax(-1)
        rows.append(part.gather(-1, torch.tensor(segment.action_ids)[:, None])[:, 0])
    if model.config.model_type != "falcon":
        model.set_attn_implementation(before)
    return rows


def assert_own(learner: Learner, model: Any, segments: Sequence[SpelledTurn], tolerance: float = 2e-4) -> None:
    expected = own_logprobs(model, segments)
    for mine, own in zip(per_turn(learner.logprobs, segments), expected, strict=True):
        torch.testing.assert_close(mine, own, rtol=0, atol=tolerance)


@pytest.mark.parametrize("family", CASES)
def test_log_probs_are_the_models_own_in_every_layout_that_is_chosen(family: Family) -> None:
    model = build(family)
    for layout in ("tree", "padded", "auto"):
        learner = Learner(Accelerator(cpu=True), model, learning_rate=1e-9, layout=layout, token_budget=128)
        falls_back = family.prefixes != "shared" and layout != "padded"
        assert learner.checked.layout == ("padded" if falls_back else layout)
        assert bool(learner.checked.note) == falls_back
        assert_own(learner, model, turns())
    try:
        assert check_cache(model) < 1e-4 and family.cached
    except ConfigError as refused:
        assert not family.cached and "`engine.name=vllm`" in str(refused)
        with pytest.raises(ConfigError, match="a state from token to token"):
            TransformersEngine(model)


@pytest.mark.parametrize("name", ["Gemma 2", "Granite", "Cohere"])
def test_caps_and_scalings_hold_at_the_size_that_trained_models_have(name: str) -> None:
    model = build(FAMILIES[name])
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "embed_tokens" in key or "lm_head" in key:
                weight.mul_(30)
            if "q_proj" in key:
                weight.mul_(100)
    learner = Learner(Accelerator(cpu=True), model, learning_rate=1e-9, token_budget=512)
    assert_own(learner, model, turns(), tolerance=5e-3)
    plain, head = model.get_output_embeddings(), model(input_ids=torch.arange(9)[None], output_hidden_states=True)
    assert not torch.allclose(plain(head.hidden_states[-1]), head.logits, rtol=1e-2)
    torch.testing.assert_close(next_token_logits(model, head.hidden_states[-1]), head.logits, rtol=1e-4, atol=1e-3)


def test_a_cap_that_the_attention_leaves_out_is_refused_by_name() -> None:
    from transformers import AutoModelForCausalLM

    config = build(FAMILIES["Gemma 2"]).config
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    with pytest.raises(ConfigError, match=r"attention scores are capped at 50\.0 \(attn_logit_softcapping\)"):
        check_model(model)


def test_a_head_that_does_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama(VOCAB, hidden=32)
    plain = type(model).forward

    def bent(self: Any, *args: Any, **words: Any) -> Any:
        output = plain(self, *args, **words)
        output.logits = 60 * torch.tanh(output.logits / 60)  # hardly seen at the logits of a random model
        return output

    monkeypatch.setattr(type(model), "forward", bent)
    with pytest.raises(ConfigError, match="LlamaForCausalLM cannot be trained"):
        Learner(Accelerator(cpu=True), model, learning_rate=1e-3)


def test_the_rounding_of_a_deep_model_is_no_difference() -> None:
    checked = check_model(tiny_llama(VOCAB, hidden=64, layers=30))
    assert checked.layout == "auto" and max(checked.differences.values()) < 1e-3


def test_a_model_that_does_not_run_is_refused() -> None:
    model = tiny_llama(VOCAB, hidden=32)
    model.model.layers[0].mlp.up_proj = torch.nn.Linear(8, 96)
    with pytest.raises(ConfigError, match="does not run on a few tokens"):
        check_model(model)


def test_the_check_leaves_model_and_random_numbers_as_they_were() -> None:
    model = tiny_llama(VOCAB, hidden=32)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert check_model(model).differences["tree"] < 1e-3
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.config._attn_implementation == "sdpa_tree"
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["LFM2", "Gemma 3", "Falcon, ALiBi", "GPT-2"])
def test_update_reference_adapter_and_critic_go_by_what_the_check_found(name: str) -> None:
    model = with_lora(build(FAMILIES[name]), rank=2)
    learner = Learner(
        Accelerator(cpu=True),
        model,
        learning_rate=1e-9,
        token_budget=128,
        reference="adapter",
        critic=CriticSettings(learning_rate=1e-9),
    )
    segments = turns()
    expected = own_logprobs(model.get_base_model(), segments)
    for mine, own in zip(per_turn(learner.reference_logprobs, segments), expected, strict=True):
        torch.testing.assert_close(mine, own, rtol=0, atol=2e-4)
    metrics = learner.update(batch_of(segments), PolicyObjective(loss=Ppo(), correction="none"), minibatches=2)
    assert metrics["policy/ratio_clipped_frac"] == 0 and abs(metrics["policy/kl_old_mean"]) < 1e-5


def test_rows_of_branches_may_be_longer_than_the_model_has_positions() -> None:
    model = build(FAMILIES["GPT-2"], n_positions=24)
    learner = Learner(Accelerator(cpu=True), model, learning_rate=1e-9, layout="tree", token_budget=160)
    segments = [*turns(12), *turns(4, length=9, seed=1)]
    widths = [packed.input_ids.shape[1] for packed in learner._pack(segments, whole_sequences=False)]
    assert max(widths) > 24
    assert_own(learner, model, segments)


@pytest.mark.parametrize(("budget", "layout"), [(WINDOW, "auto"), (WINDOW + 1, "padded")])
def test_a_window_matters_where_rows_outgrow_it(budget: int, layout: str) -> None:
    model = build(FAMILIES["Mistral, window"], sliding_window=64)
    assert window_of(model.config) == 64
    assert check_model(model, token_budget=budget + 64 - WINDOW).layout == layout


def test_facts_name_what_is_peculiar_and_nothing_of_a_plain_model() -> None:
    told = {
        name: " ".join(facts_of(build(FAMILIES[name]).config)) for name in ("Gemma 2", "GPT-2", "LFM2", "Falcon, ALiBi")
    }
    for name, words in {
        "Gemma 2": ("attn_logit_softcapping", "final_logit_softcapping", "4096"),
        "GPT-2": ("attn_pdrop=0.1",),
        "LFM2": ("conv",),
        "Falcon, ALiBi": ("ALiBi",),
    }.items():
        assert all(word in told[name] for word in words), told[name]
    assert facts_of(tiny_llama(VOCAB, hidden=32, tied=False).config) == []


def test_files_that_know_only_their_own_attention_are_loaded(tmp_path: Path) -> None:
    build(FAMILIES["BLOOM"]).save_pretrained(tmp_path)
    assert load_model(tmp_path).config._attn_implementation == "eager"


@pytest.mark.parametrize("name", ["Qwen3-MoE", "Mixtral", "Qwen2-MoE", "Llama"])
def test_weights_go_to_vllm_under_the_names_of_the_models_folder(name: str, tmp_path: Path) -> None:
    model = build(FAMILIES[name])
    model.save_pretrained(tmp_path)
    sent = dict(complete(checkpoint_weights(model), weight_names(tmp_path)))
    for file in tmp_path.glob("*.safetensors"):
        for key, value in load_file(file).items():
            torch.testing.assert_close(sent[key], value, rtol=0, atol=0)


def test_a_run_whose_weights_an_engine_would_take_over_wrongly_is_refused(tmp_path: Path) -> None:
    build(FAMILIES["GPT-2"]).save_pretrained(tmp_path)
    words = ["world.name=web.miniwob", f"model.path={tmp_path}", "engine.name=vllm_server", "engine.max_context=128"]
    with pytest.raises(ConfigError, match=r"kind gpt2 .*engine\.name=transformers"):
        require_context(load_config(GrpoConfig, words))


def test_a_plan_with_a_check_compares_the_model_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tiny_model(tmp_path / "m", texts=["move up"], hidden=32)
    words = ["world.name=text.maze", f"model.path={tmp_path / 'm'}", "engine.name=transformers", "--plan", "--check"]
    with pytest.raises(SystemExit) as ended:
        recipe_config(GrpoConfig, [*words, f"run.folder={tmp_path / 'run'}"])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and "LlamaForCausalLM with layout auto" in said and "transformers, nats" in said
    assert not (tmp_path / "run").exists()
