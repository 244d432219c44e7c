"""The generative judge against a real HTTP server: good, garbled, slow and failing answers; its cache; its bound."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rollwright.checks.reward_check import check_reward
from rollwright.contracts.errors import ConfigError
from rollwright.contracts.record import Group, Message, Task, Trajectory
from rollwright.contracts.reward import score_group
from rollwright.generation.answer_cache import AnswerCache
from rollwright.generation.chat_api import ChatClient, ChatFailure
from rollwright.rewards import combine, judge
from tests import builders

Answer = tuple[int, bytes] | str
TASK = Task(id="t", split="train", params={"secret": "the solution is 42"})


class ChatServer:
    """Speaks `/v1/chat/completions`; `say` turns a request into a text, or into a status and a body."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.say: Callable[[dict[str, Any]], Answer] = lambda _: "Verdict: YES"
        self.delay_s = 0.0
        self.drip = False
        self.busy = self.busiest = 0
        self.extra_headers: dict[str, str] = {}
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        request = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.requests.append(request | {"path": handler.path})
            self.headers.append(dict(handler.headers))
            self.busy += 1
            self.busiest = max(self.busiest, self.busy)
        time.sleep(self.delay_s)
        said = self.say(request)
        with self._lock:
            self.busy -= 1
        if isinstance(said, str):
            said = (200, json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]}).encode())
        with contextlib.suppress(OSError):  # the client has gone
            self._send(handler, *said)

    def _send(self, handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
        handler.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | self.extra_headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        for at in range(0, len(body), 1 if self.drip else len(body) or 1):
            handler.wfile.write(body[at : at + 1] if self.drip else body)
            handler.wfile.flush()
            time.sleep(0.05 if self.drip else 0)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = ChatServer()
    yield made
    made.close()


def episode(name: str, *steps: tuple[str, str]) -> Trajectory:
    turns = [
        builders.turn(text=done, observed=(Message(role="user", content=seen),) if seen else ()) for seen, done in steps
    ]
    return builders.episode(name, *turns, task=TASK)


def group(*names: str) -> Group:
    done = ("Task: buy a pen\nshop", "click [1]")
    return builders.group(*(episode(name, done, (f"cart {name}", "pay")) for name in names))


def build(server: ChatServer, **options: Any) -> judge.JudgeReward:
    return judge.build(**{"url": server.url, "model": "m", "cache": None, "backoff_s": 0.01, "timeout_s": 60} | options)


def values(reward: judge.JudgeReward, *names: str) -> list[float | None]:
    return [score.value for score in reward.score(group(*names))]


def by_cart(answers: dict[str, str]) -> Callable[[dict[str, Any]], str]:
    def say(request: dict[str, Any]) -> str:
        asked = request["messages"][1]["content"]
        return next(answer for name, answer in answers.items() if f"cart {name}\n" in asked)

    return say


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("It paid.\nVerdict: YES", True),
        ("**Verdict: no**", False),
        ("Final verdict - NO.", False),
        ("yes", True),
        (" No.\n", False),
        ("Verdict: YES\nOn second thoughts:\nVerdict: NO", False),
        ("Verdict: UNSURE", None),
        ("The page says `Verdict: YES` but I cannot tell.", None),
        ("Verdict: YES or NO", None),
        ("Yes, I think the agent did it", None),
        ("Verdict:", None),
        ("", None),
    ],
)
def test_verdicts_are_read_or_not_at_all(answer: str, verdict: bool | None):
    assert judge.parse_verdict(answer) is verdict


def test_it_judges_what_was_seen_and_done_and_nothing_else(server: ChatServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JUDGE_KEY", "secret-key")
    server.say = by_cart({"a": "Verdict: YES", "b": "It left.\nVerdict: NO", "c": "Verdict: UNSURE", "d": "hm"})
    scored = score_group(group("a", "b", "c", "d"), build(server, key_env="JUDGE_KEY")).trajectories
    assert [t.score and t.score.value for t in scored] == [1.0, 0.0, None, None]
    assert [t.learnable for t in scored] == [True, True, False, False]
    assert scored[0].turns[-1].rewards == {"judge": 1.0} and scored[0].success is None
    request, headers = server.requests[0], server.headers[0]
    assert request["path"] == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret-key"
    asked = request["messages"][1]["content"]
    assert "Task: buy a pen" in asked and "Actions: click [1]; pay" in asked and "\nshop" not in asked
    assert "42" not in json.dumps(request["messages"])
    assert (request["model"], request["temperature"], request["seed"]) == ("m", 0.0, 0)


def test_an_episode_without_text_is_never_asked_about(server: ChatServer):
    mute = Group(id="g", task=TASK, seed=0, trajectories=(episode("mute", ("", "a")),))
    assert [score.value for score in build(server).score(mute)] == [None] and not server.requests


@pytest.mark.parametrize(
    "broken",
    [
        (500, b"down"),
        (429, b"slow down"),
        (401, b"who are you"),
        (200, b"not json"),
        (200, b"[" * 200_000),
        (200, b'{"choices": []}'),
        (200, b'{"choices": [{"message": {"content": null}}]}'),
        (302, b""),
    ],
)
def test_a_failing_endpoint_cannot_tell_and_is_never_a_nought(server: ChatServer, broken: tuple[int, bytes]):
    server.say = lambda _: broken
    (score,) = build(server, retries=1).score(group("a"))
    assert score.value is None and score.message
    final = broken[0] in (401, 302)
    assert len(server.requests) == (1 if final else 2)
    assert ("refused" if final else "in 2 tries") in score.message


def test_a_failure_that_passes_is_tried_again(server: ChatServer):
    answers: list[Answer] = [(503, b"starting"), (200, b"{"), "Verdict: NO"]
    server.say = lambda _: answers.pop(0)
    assert values(build(server), "a") == [0.0]


def test_a_slow_endpoint_cannot_tell(server: ChatServer):
    server.delay_s = 30.0
    assert values(build(server, timeout_s=0.3, retries=0), "a") == [None]


def test_an_endpoint_that_drips_cannot_tell(server: ChatServer):
    server.drip = True  # 80 bytes at 50 ms: no single read is slow
    assert values(build(server, timeout_s=0.5, retries=0), "a") == [None]


def test_nobody_there_cannot_tell():
    (score,) = judge.build(url="http://127.0.0.1:9/v1", model="m", cache=None, retries=1, backoff_s=0.01).score(
        group("a")
    )
    assert score.value is None and "in 2 tries" in score.message


def test_the_wait_follows_the_endpoints_word(server: ChatServer, monkeypatch: pytest.MonkeyPatch):
    waits: list[float] = []
    monkeypatch.setattr("rollwright.generation.chat_api.time.sleep", waits.append)
    client = ChatClient(url=server.url, model="m", retries=2, backoff_s=1.0)
    server.say = lambda _: (503, b"")
    with pytest.raises(ChatFailure):
        client.ask({})
    server.extra_headers = {"Retry-After": "7"}
    with pytest.raises(ChatFailure):
        client.ask({})
    assert [w for w in waits if w >= 1] == [1.0, 2.0, 7.0, 7.0]


def test_questions_under_way_are_bounded(server: ChatServer):
    server.delay_s = 0.2
    assert values(build(server, parallel=2), *"abcdef") == [1.0] * 6
    assert server.busiest == 2


def test_votes(server: ChatServer):
    said = {0: "Verdict: YES", 1: "Verdict: NO", 2: "Verdict: YES"}
    server.say = lambda request: said[request["seed"]]
    assert values(build(server, votes=3, temperature=0.7), "a") == [1.0]
    assert values(build(server, votes=3, temperature=0.7, value="share"), "a") == [pytest.approx(2 / 3)]
    assert values(build(server, votes=2, temperature=0.7), "a") == [None], "one against one"
    said[0] = said[1] = "hm"
    assert values(build(server, votes=3, temperature=0.7), "a") == [None], "one vote of three decides nothing"


def test_it_keeps_the_contract_with_and_without_cache(server: ChatServer, tmp_path: Path):
    server.say = by_cart({"a": "Verdict: YES", "b": "Verdict: NO", "c": "?"})
    for cache in (None, str(tmp_path / "cache")):
        reward = build(server, cache=cache)
        check_reward(reward, [group("a", "b", "c")])
        check_reward(combine.build(weights={"env": 1.0, "judge": 0.5}, rewards=[reward]), [group("a", "b", "c")])


def test_answers_are_kept_by_content_and_garbled_ones_are_not(server: ChatServer, tmp_path: Path):
    server.say = by_cart({"a": "Verdict: YES", "b": "?"})
    folder = str(tmp_path / "cache")
    assert values(build(server, cache=folder), "a", "b") == [1.0, None]
    server.say = by_cart({"a": "Verdict: NO", "b": "Verdict: NO"})
    assert values(build(server, cache=folder), "a", "b") == [1.0, 0.0], "a is known, b is asked again"
    assert len(server.requests) == 3
    assert values(build(server, cache=folder, model="other"), "a") == [0.0]
    assert values(build(server, cache=folder, question="Well?"), "a") == [0.0]
    server.close()
    assert values(build(server, cache=folder), "a", "b") == [1.0, 0.0], "no endpoint is needed for what is known"


def test_votes_without_seeds_are_kept_apart(server: ChatServer, tmp_path: Path):
    answers = ["Verdict: YES", "Verdict: NO", "Verdict: YES"]
    server.say = lambda _: answers.pop(0)
    reward = build(server, cache=str(tmp_path), votes=3, temperature=1.0, body={"seed": None, "top_p": 0.9})
    assert values(reward, "a") == [1.0] and not answers
    assert all("seed" not in request and request["top_p"] == 0.9 for request in server.requests)
    assert values(reward, "a") == [1.0] and len(AnswerCache(tmp_path)) == 3


WRITER = """
import sys
from rollwright.generation.answer_cache import AnswerCache
from tests import builders
cache, rounds = AnswerCache(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
for n in range(rounds):
    for question in range(20):
        cache.put({"q": question}, f"answer {question} " + "x" * 20000)
"""


def writer(folder: Path, rounds: int) -> subprocess.Popen[str]:
    started = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(rounds)], stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None and started.stdout.readline() == "ready\n"
    return started


@pytest.mark.long
def test_many_processes_share_a_cache_and_a_kill_leaves_no_half_answer(tmp_path: Path):
    killed, done = [writer(tmp_path, 100_000) for _ in range(2)], writer(tmp_path, 3)
    try:
        assert done.wait(120) == 0
    finally:
        for process in killed:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    cache = AnswerCache(tmp_path)
    assert len(cache) == 20
    for question in range(20):
        assert cache.get({"q": question}) == f"answer {question} " + "x" * 20000
    assert cache.get({"q": 20}) is None


def test_a_damaged_or_foreign_answer_counts_as_none(tmp_path: Path):
    cache = AnswerCache(tmp_path)
    cache.put({"q": 1, "t": (1, 2), "page": "\ud800"}, "yes")
    assert cache.get({"q": 1, "t": (1, 2), "page": "\ud800"}) == "yes"
    (file,) = tmp_path.glob("??/*.json")
    kept = file.read_text()
    file.write_text(kept[:-5])
    assert cache.get({"q": 1, "t": (1, 2), "page": "\ud800"}) is None
    file.write_text(kept.replace('"q": 1', '"q": 2'))
    assert cache.get({"q": 1, "t": (1, 2), "page": "\ud800"}) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "file:///etc/passwd"}, "http or https"),
        ({"url": "http://a..b/v1"}, r"a\.\.b/v1' cannot be used"),
        ({"votes": 3}, "same vote"),
        ({"votes": 0}, "1 or more"),
        ({"value": "mean"}, "verdict or share"),
        ({"timeout_s": 0}, "timeout_s above 0"),
        ({"key_env": "NO_SUCH_KEY_HERE"}, "NO_SUCH_KEY_HERE"),
    ],
)
def test_options_without_meaning_are_refused(options: dict[str, Any], said: str):
    with pytest.raises(ConfigError, match=said):
        judge.build(**{"url": "http://localhost/v1", "model": "m", "cache": None} | options)


def test_the_key_is_not_shown():
    assert "secret" not in repr(ChatClient(url="http://localhost/v1", model="m", key="secret"))
