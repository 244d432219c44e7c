"""The growing curriculum: failures as seeds, opened and valued before they are kept; generators of both kinds."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from rollwright.contracts.environment import Proposes, TakesInstructions
from rollwright.contracts.errors import ConfigError
from rollwright.contracts.record import Group, StopReason, Task
from rollwright.critics.success_replay import SuccessReplaySettings
from rollwright.curriculum.curriculum_settings import CurriculumSettings
from rollwright.curriculum.evolving import Candidate, EvolvingCurriculum, Growth, in_value_band
from rollwright.curriculum.task_generators import (
    WorldGenerator,
    WrittenGenerator,
    endpoint_writer,
    engine_writer,
    instructions_in,
    open_generator,
)
from rollwright.envs.text.boards.maze_layouts import shortest_paths
from rollwright.envs.text.maze import build as build_maze
from rollwright.generation.answer_cache import AnswerCache
from rollwright.generation.chat_api import ChatClient
from rollwright.generation.engine import Sampling
from rollwright.generation.scripted_engine import ScriptedEngine
from rollwright.models.codec import ChatCodec
from rollwright.models.loading import load_tokenizer
from rollwright.models.tiny_model import make_tiny_model
from rollwright.rollout import Collector, EngineActor, FaultLog, Limits
from rollwright.rollout.contexts import Windowed
from tests import builders

NEAR, FAR = (
    Task(id=name, split="train", params={"start": start}) for name, start in (("near", [7, 6]), ("far", [1, 5]))
)


def played(task: Task, *successes: bool | None, stop: StopReason = StopReason.TERMINATED) -> Group:
    turn = builders.turn(text="a")
    members = [builders.episode(str(i), turn, task=task, stop=stop, success=won) for i, won in enumerate(successes)]
    return builders.group(*members)


class Listed:
    """A generator that proposes what it was given, and remembers what it was asked."""

    def __init__(self, *tasks: Task) -> None:
        self.tasks, self.asked = tasks, []

    def propose(self, seeds: Sequence[Task], count: int, *, key: int) -> Sequence[Task]:
        self.asked.append(([task.id for task in seeds], count, key))
        return self.tasks


def curriculum(*proposed: Task, **growth: Any) -> EvolvingCurriculum:
    made = EvolvingCurriculum([NEAR, FAR], Growth(**growth), seed=0)
    made.generator = Listed(*proposed)
    return made


def train_task(name: str) -> Task:
    return Task(id=name, split="train")


def everywhere(tasks: Sequence[Task]) -> list[tuple[int, ...] | None]:
    return [(1, 2, 3) for _ in tasks]


# The curriculum


def test_only_failures_are_seeds() -> None:
    made = curriculum(train_task("new"))
    made.update([played(NEAR, True, True), played(FAR, True, False)])
    assert [c.task.id for c in made.candidates(1, everywhere)] == ["new"]
    assert made.generator.asked == [(["far"], 32, 1)]
    made.take([], None)
    assert made.failed() == [], "failures count from round to round"


def test_an_outcome_model_is_believed_where_it_is_asked() -> None:
    """The world calls both successes; a reward of 0 says otherwise of all of them."""
    for outcome, failed in (("verdict", []), ("reward", ["near", "far"])):
        made = curriculum(outcome=outcome)
        made.update([played(NEAR, True), played(FAR, True)])
        assert [task.id for task in made.failed()] == failed


def test_an_empty_band_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no value lies above `curriculum\.low=0\.8`"):
        CurriculumSettings(name="evolving", low=0.8, high=0.5)
    with pytest.raises(ValueError, match=r"set `replay\.ratio=0`"):
        SuccessReplaySettings(low=0.9, high=0.5)
    assert SuccessReplaySettings(low=0.9, high=0.5, ratio=0).ratio == 0


def test_without_a_failure_nobody_is_asked() -> None:
    made = curriculum(train_task("new"))
    made.update([played(NEAR, True)])
    assert made.candidates(1, everywhere) == [] and made.generator.asked == []


def test_what_cannot_be_opened_or_is_known_is_no_candidate() -> None:
    made = curriculum(train_task("a"), train_task("b"), train_task("a"), NEAR)
    made.update([played(FAR, False)])
    found = made.candidates(3, lambda tasks: [None if t.id == "b" else (5,) for t in tasks])
    assert [(c.task.id, c.prompt) for c in found] == [("a", (5,))]
    assert made.take(found, None) == [train_task("a")]
    made.update([played(FAR, False)])
    assert [c.task.id for c in made.candidates(4, everywhere)] == ["b"], "what was kept once is known"


def test_a_held_out_task_is_never_taken() -> None:
    made = curriculum(Task(id="judge me", split="test"))
    made.update([played(FAR, False)])
    with pytest.raises(ValueError, match="held-out tasks"):
        made.candidates(1, everywhere)


def test_the_band_of_the_method_card() -> None:
    """Five values of one head: three kept; two heads: either of them may lie inside."""
    assert in_value_band([[0.01, 0.05, 0.4, 0.75, 0.9]], 0.05, 0.75) == [False, True, True, True, False]
    assert in_value_band([[0.04, 0.8], [0.5, 0.9]], 0.05, 0.75) == [True, False]


def test_a_round_keeps_what_is_neither_solved_nor_hopeless() -> None:
    made = curriculum(new_tasks=2)
    found = [Candidate(task=train_task(name), prompt=(1,)) for name in "abcde"]
    assert [t.id for t in made.take(found, [[0.9, 0.5, 0.01, 0.3, 0.2]])] == ["b", "d"]
    metrics = made.metrics()
    assert (metrics["curriculum/in_band_count"], metrics["curriculum/kept_count"]) == (3.0, 2.0)
    assert metrics["curriculum/tasks_count"] == 4.0 and set(made.metrics()) == {"curriculum/tasks_count"}


def test_draws_keep_a_share_for_the_given_tasks_and_depend_on_seed_and_step_alone() -> None:
    made, same = curriculum(), curriculum()
    assert {t.id for t in made.next(0, 10)} == {"near", "far"}
    for one in (made, same):
        one.take([Candidate(task=train_task(name), prompt=(1,)) for name in "abcd"], None)
    drawn = [t.id for t in made.next(5, 10)]
    assert drawn == [t.id for t in same.next(5, 10)] != [t.id for t in made.next(6, 10)]
    assert sorted(drawn) == sorted(["near", "far", *"abcd", *"abcd"])


def test_a_task_that_only_breaks_is_taken_out_again() -> None:
    made = curriculum()
    made.take([Candidate(task=train_task(name), prompt=(1,)) for name in "ab"], None)
    broken = played(train_task("a"), None, None, stop=StopReason.ENV_ERROR)
    made.update([broken, played(NEAR, None, stop=StopReason.ENV_ERROR)])
    assert [t.id for t in made.grown] == ["b"] and len(made.given) == 2


def test_the_state_survives_saving() -> None:
    made, other = curriculum(train_task("c")), curriculum(train_task("c"))
    made.take([Candidate(task=Task(id="a", split="train", params={"start": [1, 2]}), prompt=(1,))], None)
    made.update([played(NEAR, False)])
    other.load_state_dict(json.loads(json.dumps(made.state_dict())))
    assert other.next(7, 12) == made.next(7, 12) and other.failed() == made.failed() == [NEAR]
    assert other.grown == made.grown and other.candidates(8, everywhere) == made.candidates(8, everywhere)
    other.generator = Listed(train_task("a"))
    assert other.candidates(8, everywhere) == [], "what grew is known"


# Worlds that propose


def test_the_maze_proposes_training_starts_of_like_difficulty() -> None:
    world = build_maze(wording="compact", seed_starts=3)
    seeds = world.tasks("train")
    distance = {task.id: shortest_paths("double_t")[tuple(task.params["start"])][0] for task in everything(world)}
    assert isinstance(world, Proposes) and [distance[task.id] for task in seeds] == sorted(distance.values())[:3]
    proposed = world.propose(seeds[-1], 5, seed=4)
    assert proposed == world.propose(seeds[-1], 5, seed=4) and seeds[-1] not in proposed
    assert {task.split for task in proposed} == {"train"}
    apart = [abs(distance[task.id] - distance[seeds[-1].id]) for task in proposed]
    rest = [abs(d - distance[seeds[-1].id]) for name, d in distance.items() if name != seeds[-1].id]
    assert apart == sorted(rest)[:5]


def everything(world: Any) -> list[Task]:
    """All training starts, among them those that are there to be proposed."""
    return build_maze(wording="compact").tasks("train")


def test_the_generator_takes_the_nearest_of_every_seed_first() -> None:
    world = build_maze(wording="compact")
    tasks = world.tasks("train")
    generator = WorldGenerator(world=world, seed=0)
    proposed = generator.propose([tasks[0], tasks[-1]], 6, key=2)
    assert len(proposed) == 6 and proposed == generator.propose([tasks[0], tasks[-1]], 6, key=2)
    away = lambda task, other: abs(  # noqa: E731
        shortest_paths("double_t")[tuple(task.params["start"])][0]
        - shortest_paths("double_t")[tuple(other.params["start"])][0]
    )
    assert [away(t, tasks[0]) for t in proposed[::2]] == sorted(away(t, tasks[0]) for t in proposed[::2])


def test_miniwob_proposes_from_the_declared_pool_by_name() -> None:
    pytest.importorskip("miniwob")
    pytest.importorskip("playwright")
    from rollwright.envs.web.miniwob import build

    world = build(
        tasks=["click-button", "enter-text"],
        test_tasks=["click-button", "click-tab"],
        proposals=["click-button-sequence", "enter-date", "use-spinner"],
    )
    proposed = world.propose(world.task("click-button", "train"), 2, seed=0)
    assert proposed[0].id == "click-button-sequence" and {t.split for t in proposed} == {"train"}
    assert world.max_turns == 14, "use-spinner needs more turns than the tasks that were named"
    with pytest.raises(ConfigError, match="click-tab, which only held-out splits have"):
        build(tasks=["click-button"], test_tasks=["click-tab"], proposals=["click-tab"])


# First looks


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> ChatCodec:
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny_model(folder, texts=build_maze(wording="compact").texts(), hidden=32, layers=1, context_length=64, seed=0)
    return ChatCodec(load_tokenizer(folder))


def test_a_first_look_opens_tasks_and_takes_no_action(codec: ChatCodec, tmp_path: Path) -> None:
    world = build_maze(wording="compact")
    engine = ScriptedEngine(["move up"], codec.encode_action)
    context = Windowed(codec=codec, instructions="", context_length=64, history=0)
    collector = Collector(
        world,
        EngineActor(engine),
        context,
        sampling=Sampling(max_tokens=8),
        limits=Limits(max_turns=3),
        faults=FaultLog(tmp_path / "faults.jsonl", max_frac=0.0),
    )
    wall = Task(id="wall", split="train", params={"start": [0, 0]})
    try:
        seen = collector.look([NEAR, wall, FAR], seed=1)
        (trajectory,) = collector.play([collector.request("x", NEAR, 1)])
    finally:
        collector.close()
    assert seen[0] == trajectory.turns[0].prompt_ids and seen[1] is None and seen[2] not in (None, seen[0])
    assert not (tmp_path / "faults.jsonl").exists(), "an impossible task is no fault of the run"


# Instructions by a language model


class Shop:
    """A world whose tasks are sentences: the least that the contract asks for."""

    name = "shop"

    def instruction_of(self, task: Task) -> str:
        return str(task.params["intent"])

    def place_of(self, task: Task) -> str:
        return str(task.params["site"])

    def task_of(self, instruction: str, like: Task) -> Task | None:
        if "impossible" in instruction:
            return None
        site = self.place_of(like)
        return Task(id=f"{site}/{instruction}", split="train", params={"intent": instruction, "site": site})


BUY = Task(id="1", split="train", params={"intent": "buy a lamp", "site": "shop"})
READ = Task(id="2", split="train", params={"intent": "read the news", "site": "forum"})


class Endpoint(BaseHTTPRequestHandler):
    """Answers `/chat/completions` with three tasks for the place it was asked about; 400 while it is `down`."""

    asked: ClassVar[list[dict[str, Any]]] = []
    down = False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked.append(body)
        said = body["messages"][-1]["content"]
        place = said.splitlines()[0].removeprefix("Place: ")
        text = (
            f"1. find the map of the {place}\n2) an impossible thing\n- find the map of the {place}\n\n* call {place}"
        )
        answer = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
        self.send_response(400 if self.down else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    Endpoint.asked, Endpoint.down = [], False
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_endpoint_writes_tasks_for_every_place(endpoint: str, tmp_path: Path) -> None:
    client = ChatClient(url=endpoint, model="writer", retries=0)
    write = endpoint_writer(client, AnswerCache(tmp_path), max_tokens=99)
    generator = WrittenGenerator(world=Shop(), write=write, seed=0, rounds=2)
    proposed = generator.propose([BUY, READ], 12, key=1)
    assert [t.id for t in proposed] == [
        "forum/find the map of the forum",
        "forum/call forum",
        "shop/find the map of the shop",
        "shop/call shop",
    ], "numbers and marks are gone, repeats and what the world declines too"
    assert len(Endpoint.asked) == 4 and Endpoint.asked[2]["model"] == "writer" and Endpoint.asked[0]["max_tokens"] == 99
    assert "- buy a lamp" in Endpoint.asked[2]["messages"][-1]["content"]
    assert len({body["seed"] for body in Endpoint.asked}) == 4 and Endpoint.asked[0]["temperature"] == 1.0
    assert generator.propose([BUY, READ], 12, key=1) == proposed and len(Endpoint.asked) == 4, "answers are kept"
    generator.propose([BUY, READ], 12, key=2)
    assert len(Endpoint.asked) == 8, "another round asks anew"


def test_an_endpoint_that_refuses_costs_the_tasks_and_not_the_run(endpoint: str, tmp_path: Path) -> None:
    Endpoint.down = True
    write = endpoint_writer(ChatClient(url=endpoint, model="w", retries=0), AnswerCache(tmp_path), max_tokens=9)
    generator = WrittenGenerator(world=Shop(), write=write, seed=0)
    assert generator.propose([BUY], 8, key=1) == []
    Endpoint.down = False
    assert len(generator.propose([BUY], 8, key=1)) == 2, "a refusal is not remembered"


def test_the_runs_own_engine_writes_tasks(codec: ChatCodec, tmp_path: Path) -> None:
    engine = ScriptedEngine(["move up\nmove down"], codec.encode_action)
    write = engine_writer(engine, codec, AnswerCache(tmp_path), max_tokens=40)
    proposed = WrittenGenerator(world=Shop(), write=write, seed=0).propose([BUY], 8, key=1)
    assert [t.params["intent"] for t in proposed] and all(t.split == "train" for t in proposed)


def test_an_engine_with_too_short_a_context_costs_the_tasks_and_not_the_run(codec: ChatCodec, tmp_path: Path) -> None:
    engine = ScriptedEngine(["move up"], codec.encode_action, context_length=50)
    write = engine_writer(engine, codec, AnswerCache(tmp_path), max_tokens=40)
    assert list(WrittenGenerator(world=Shop(), write=write, seed=0).propose([BUY], 8, key=1)) == []


def test_lines_of_an_answer() -> None:
    answer = "Here are tasks\n 1. a  b\n(2) c\n\n- a b\n" + "x" * 400
    assert instructions_in(answer) == ["Here are tasks", "a b", "c"]


def test_the_open_web_takes_instructions_and_judges_none_of_them(tmp_path: Path) -> None:
    pytest.importorskip("playwright")
    from rollwright.envs.web.open_web import build

    known = {"task_id": "1", "start_url": "http://127.0.0.1:9/a", "intent": "find it"}
    known |= {"eval": {"eval_types": ["string_match"], "reference_answers": {"exact_match": "x"}}}
    (tmp_path / "tasks.json").write_text(json.dumps([known]))
    world = build(tasks=str(tmp_path / "tasks.json"))
    (like,) = world.tasks("train")
    assert isinstance(world, TakesInstructions) and world.place_of(like) == "http://127.0.0.1:9"
    made = world.task_of("find another", like)
    assert made == world.task_of("find another", like) != world.task_of("find a third", like)
    assert made.split == "train" and made.params["start_url"] == like.params["start_url"]
    assert made.params["eval"]["eval_types"] == [] and world.instruction_of(made) == "find another"


def test_a_world_that_cannot_do_it_is_named(tmp_path: Path) -> None:
    from rollwright.curriculum.curriculum_settings import CurriculumSettings

    class Mute:
        name = "text.mute"

    asked = {"world": "has none", "engine": "text.mute takes none", "endpoint": "text.mute takes none"}
    for generator, message in asked.items():
        settings = CurriculumSettings(name="evolving", generator=generator)
        with pytest.raises(ConfigError, match=message):
            open_generator(settings, Mute(), None, None, tmp_path, seed=0)
