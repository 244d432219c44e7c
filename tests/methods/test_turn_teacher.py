"""A teacher scores the student's own tokens behind its own prompts: identity, missing scores, other tokenizers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from rollwright.batching import TokenBatch, flatten
from rollwright.contracts import Group, Message, Turn
from rollwright.contracts.errors import ConfigError, TemplateError
from rollwright.contracts.record import Task
from rollwright.envs.text.combination_lock import build
from rollwright.learner import FrozenTeacher, Learner, PolicyObjective, TeacherObjective, require_same_vocabulary
from rollwright.methods.script_scores import script_logprobs
from rollwright.methods.teachers import TeacherSettings, require_teachable
from rollwright.methods.turn_teacher import TurnTeacher
from rollwright.models import ChatCodec, load_policy
from rollwright.models.tiny_model import make_tiny_model, tiny_tokenizer
from rollwright.rollout import with_hint
from tests import builders

WORLD = build(lengths=(3,), wording="compact", slip="over", hints="kept")
TASK = Task(id="train/lock3", split="train", params={"length": 3})
SEED = 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("m") / "tiny", texts=WORLD.texts(), hidden=32, layers=1)


@pytest.fixture(scope="module")
def codec(folder: Path) -> ChatCodec:
    return ChatCodec(load_policy(folder)[1])


@pytest.fixture
def learner(folder: Path) -> Iterator[Learner]:
    yield Learner(Accelerator(cpu=True), load_policy(folder)[0], learning_rate=1e-2, token_budget=128)


def windowed_turn(codec: ChatCodec, dial: int, action: str, **fields: Any) -> Turn:
    shown = (Message(role="user", content=f"lock3dial{dial}"),)
    ids = codec.encode_action(action)
    return builders.turn(codec.encode_start(shown), ids, observed=shown, text=action, **fields)


def group_of(codec: ChatCodec, *actions: str) -> Group:
    turns = [windowed_turn(codec, dial + 1, action) for dial, action in enumerate(actions)]
    return builders.group(builders.episode("a", *turns, task=TASK, seed=SEED))


class Played:
    """What a teacher asks of a collector: the world alone."""

    world = WORLD


def teacher_of(learner: Learner, codec: ChatCodec, longest: int = 512, **fields: Any) -> TurnTeacher:
    settings = TeacherSettings(**fields)
    top_k = fields.pop("top_k", None)
    return TurnTeacher(
        settings,
        learner,
        Played(),  # type: ignore[arg-type]
        codec,
        temperature=1.0,
        context="windowed",
        longest=longest,
        top_k=top_k,
    )


def scored(learner: Learner, group: Group) -> TokenBatch:
    batch = flatten([group])
    return batch.with_columns(logprobs_old=learner.logprobs(batch))


@pytest.mark.parametrize("fields", [{}, {"hint_from": "text", "hint": ""}])
def test_a_teacher_that_is_the_student_moves_nothing(learner: Learner, codec: ChatCodec, fields: Any) -> None:
    group = group_of(codec, "0", "1", "1")
    batch = scored(learner, group)
    taught = teacher_of(learner, codec, **fields).taught(batch, [group])
    assert taught.logprobs_ref is not None and batch.logprobs_old is not None
    assert float((taught.logprobs_ref - batch.logprobs_old).abs().max()) < 1e-5
    assert bool(taught.mask.all())
    before = {name: tensor.clone() for name, tensor in learner.weights()}
    learner.update(taught, PolicyObjective())
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.weights())


def test_a_hint_is_scored_behind_the_teachers_own_prompt(learner: Learner, codec: ChatCodec) -> None:
    group = group_of(codec, "0", "1")
    batch = scored(learner, group)
    taught = teacher_of(learner, codec, hint_from="world").taught(batch, [group])
    hint = WORLD.hint(TASK)
    first, second = group.trajectories[0].turns
    told = [replace(turn, prompt_ids=codec.encode_start(with_hint(turn.observed, hint))) for turn in (first, second)]
    by_hand = learner.logprobs(flatten([builders.group(builders.episode("a", *told, task=TASK))]))
    assert taught.logprobs_ref is not None
    torch.testing.assert_close(taught.logprobs_ref, by_hand)
    assert not torch.equal(taught.logprobs_ref, batch.logprobs_old)


def test_a_prompt_that_does_not_fit_is_masked(learner: Learner, codec: ChatCodec) -> None:
    group = group_of(codec, "0", "1")
    batch = scored(learner, group)
    room = len(batch.segments[0].prompt_ids) + 2  # for the student's own prompt and no hint
    taught = teacher_of(learner, codec, room, hint_from="world").taught(batch, [group])
    assert not taught.mask.any() and taught.logprobs_ref is not None
    assert taught.logprobs_ref.isfinite().all(), "NaN would pass a product with a weight of 0"


def test_prompts_that_cannot_be_made_again_end_the_run(learner: Learner, codec: ChatCodec) -> None:
    shown = (Message(role="user", content="lock3dial1"),)
    other = builders.turn(codec.encode_start(shown)[:-1], codec.encode_action("0"), observed=shown)
    group = builders.group(builders.episode("a", other, task=TASK))
    with pytest.raises(TemplateError, match="cannot be made"):
        teacher_of(learner, codec).taught(scored(learner, group), [group])


def test_a_teacher_out_of_line_with_the_student_is_found(learner: Learner, codec: ChatCodec) -> None:
    group, teacher = group_of(codec, "0"), teacher_of(learner, codec)
    batch = scored(learner, group)
    assert batch.logprobs_old is not None
    shifted = batch.with_columns(logprobs_old=batch.logprobs_old.roll(1))
    with pytest.raises(ConfigError, match="differs from it"):
        teacher.taught(shifted, [group])


@pytest.mark.parametrize("context", ["append", "windowed"])
def test_a_growing_context_keeps_its_ids(codec: ChatCodec, context: Any) -> None:
    from rollwright.rollout import teacher_prompts

    opening = (Message(role="user", content="lock3dial1"),)
    first = builders.turn(codec.encode_start(opening), codec.encode_action("0"), observed=opening)
    sampled = (*codec.encode_text("0 0 0"), codec.turn_end_id)  # ids that no encoding of the text would give
    later = (
        *first.prompt_ids,
        *sampled,
        *codec.encode_continuation("stop", [Message(role="user", content="lock3dial2")]),
    )
    second = builders.turn(later, codec.encode_action("1"), observed=(Message(role="user", content="lock3dial2"),))
    episode = builders.episode("a", first, second, task=TASK)
    found = teacher_prompts(episode, episode.turns, "dial1is0", codec, context=context, longest=512)
    new = codec.encode_start(with_hint(opening, "dial1is0"))
    assert found[0] == new
    behind = (*new, *later[len(first.prompt_ids) :])
    assert found[1] == (behind if context == "append" else None), "bit for bit, or not at all"


def test_live_and_average_teachers_follow(learner: Learner, codec: ChatCodec) -> None:
    base, live = teacher_of(learner, codec), teacher_of(learner, codec, weights="live")
    average = teacher_of(learner, codec, weights="average", rate=0.25)
    before = dict(learner.policy.named_parameters())["model.embed_tokens.weight"].detach().clone()
    with torch.no_grad():
        dict(learner.policy.named_parameters())["model.embed_tokens.weight"].add_(1.0)
    for teacher, moved in ((base, 0.0), (live, 1.0), (average, 0.25)):
        teacher.follow(0)
        mine = dict(teacher.model.model.named_parameters())["model.embed_tokens.weight"]
        torch.testing.assert_close(mine.detach(), before + moved)


def test_a_teacher_comes_back_from_a_checkpoint(learner: Learner, codec: ChatCodec, tmp_path: Path) -> None:
    teacher = FrozenTeacher(learner)
    assert teacher.is_the_policy
    teacher.follow(0.5)
    assert not teacher.is_the_policy, "a blend is nobody's copy, and must not be held to the student's log-probs"
    teacher.save_state(tmp_path)
    with torch.no_grad():
        dict(learner.policy.named_parameters())["model.embed_tokens.weight"].add_(1.0)
    again = FrozenTeacher(learner)
    again.load_state(tmp_path)
    assert not again.is_the_policy
    for one, two in zip(teacher.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("form", ["full", "top_k", "jsd"])
def test_a_divergence_over_the_vocabulary_is_that_of_both_models(learner: Learner, codec: ChatCodec, form: Any) -> None:
    """The loss of one update is the formula on the two models' own logits."""
    group = group_of(codec, "0", "1")
    batch = scored(learner, group)
    size = learner.policy.config.vocab_size
    teacher = TurnTeacher(
        TeacherSettings(hint_from="world"),
        learner,
        Played(),  # type: ignore[arg-type]
        codec,
        temperature=1.0,
        context="windowed",
        longest=512,
        top_k=size if form == "top_k" else 0,
    )
    taught = teacher.taught(batch, [group])
    expected = []
    for turn in group.trajectories[0].turns:
        told = codec.encode_start(with_hint(turn.observed, WORLD.hint(TASK)))
        own, theirs = (
            learner.policy(torch.tensor([[*prompt, *turn.action_ids]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            for prompt in (turn.prompt_ids, told)
        )
        if form == "jsd":
            mixed = (0.5 * own.exp() + 0.5 * theirs.exp()).log()
            kls = [(p.exp() * (p - mixed)).sum(-1) for p in (own, theirs)]
            expected.append(0.5 * kls[0] + 0.5 * kls[1])
        else:
            expected.append((own.exp() * (own - theirs)).sum(-1))
    objective = TeacherObjective(head=teacher.head, policy=PolicyObjective(), divergence=form, top_k=size)
    found = learner.update(taught, objective)
    assert found["distill/divergence_mean"] == pytest.approx(float(torch.cat(expected).mean().detach()), abs=1e-5)
    assert found["optim/grad_norm"] > 0
    if form == "top_k":
        assert found["distill/captured_mean"] == pytest.approx(1.0, abs=1e-5)


def test_a_script_is_sure_of_its_own_token_alone(codec: ChatCodec) -> None:
    right = WORLD.combinations[3]
    wrong = str(1 - right[1])
    episode = group_of(codec, str(right[0]), wrong).trajectories[0]
    first, second = script_logprobs(WORLD, [episode], codec, sureness=0.9, vocabulary=11)["a"]
    assert first == pytest.approx([-0.105361, -0.105361], abs=1e-6)
    assert second[0] == pytest.approx(-4.605170, abs=1e-6)  # log(.1 / 10)
    assert second[1] != second[1], "what follows a token that is not the script's is unknown"


def test_mistakes_are_refused_before_any_weight_is_loaded(folder: Path) -> None:
    for fields, said in (
        ({"hint_from": "world"}, r"hint\(task\)"),
        ({"hint_from": "actions"}, "scripted teacher"),
        ({"teacher": "script"}, "no teacher"),
    ):
        with pytest.raises(ConfigError, match=said):
            require_teachable(TeacherSettings(**fields), Untaught(), policy="tiny")  # type: ignore[arg-type]
    other = tiny_tokenizer(["quite other words"])
    with pytest.raises(ConfigError, match="another tokenizer"):
        require_same_vocabulary(load_policy(folder)[1], other, name="other")
    with pytest.raises(ValueError, match="needs `path`"):
        TeacherSettings(teacher="model")


class Untaught:
    """A world that neither teaches nor hints."""

    name, execution = "text.silent", "inline"


def test_a_top_k_beyond_the_vocabulary_is_refused(learner: Learner, codec: ChatCodec) -> None:
    with pytest.raises(ConfigError, match=r"top_k=100000.*the vocabulary has"):
        TurnTeacher(
            TeacherSettings(),
            learner,
            Played(),  # type: ignore[arg-type]
            codec,
            temperature=1.0,
            context="windowed",
            longest=512,
            top_k=100_000,
        )
