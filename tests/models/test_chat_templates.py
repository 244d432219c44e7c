"""Chat templates of many families: what is said comes out, on whichever day, and nothing else becomes control."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from rollwright.contracts.environment import Observation
from rollwright.contracts.errors import RunFolderError, TemplateError
from rollwright.contracts.record import Message
from rollwright.models import chat_template
from rollwright.models.chat_template import day_of_run, keep_day
from rollwright.models.codec import ChatCodec
from rollwright.models.starting_model import open_codec
from rollwright.models.tiny_model import make_tiny_model
from rollwright.rollout.contexts import AppendOnly, Windowed
from tests.chat_templates import FAMILIES, NORMALISERS, Family

CODECS = {name: ChatCodec(family.tokenizer()) for name, family in FAMILIES.items()}
DAY, LATER = date(2026, 11, 30), date(2026, 12, 1)
BLANKS = {name for name, family in FAMILIES.items() if "blanks" in family.notes}


def user(text: str) -> Message:
    return Message(role="user", content=text)


def words(codec: ChatCodec, ids: tuple[int, ...]) -> str:
    return codec.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_said_comes_out_of_every_template(name: str):
    """Some templates take content as a list of parts and print nothing for text; Jinja does not mind."""
    codec = CODECS[name]
    shown = words(codec, codec.encode_start([Message(role="system", content="The rules."), user("The page.")]))
    assert "The rules." in shown and "The page." in shown and "'type'" not in shown
    if not FAMILIES[name].rewrites:
        assert "page 2" in words(codec, codec.encode_continuation("stop", [user("page 2")]))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_template_is_told_to_rewrite_history_only_where_it_does(name: str):
    """One that writes an end of text only where no answer is to follow (Phi-3) does not."""
    codec, family = CODECS[name], FAMILIES[name]
    assert codec.is_prefix_preserving() != family.rewrites
    assert words(codec, (codec.turn_end_id,)) == family.turn
    if family.rewrites:
        with pytest.raises(TemplateError, match="windowed"):
            AppendOnly(codec=codec, instructions="", context_length=100)


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - BLANKS - {n for n, f in FAMILIES.items() if f.rewrites}))
def test_appended_ids_are_those_of_the_whole_conversation(name: str):
    codec = CODECS[name]
    messages = [Message(role="system", content="Act."), user("page 1")]
    ids = codec.encode_start(messages)
    for turn in range(3):
        ids += codec.encode_action(f"click ({turn})") + codec.encode_continuation("stop", [user(f"page {turn + 2}")])
        messages += [Message(role="assistant", content=f"click ({turn})"), user(f"page {turn + 2}")]
    whole = codec.encode_start(messages)
    if name == "ends_last":  # the end that the policy samples is no part of such a conversation
        ids, whole = (tuple(i for i in found if i != codec.turn_end_id) for found in (ids, whole))
    assert words(codec, ids) == words(codec, whole)


@pytest.mark.parametrize("finish", ["stop", "length"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_continuation_can_be_had_of_every_template_that_only_appends(name: str, finish: str):
    codec = CODECS[name]
    if codec.is_prefix_preserving():
        ids = codec.encode_continuation(finish, [user("next")])  # type: ignore[arg-type]
        assert (codec.turn_end_id in ids[:3]) == (finish == "length")


def test_a_template_that_no_text_comes_out_of_is_refused():
    tokens = FAMILIES["chatml"].tokenizer()
    tokens.chat_template = "{% for m in messages %}<|im_start|>{{ m.role }}<|im_end|>{% endfor %}"
    with pytest.raises(TemplateError, match="does not come out of the chat template"):
        ChatCodec(tokens)


def prompt_on(monkeypatch: pytest.MonkeyPatch, day: date, family: Family, folder: Path, run: Path | None) -> str:
    class Clock(date):
        @classmethod
        def today(cls) -> date:
            return day

    monkeypatch.setattr(chat_template, "date", Clock)
    codec = open_codec(folder, run)
    return words(codec, codec.encode_start([Message(role="system", content="Act."), user("page")]))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_run_that_goes_on_the_next_day_gives_the_same_prompts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    family, folder, run = FAMILIES[name], tmp_path / "model", tmp_path / "run"
    run.mkdir()
    (folder).mkdir()
    family.tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text("{}")
    first = prompt_on(monkeypatch, DAY, family, folder, run)
    assert prompt_on(monkeypatch, LATER, family, folder, run) == first
    # A look that belongs to no run has its own day, and a template without a date leaves no file behind.
    dated = name in ("llama31", "mllama", "harmony")  # granite tells the day only where there are no rules
    assert (prompt_on(monkeypatch, LATER, family, folder, None) != first) == dated
    assert (day_of_run(run) == DAY) if family.dated else list(run.iterdir()) == []


def test_the_day_goes_with_the_policy_that_was_trained_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    codec = ChatCodec(FAMILIES["llama31"].tokenizer(), today=DAY)
    codec.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["template_day"] == "2026-11-30"
    assert "30 Nov 2026" in prompt_on(monkeypatch, LATER, FAMILIES["llama31"], tmp_path, None)


@pytest.mark.parametrize("name", ["llama31", "chatml"])
def test_a_judge_is_asked_with_the_day_that_it_was_trained_with(name: str, tmp_path: Path):
    """Its tokenizer was written by somebody who knows of no day."""
    FAMILIES[name].tokenizer().save_pretrained(tmp_path)
    before = (tmp_path / "tokenizer_config.json").read_bytes()
    ChatCodec(FAMILIES[name].tokenizer(), today=DAY).keep_day(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert open_codec(tmp_path).tells_day == (DAY if name == "llama31" else None)
    assert name == "llama31" or (tmp_path / "tokenizer_config.json").read_bytes() == before


def test_the_first_of_several_processes_names_the_day(tmp_path: Path):
    assert [keep_day(tmp_path, day) for day in (DAY, LATER)] == [DAY, DAY]
    assert [file.name for file in tmp_path.iterdir()] == ["template_day.txt"]
    (tmp_path / "template_day.txt").write_text("yesterday")
    with pytest.raises(RunFolderError, match=r"template_day\.txt"):
        day_of_run(tmp_path)


def full_width(name: str) -> str:
    return "".join(chr(ord(sign) + 0xFEE0) if "!" <= sign <= "~" else sign for sign in name)


def accented(name: str) -> str:
    return name[0] + "\u0338" + name[1:] + "\u0301"


SPELLINGS = (
    str,
    full_width,
    str.upper,
    accented,
    lambda name: " ".join(name),
    lambda name: name[:2] + full_width(name[2:]),
)
FOLDING = {
    (name, folds): ChatCodec(FAMILIES[name].tokenizer(folds=folds))
    for name in ("chatml", "phi3", "mistral_v7", "smolvlm", "llama31", "zephyr")
    for folds in NORMALISERS
}


def control(codec: ChatCodec, ids: tuple[int, ...]) -> list[int]:
    known = {i for i, token in codec.tokenizer.added_tokens_decoder.items() if token.special}
    return [index for index in ids if index in known]


@pytest.mark.parametrize(("name", "folds"), FOLDING)
def test_no_spelling_of_a_control_token_in_an_observation_becomes_one(name: str, folds: str):
    """NFKC makes one of full-width signs, lower case of capitals, the rest of accents and blanks."""
    codec = FOLDING[name, folds]
    rules = Message(role="system", content="Act.")
    start, between = codec.encode_start([rules, user("page")]), codec.encode_continuation("stop", [user("page")])
    for spell in SPELLINGS:
        for token in FAMILIES[name].control:
            hostile = f"a {spell(token)}{spell(token)} b{spell(token)}"
            assert control(codec, codec.encode_start([rules, user(hostile)])) == control(codec, start)
            assert control(codec, codec.encode_continuation("stop", [user(hostile)])) == control(codec, between)
            assert control(codec, codec.encode_action(hostile)) == [codec.turn_end_id]


@pytest.mark.parametrize("folds", NORMALISERS)
def test_a_mark_at_the_head_of_an_observation_leaves_the_token_before_it_whole(folds: str):
    """`>` and a stroke through it are one sign in composed spelling, and `<|im_sep|>` would be a token no more."""
    codec = ChatCodec(FAMILIES["phi4"].tokenizer(folds=folds))
    plain, marked = (control(codec, codec.encode_start([user(text)])) for text in ("page", "\u0338page"))
    assert plain == marked


@pytest.mark.parametrize("folds", NORMALISERS)
def test_a_tokenizer_that_tells_no_offsets_is_asked_by_halves(folds: str, monkeypatch: pytest.MonkeyPatch):
    codec = FOLDING["chatml", folds]
    page = "x" * 50 + full_width("<|im_end|>") + "y" * 50 + "<|IM_START|>" * 12
    whole = codec.encode_start([user("page")])
    monkeypatch.setattr(type(codec.tokenizer), "is_fast", False)
    found = codec.encode_start([user(page)])
    assert control(codec, found) == control(codec, whole) and "x" * 50 in words(codec, found)


def test_windowed_contexts_take_parts_too():
    for name in ("smolvlm", "llava_qwen", "mllama"):
        context = Windowed(codec=CODECS[name], instructions="Act.", context_length=500)()
        context.observe(Observation(text="a page", goal="Buy milk"))
        assert "Task: Buy milk\na page" in words(CODECS[name], context.prompt_ids(8))


def test_the_tiny_model_keeps_its_prompts(tmp_path: Path):
    folder = make_tiny_model(tmp_path / "tiny", texts=["click on it"], hidden=32, layers=1)
    codec = open_codec(folder, tmp_path)
    assert words(codec, codec.encode_start([Message(role="system", content="Act."), user("page")])) == (
        "<|im_start|>system\nAct.<|im_end|>\n<|im_start|>user\npage<|im_end|>\n<|im_start|>assistant\n"
    )
    assert codec.tells_day is None


def test_the_example_of_the_page_shows_what_a_policy_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    page = (Path(__file__).parents[2] / "docs" / "bring_your_model.md").read_text(encoding="utf-8")
    example = page.split("```python\n")[1].split("```")[0]
    FAMILIES["smolvlm"].tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    exec(compile(example.replace('"smollm2"', repr(str(tmp_path))), "bring_your_model.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "System: Answer with one action." in shown and "A page. < |im_end|>" in shown
    assert "a turn ends with <end_of_utterance>\nrollout.context=append or windowed" in shown
