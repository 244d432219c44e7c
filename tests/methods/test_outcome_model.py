"""Outcome models: what they read, how they are trained and calibrated, and that they are rewards like any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from rollwright.checks.reward_check import check_reward
from rollwright.cli import commands as cli
from rollwright.contracts.errors import ConfigError, DataError
from rollwright.contracts.record import Group, Message, Score, Split, StopReason, Task, Trajectory
from rollwright.contracts.reward import score_group
from rollwright.maths.statistics.reliability import area_under_curve
from rollwright.methods.outcome_data import Case, prompts_apart, read_cases, split_cases
from rollwright.methods.outcome_model import CARD, OutcomeCard, OutcomeModel, answer_ids, prompt_ids, tokenizer_mark
from rollwright.methods.outcome_text import Evidence, OutcomePrompt, evidence_of
from rollwright.methods.pair_fit import pair_rows, pairs_of
from rollwright.models.codec import ChatCodec
from rollwright.models.tiny_model import make_tiny_model, tiny_tokenizer
from rollwright.recipes import collect, outcome, reward_pairs
from rollwright.rewards import combine, outcome_model
from rollwright.store.rescoring import score_store
from rollwright.store.trajectory_store import TrajectoryStore
from rollwright.training.open_world import RewardSettings, open_reward
from tests import builders

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def said(*steps: tuple[str, str], system: str = "", name: str = "e", split: Split = "train", **more: Any):
    """An episode of (what was observed, what was done)."""
    turns = []
    for place, (seen, done) in enumerate(steps):
        head = (Message(role="system", content=system),) if system and place == 0 else ()
        messages = (*head, Message(role="user", content=seen)) if seen else ()
        turns.append(builders.turn(text=done, observed=messages))
    stop = more.pop("stop_reason", StopReason.TERMINATED)
    return builders.episode(name, *turns, split=split, task="t", stop=stop, **more)


# What a judge reads


def test_evidence_of_a_growing_context():
    found = evidence_of(said(("Task: buy a pen\nshop", "click [1]"), ("cart", "pay\nnow"), system="Use clicks."))
    assert found == Evidence(
        goal="buy a pen", actions=("click [1]", "pay now"), state="cart", instructions="Use clicks."
    )


def test_evidence_of_a_window_drops_the_line_of_earlier_actions():
    long = "x" * 300
    episode = said(("Task: g\npage 1", long), (f"Task: g\npage 2\nDid: {long[:120]}...", "stop"))
    found = evidence_of(episode)
    assert found is not None and (found.goal, found.state) == ("g", "page 2")
    assert found.actions == (long[:200] + "...", "stop")
    both = said(("Task: g\npage 1", "a; b"), ("Task: g\npage 2\nDid: first; a; b", "stop"))
    found = evidence_of(both)
    assert found is not None and found.state == "page 2"
    page = said(("Task: g\npage 1", "a"), ("Task: g\npage 2\nDid: the page itself says so", "b"))
    kept = evidence_of(page)
    assert kept is not None and kept.state == "page 2\nDid: the page itself says so"


def test_evidence_needs_text_and_takes_the_last_that_there_is():
    assert evidence_of(said()) is None and evidence_of(said(("", "a"))) is None
    found = evidence_of(said(("only page", "a"), ("", "b")))
    assert found is not None and found.state == "only page" and found.actions == ("a", "b")


def test_neither_reward_nor_parameters_nor_verdict_are_read():
    plain = said(("page", "act"))
    told = replace(
        plain,
        success=True,
        task=Task(id="t", split="train", params={"answer": "42"}),
        turns=tuple(replace(turn, rewards={"env": 1.0}, terminated=True) for turn in plain.turns),
    )
    assert evidence_of(told) == evidence_of(plain)


def test_the_prompt_says_what_it_leaves_out():
    evidence = Evidence(goal="g", actions=("a", "b", "c"), state="page", instructions="rules")
    user = OutcomePrompt(max_actions=2).messages(evidence)[1].content
    assert "Actions: (1 earlier ones are not shown); b; c" in user and "rules" not in user
    assert "Rules: rules" in OutcomePrompt(with_instructions=True).messages(evidence)[1].content


def test_long_prompts_lose_the_end_of_the_state_then_old_actions():
    words = " ".join(f"word{i}" for i in range(400))
    codec = ChatCodec(tiny_tokenizer([words, *(m.content for m in _messages(words))], vocab_size=2048))
    evidence = Evidence(goal="goal", actions=("first", *["move"] * 40, "last"), state=words)
    prompt = OutcomePrompt()
    for room in (300, 150):
        ids = prompt_ids(codec, prompt, evidence, room)
        assert ids is not None and len(ids) <= room
        text = codec.tokenizer.decode(list(ids))
        assert "Task: goal" in text and "; last\n" in text and "word0" in text and "word399" not in text
        assert ("first" in text) == (room == 300)
    assert prompt_ids(codec, prompt, evidence, 20) is None


def _messages(state: str) -> Sequence[Message]:
    return OutcomePrompt().messages(Evidence(goal="goal", actions=("first", "move", "last"), state=state))


def test_answers_that_begin_alike_are_refused():
    codec = ChatCodec(tiny_tokenizer(["words"]))
    with pytest.raises(ConfigError, match="same token"):
        answer_ids(codec, OutcomePrompt(yes="right", no="rong"))


# Data


def test_stores_that_teach_nothing_are_refused(tmp_path: Path):
    def store(name: str, *episodes: Trajectory) -> list[Path]:
        TrajectoryStore(tmp_path / name).append(list(episodes))
        return [tmp_path / name]

    with pytest.raises(DataError, match=r"name some in replay\.stores"):
        read_cases([])
    with pytest.raises(DataError, match="holds no trajectory store"):
        read_cases([tmp_path / "absent"])
    with pytest.raises(DataError, match="2 without a verdict, 0 without messages"):
        read_cases(store("unjudged", said(("p", "a")), said(("p", "b"))))
    with pytest.raises(DataError, match="0 without a verdict, 1 without messages"):
        read_cases(store("mute", said(("", "a"), success=True)))
    with pytest.raises(DataError, match="all 2 judged episodes are failures"):
        read_cases(store("one_class", said(("p", "a"), success=False), said(("q", "a"), success=False)))
    held = said(("p", "b"), success=True, split="test")
    with pytest.raises(DataError, match="all 1 judged episodes are failures"):
        read_cases(store("test_split", said(("p", "a"), success=False), held))
    broken = said(("p", "b"), success=True, stop_reason=StopReason.ENV_ERROR)
    with pytest.raises(DataError, match="all 1 judged episodes are failures"):
        read_cases(store("faulted", said(("p", "a"), success=False), broken))


def test_a_store_of_another_schema_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    TrajectoryStore(tmp_path).append([said(("p", "a"), success=True)])
    monkeypatch.setattr("rollwright.store.store_files.SCHEMAS", {"99": ()})
    with pytest.raises(DataError, match="this release reads versions 99"):
        read_cases([tmp_path])


def test_the_split_keeps_equal_episodes_together(tmp_path: Path):
    episodes = [said((f"page {i % 20}", "a"), name=str(i), success=i % 2 == 0) for i in range(200)]
    TrajectoryStore(tmp_path).append(episodes)
    cases = read_cases([tmp_path])
    prompt = OutcomePrompt()
    train, held = split_cases(cases, prompt, held_out_frac=0.4, seed=1)
    assert len(train) + len(held) == 200 and 40 <= len(held) <= 120
    assert not {case.evidence for case in train} & {case.evidence for case in held}
    assert split_cases(cases, prompt, held_out_frac=0.4, seed=1) == (train, held)
    assert split_cases(cases, prompt, held_out_frac=0.4, seed=2)[1] != held
    with pytest.raises(DataError, match=r"held-out part .*: there is no episode in it"):
        split_cases(cases[:2], prompt, held_out_frac=0.01, seed=0)


def walk(number: int, *, state: str = "page") -> Case:
    """A long walk that differs from the others in its oldest action; one in two arrives."""
    evidence = Evidence(goal="g", actions=(f"first {number}", *["move"] * 9, f"end {number % 20}"), state=state)
    return Case(evidence=evidence, success=number % 2 == 0, task="t", seed=number, trajectory=str(number))


def test_the_split_keeps_episodes_together_that_differ_in_what_is_not_shown():
    prompt = OutcomePrompt(max_actions=3)
    train, held = split_cases([walk(i) for i in range(200)], prompt, held_out_frac=0.4, seed=1)
    read = [{prompt.messages(case.evidence) for case in part} for part in (train, held)]
    assert len({case.evidence for case in train + held}) == 200 and len(read[0] | read[1]) == 20
    assert not read[0] & read[1], "the report would judge the model on prompts that it was trained on"


def test_held_out_prompts_that_a_cut_makes_training_ones_are_not_judged(caplog: pytest.LogCaptureFixture):
    prompt = OutcomePrompt(max_actions=1)
    texts = [m.content for number in range(20) for m in prompt.messages(walk(number).evidence)]
    codec = ChatCodec(tiny_tokenizer([*texts, "word word"], vocab_size=2048))
    pages = [" ".join(["word"] * 300) + f" {end}" for end in range(8)]  # they differ in what is cut alone
    train = [walk(number, state=pages[number % 4]) for number in range(10)]
    held = [walk(number, state=pages[4 + number % 4]) for number in range(8, 16)]
    whole, kept = prompts_apart(train, held, codec, prompt, max_length=1000)
    assert len(whole) == 10 and kept == held and not caplog.records
    cut, kept = prompts_apart(train, held, codec, prompt, max_length=200)
    assert all(ids and len(ids) <= 200 for ids in cut) and kept == held[2:]
    assert "2 of 8 held-out episodes read like a training one" in caplog.text
    with pytest.raises(DataError, match=r"there is no episode in it.*collect more"):
        prompts_apart(train, held[:2], codec, prompt, max_length=200)


# A real one: a tiny model from scratch on maze walks


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("walks")
    settings = ["model.path=tiny", "model.tiny_hidden=32", "model.tiny_layers=1", "collect.per_task=10"]
    collect.main([str(RECIPES / "text" / "maze_walkers_collect.yaml"), f"run.folder={folder}", *settings])
    return folder / "trajectories"


@pytest.fixture(scope="module")
def trained(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outcome")
    settings = ["data.held_out_frac=0.4", "fit.epochs=8", f"replay.stores=[{store}]"]
    outcome.main([str(RECIPES / "text" / "maze_outcome.yaml"), f"run.folder={folder}", *settings])
    return folder


@pytest.mark.long
def test_it_tells_held_out_successes_from_failures(trained: Path):
    report = json.loads((trained / "eval" / "calibration.json").read_text())
    assert report["num_held_out"] >= 30 and report["num_unread"] == 0
    assert report["auc"] > 0.85
    assert report["brier"] < report["brier_constant"]
    assert sum(line["count"] for line in report["by_task"]) == report["num_held_out"]
    assert sum(line["count"] for line in report["bins"]) == report["num_held_out"]
    page = (trained / "eval" / "calibration.md").read_text()
    assert "| AUC |" in page and "double_t/" in page


def groups_of(store: Path, count: int) -> list[Group]:
    """Two successes and two failures of a task each."""
    found: dict[str, list[Trajectory]] = {}
    for trajectory in TrajectoryStore(store, mode="read").iter_trajectories():
        alike = found.setdefault(trajectory.task.id, [])
        if sum(t.success is trajectory.success for t in alike) < 2:
            alike.append(replace(trajectory, seed=0))
    whole = [(task, ts) for task, ts in found.items() if len(ts) == 4][:count]
    assert len(whole) == count
    return [Group(id=task, task=ts[0].task, seed=0, trajectories=tuple(ts)) for task, ts in whole]


def test_as_a_reward_it_keeps_the_contract(trained: Path, store: Path):
    path, groups = str(trained / "verifier"), groups_of(store, 2)
    for reward in (
        open_reward(RewardSettings(name="outcome_model", options={"path": path})),
        outcome_model.build(path=path, value="score", token_budget=300),
        combine.build(weights={"env": 1.0, "orm": 0.5}, rewards=[outcome_model.build(path=path, name="orm")]),
    ):
        check_reward(reward, groups)


def test_verdict_and_score_lie_on_the_last_turn_and_leave_the_worlds_verdict(trained: Path, store: Path):
    path = str(trained / "verifier")
    (group,) = groups_of(store, 1)
    unread = replace(group.trajectories[0], id="mute", turns=(replace(group.trajectories[0].turns[0], observed=()),))
    group = group.with_trajectories([*group.trajectories, unread])
    by_score = score_group(group, outcome_model.build(path=path, value="score")).trajectories
    by_verdict = score_group(group, outcome_model.build(path=path)).trajectories
    strict = score_group(group, outcome_model.build(path=path, threshold=1.1)).trajectories
    for was, soft, hard, never in zip(group.trajectories[:-1], by_score, by_verdict, strict, strict=False):
        assert soft.score is not None and soft.score.value is not None and 0 < soft.score.value < 1
        assert hard.score is not None and hard.score.value == float(soft.score.value >= 0.5)
        assert hard.turns[-1].rewards == {"outcome_model": hard.score.value} and not hard.turns[0].rewards
        assert never.total_reward == 0.0 and hard.success is was.success
    assert by_verdict[-1].score is not None and by_verdict[-1].score.value is None and not by_verdict[-1].learnable
    values = [t.score.value for t in by_score[:-1] if t.score]
    auc = area_under_curve([bool(t.success) for t in group.trajectories[:-1]], values)
    assert auc is not None and auc >= 0.75


def test_a_folder_that_is_no_outcome_model_is_refused(trained: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"recipes/outcome\.py"):
        outcome_model.build(path=str(tmp_path / "absent"))
    with pytest.raises(DataError, match="it is not an outcome model"):
        outcome_model.build(path=str(trained / "tiny_model"))
    with pytest.raises(ConfigError, match="value is 'probability'"):
        outcome_model.build(path=str(trained / "verifier"), value="probability")  # type: ignore[arg-type]
    other = tmp_path / "other"
    shutil.copytree(trained / "verifier", other)
    card = OutcomeCard.load(other)
    replace(card, answer_ids=(card.answer_ids[0] + 1, card.answer_ids[1])).save(other)
    with pytest.raises(DataError, match="another tokenizer"):
        OutcomeModel.load(other)
    card.save(other)
    (other / "tokenizer.json").write_text(swapped((other / "tokenizer.json").read_text(), "\u0120up", "\u0120down"))
    with pytest.raises(DataError, match=f"of the tokenizer {card.tokenizer}, .*another tokenizer"):
        OutcomeModel.load(other)
    replace(card, tokenizer="").save(other)
    assert OutcomeModel.load(other).card.tokenizer == "", "folders of earlier releases hold no mark"
    (other / CARD).write_text('{"format": 99}')
    with pytest.raises(DataError, match="cannot be read by this release"):
        OutcomeModel.load(other)


def swapped(tokenizer: str, one: str, two: str) -> str:
    """A tokenizer file in which two words have changed places; the answers keep theirs."""
    document = json.loads(tokenizer)
    words = document["model"]["vocab"]
    words[one], words[two] = words[two], words[one]
    return json.dumps(document)


def test_the_mark_of_a_tokenizer_knows_no_date():
    plain, other = (ChatCodec(tiny_tokenizer(["go up", *more])) for more in ([], ["now"]))
    mark = tokenizer_mark(plain)
    assert mark == tokenizer_mark(ChatCodec(tiny_tokenizer(["go up"]))) and mark != tokenizer_mark(other)
    dated = tiny_tokenizer(["go up"])
    dated.chat_template = "{{ strftime_now('%Y-%m-%d %H:%M:%S.%f') }}" + str(dated.chat_template)
    codec = ChatCodec(dated)
    assert mark != tokenizer_mark(codec) and tokenizer_mark(codec) == tokenizer_mark(ChatCodec(dated))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("dtype", "float64"),
        ("threshold", "high"),
        ("threshold", float("nan")),
        ("threshold", True),
        ("token_budget", "8"),
    ],
)
def test_options_without_meaning_are_refused_before_anything_is_scored(trained: Path, option: str, value: object):
    with pytest.raises(ConfigError, match=f"{option} is {value!r}"):
        outcome_model.build(path=str(trained / "verifier"), **{option: value})  # type: ignore[arg-type]


def test_a_prompt_longer_than_what_the_model_reads_is_refused(store: Path, tmp_path: Path):
    small = make_tiny_model(tmp_path / "small", texts=["YES NO"], hidden=32, layers=1, context_length=100)
    for recipe, yaml in ((outcome, "maze_outcome.yaml"), (reward_pairs, "maze_reward.yaml")):
        words = [str(RECIPES / "text" / yaml), "~model.tiny_hidden", "~model.tiny_layers", f"replay.stores=[{store}]"]
        with pytest.raises(ConfigError, match=r"fit.max_length = 256, but the model in .* reads 100 tokens"):
            recipe.main([*words, f"run.folder={tmp_path / 'run'}", f"model.path={small}", "data.held_out_frac=0.4"])


def test_a_tiny_model_that_cannot_be_made_says_which_setting(store: Path, tmp_path: Path):
    words = [f"run.folder={tmp_path}", f"replay.stores=[{store}]", "data.held_out_frac=0.4", "model.tiny_hidden=40"]
    with pytest.raises(ConfigError, match=r"model.tiny_hidden must be a multiple of 32"):
        outcome.main([str(RECIPES / "text" / "maze_outcome.yaml"), *words])


class Killed(BaseException):
    """What the machine does to a process."""


def contents(folder: Path) -> dict[str, str]:
    return {file.name: sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


@pytest.mark.long
def test_a_training_that_fails_leaves_the_model_of_the_one_before(
    trained: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    before = contents(run / "verifier")
    words = [f"run.folder={run}", f"replay.stores=[{store}]", "data.held_out_frac=0.4", "fit.max_steps=3"]
    again = [str(RECIPES / "text" / "maze_outcome.yaml"), *words]
    with pytest.raises(DataError, match=r"hold NaN or infinity .*lower fit\.learning_rate"):
        outcome.main([*again, "fit.learning_rate=1e30"])
    assert contents(run / "verifier") == before
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(OutcomeCard, "save", lambda *_: (_ for _ in ()).throw(Killed))
        outcome.main([*again, "data.max_actions=2"])
    assert contents(run / "verifier") == before
    outcome.main([*again, "data.max_actions=2"])
    assert OutcomeModel.load(run / "verifier").card.prompt.max_actions == 2
    assert not list(run.glob(".*")), "nothing is left beside it"


# A model from pairs


def case(task: str, seed: int, success: bool) -> Case:
    evidence = Evidence(goal="", actions=(), state="")
    return Case(evidence=evidence, success=success, task=task, seed=seed, trajectory="")


def test_pairs_stay_within_a_task_and_begin_with_the_same_start():
    lost = [case("a", seed, False) for seed in (1, 2, 3, 4)]
    cases = [*lost, case("a", 3, True), case("b", 1, True), case("c", 1, False)]
    pairs = pairs_of(cases, per_case=2, seed=0)
    assert [better for better, _ in pairs] == [4, 4] and pairs[0] == (4, 2)
    assert pairs[1][1] in (0, 1, 3) and pairs == pairs_of(cases, per_case=2, seed=0)
    assert len(pairs_of(cases, per_case=9, seed=0)) == 4
    with pytest.raises(DataError, match="none of 2 tasks has both"):
        pairs_of([case("b", 1, True), case("c", 1, False)], per_case=1, seed=0)


@pytest.fixture(scope="module")
def paired(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    settings = ["data.held_out_frac=0.4", f"replay.stores=[{store}]"]
    reward_pairs.main([str(RECIPES / "text" / "maze_reward.yaml"), f"run.folder={folder}", *settings])
    return folder


@pytest.mark.long
def test_a_pair_model_is_there_with_its_threshold_or_not_at_all(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = [f"run.folder={tmp_path}", f"replay.stores=[{store}]", "data.held_out_frac=0.4", "fit.max_steps=2"]
    again = [str(RECIPES / "text" / "maze_reward.yaml"), *words]
    with pytest.raises(DataError, match=r"gives none of \d+ episodes a score: its training diverged"):
        reward_pairs.main([*again, "fit.learning_rate=1e30"])
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(reward_pairs, "best_threshold", lambda *_: (_ for _ in ()).throw(Killed))
        reward_pairs.main(again)
    assert not (tmp_path / "pair_model").exists(), "its card would say 0.5, in a unit that is not the model's"
    reward_pairs.main(again)
    assert OutcomeCard.load(tmp_path / "pair_model").threshold != 0.5


@pytest.mark.long
def test_another_tokenizer_beside_a_pair_model_is_refused(paired: Path, tmp_path: Path):
    other = tmp_path / "other"
    shutil.copytree(paired / "pair_model", other)
    make_tiny_model(tmp_path / "tiny", texts=["move up down"], hidden=32, layers=1)
    shutil.copy(tmp_path / "tiny" / "tokenizer.json", other)
    with pytest.raises(DataError, match="another tokenizer"):
        OutcomeModel.load(other)


def test_pairs_that_read_exactly_alike_teach_nothing():
    shape = {"per_case": 4, "max_length": 512, "seed": 0}
    cases = [case("a", 1, True), case("a", 1, False), case("a", 2, False)]
    assert pair_rows(cases, [(1,), (1,), (2,)], **shape) == [((1,), (2,))]
    with pytest.raises(DataError, match=r"none of 2 pairs can be learned from: 1 do not fit .* and 1 read exactly"):
        pair_rows(cases, [(1,), (1,), None], **shape)


def test_a_pair_model_ranks_held_out_episodes_and_is_a_reward(paired: Path, store: Path):
    report = json.loads((paired / "eval" / "pairs.json").read_text())
    assert report["num_held_out_pairs"] >= 10 and report["pairs_right"]["point"] > 0.8 and report["auc"] > 0.8
    path, groups = str(paired / "pair_model"), groups_of(store, 2)
    verdicts = outcome_model.build(path=path)
    assert verdicts.threshold == report["threshold"]
    check_reward(verdicts, groups)
    check_reward(outcome_model.build(path=path, value="score"), groups)


# Stores scored again


class Letters:
    """Pays the share of "a" in the first action; cannot tell without one."""

    name = "letters"

    def score(self, group: Group) -> list[Score]:
        return [self._one(t.turns[0].text) for t in group.trajectories]

    def _one(self, text: str) -> Score:
        value = text.count("a") / len(text) if text else None
        return Score(value=value, verifier=self.name)


def test_a_store_scored_again_has_new_scores_labels_and_filter(tmp_path: Path):
    source = TrajectoryStore(tmp_path / "old")
    source.append([said(("p", "aa"), name="x", success=False), said(("p", "ab"), name="y", seed=1)], tag="one")
    broken = said(("p", "aa"), name="f", stop_reason=StopReason.ENV_ERROR)
    source.append([said(("p", ""), name="z", success=True), said(("p", "bb"), name="w", success=False), broken])

    everything = TrajectoryStore(tmp_path / "all")
    found = score_store(source, everything, Letters(), verdict_from=0.5, shard=1)
    assert (found.seen, found.kept, found.undecided, found.agreed, found.differed) == (4, 4, 1, 1, 1)
    labels = {t.id: t.success for t in everything.iter_trajectories()}
    assert labels == {"x": True, "y": True, "z": None, "w": False}
    assert everything.tags() == {"one": 2, "": 2}
    assert [t.total_reward for t in everything.iter_trajectories(tag="one")] == [1.0, 0.5]

    twice = TrajectoryStore(tmp_path / "twice")
    twice.append([said(("p", "aa"), name="x"), said(("p", "bb"), name="x")])
    copy = TrajectoryStore(tmp_path / "copy")
    score_store(twice, copy, Letters())
    assert [t.total_reward for t in copy.iter_trajectories()] == [1.0, 0.0], "one name for two episodes"

    best = TrajectoryStore(tmp_path / "best")
    found = score_store(source, best, Letters(), keep_from=0.6, parallel=2)
    kept = list(best.iter_trajectories())
    assert [(t.id, t.success) for t in kept] == [("x", False)] and found.kept == 1
    with pytest.raises(DataError, match="already holds 1"):
        score_store(source, best, Letters())
    with pytest.raises(DataError, match="name a new folder"):
        score_store(source, TrajectoryStore(tmp_path / "old"), Letters())


def test_the_command_labels_a_store_by_a_trained_model(
    trained: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    where = ["--into", str(tmp_path / "labelled"), "--verdict", "0.5", "--keep", "0.5"]
    assert (
        cli.main(["score", str(store.parent), *where, "--reward", "outcome_model", f"path={trained / 'verifier'}"]) == 0
    )
    kept = list(TrajectoryStore(tmp_path / "labelled", mode="read").iter_trajectories())
    assert kept and all(t.success and t.total_reward == 1.0 for t in kept)
    assert f"{len(kept)} kept" in capsys.readouterr().out


def test_a_sum_names_its_rewards_in_the_configuration(trained: Path, store: Path):
    options = {"weights": {"env": 1.0, "orm": 2.0}, "rewards": {"outcome_model": _options(trained)}}
    reward = open_reward(RewardSettings(name="combine", options=options))
    (group,) = groups_of(store, 1)
    for trajectory in score_group(group, reward).trajectories:
        parts = dict(trajectory.turns[-1].rewards)
        assert parts.pop("orm") in (0.0, 2.0)
        assert sum(parts.values()) == sum(trajectory.turns[-1].paid.values())


def _options(trained: Path) -> dict[str, object]:
    return {"path": str(trained / "verifier"), "name": "orm"}
