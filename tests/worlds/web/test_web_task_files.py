"""Task files in WebArena's format: read, or each bad task refused with its id and the reason; logins are honoured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rollwright.contracts.environment import Observation, episode_seed
from rollwright.contracts.errors import ConfigError
from rollwright.envs.web.open_pages.evaluators import content_match, string_match, url_match
from rollwright.envs.web.open_web import OpenWebWorld, build

HERE = "http://127.0.0.1:7770"
ANSWER = {"eval_types": ["string_match"], "reference_answers": {"exact_match": "seven"}}


def task(**changes: Any) -> dict[str, Any]:
    return {"task_id": 1, "start_url": f"{HERE}/", "intent": "How many?", "eval": ANSWER, **changes}


def answers(**references: Any) -> dict[str, Any]:
    return task(eval={"eval_types": ["string_match"], "reference_answers": references})


def at(reference: Any, **more: Any) -> dict[str, Any]:
    return task(eval={"eval_types": ["url_match"], "reference_url": reference, **more})


def page(**changes: Any) -> dict[str, Any]:
    target = {"url": "last", "locator": "", "required_contents": {"must_include": ["x"]}, **changes}
    return task(eval={"eval_types": ["program_html"], "program_html": [target]})


REFUSED: list[tuple[Any, str]] = [
    (None, "number 1 is no object"),
    ([], "number 1 is no object"),
    (task(task_id=None), "task_id must be"),
    (task(task_id=True), "task_id must be"),
    (task(task_id=" "), "task_id must be"),
    ({"task_id": 1, "intent": "x", "eval": ANSWER}, "task 1: the keys start_url are missing"),
    (task(split="dev"), "task 1: split must be one of"),
    (task(start_url=None), "task 1: start_url must be an http address"),
    (task(start_url="http://["), "task 1: start_url must be an http address"),
    (task(start_url="file:///etc/passwd"), "task 1: start_url must be an http address"),
    (task(start_url="__REDDIT__/f"), "start_url has the placeholder __REDDIT__"),
    (task(start_url=f"{HERE}/a |AND| {HERE}/b"), r"start_url joins several pages by \|AND\|"),
    (task(intent=None), "intent must be a text, got None"),
    (task(intent="  "), "intent must be a text"),
    (task(intent=["a"]), "intent must be a text"),
    (task(intent="What is {{x}}?"), r"the blank \{\{x\}\}"),
    (task(intent="What is {{x}}?", instantiation_dict={"x": None}), r"the blank \{\{x\}\}"),
    (task(intent="Go to __GITLAB__"), "intent has the placeholder __GITLAB__"),
    (task(eval=None), "task 1: eval must be an object"),
    (task(eval=[]), "task 1: eval must be an object"),
    (task(eval={}), "eval_types must be"),
    (task(eval={"eval_types": "string_match"}), "eval_types must be"),
    (task(eval={"eval_types": [["string_match"]]}), "eval_types must be"),
    (task(eval={"eval_types": ["string_match"]}), "reference_answers must be given as"),
    (answers(), "reference_answers must be given as"),
    (answers(fuzzy_match=["x"]), "reference_answers must be given as"),
    (answers(exact_match=["seven"]), "exact_match must be one text"),
    (answers(exact_match=7), "exact_match must be one text"),
    (answers(exact_match="''"), "exact_match is empty"),
    (answers(exact_match="a |AND| b"), "nothing equals two"),
    (answers(must_include=[12]), "must_include must be a list of texts"),
    (answers(must_include=[]), "must_include must be a list of texts"),
    (answers(must_include={"a": 1}), "must_include must be a list of texts"),
    (answers(must_include=[""]), "holds an empty text"),
    (answers(must_include=["a |OR| "]), "holds an empty text"),
    (answers(must_include=["see __MAP__"]), "reference_answers has the placeholder __MAP__"),
    (at(""), "url_match needs reference_url"),
    (at(None), "url_match needs reference_url"),
    (at([HERE]), "url_match needs reference_url"),
    (at("__SHOPPING__/x"), "reference_url has the placeholder __SHOPPING__"),
    (at("__MY_SITE__/x"), "reference_url has the placeholder __MY_SITE__"),
    (at("http://["), "is no address"),
    (at("func:last()"), "which WebArena runs as Python"),
    (at(f"{HERE}/a |AND| {HERE}/b"), "a page has one"),
    (at(f"{HERE}/a", url_note="EXACT"), "url_note must be"),
    (at("http://elsewhere:1/a"), "not among the origins"),
    (task(eval={"eval_types": ["program_html"], "program_html": {}}), "needs a list of targets"),
    (task(eval={"eval_types": ["program_html"], "program_html": ["x"]}), "must be an object"),
    (page(url="func:shopping_get_latest_order_url()"), "which WebArena runs as Python"),
    (page(locator=" func:get(__page__)"), "which WebArena runs as Python"),
    (page(locator=["x"]), "expected a text"),
    (page(url="/orders"), "expected an http address or last"),
    (page(url="__SHOPPING__/orders"), "url has the placeholder __SHOPPING__"),
    (page(url="http://elsewhere:1/orders"), "not among the origins"),
    (page(required_contents="x"), "required_contents must be given as"),
    (page(required_contents={"must_include": "x |OR|"}), "holds an empty text"),
    (page(required_contents={"required_values": ["> 1"]}), "required_contents must be given as"),
    (page(prep_actions=["document.querySelector('a').click()"]), "prep_actions"),
    (task(geolocation={"latitude": 1, "longitude": 2}), "geolocation"),
    (task(require_login=True), "require_login without a storage_state"),
    (task(storage_state="./.auth/none.json"), "storage_state ./.auth/none.json is neither in"),
    (task(storage_state=["x"]), "storage_state must be a path"),
    (task(storage_state="broken.json"), "broken.json cannot be read: it is no JSON"),
    (task(storage_state="list.json"), "must be an object with lists of cookies and origins"),
    (task(storage_state="nameless.json"), "has a cookie without name"),
]


def written(folder: Path, content: Any, encoding: str = "utf-8") -> str:
    path = folder / "tasks.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding=encoding)
    (folder / "broken.json").write_text("{")
    (folder / "list.json").write_text("[1]")
    (folder / "nameless.json").write_text('{"cookies": [{"value": "x"}], "origins": []}')
    return str(path)


def ids(world: OpenWebWorld) -> list[str]:
    return [task.id for task in world.tasks("train")]


@pytest.mark.parametrize(("bad", "reason"), REFUSED)
def test_a_bad_task_costs_itself(bad: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        build(tasks=written(tmp_path, [bad]))
    world = build(tasks=written(tmp_path, [bad, task(task_id="good")]))
    assert ids(world) == ["good"] and len(world.refused) == 1
    assert "Traceback" not in world.refused[0] and "\n" not in world.refused[0]


def test_a_task_id_is_used_once(tmp_path: Path) -> None:
    world = build(tasks=written(tmp_path, [task(), task(task_id="1", intent="Other"), task(split="test")]))
    assert ids(world) == ["1"] and [t.id for t in world.tasks("test")] == ["1"]
    assert world.refused == ("task 1: an earlier task of the split train has this task_id",)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("form", ["list", "one", "lines", "one line", "windows lines"])
def test_every_form_of_file_is_read(form: str, encoding: str, tmp_path: Path) -> None:
    two = [json.dumps(task(intent="Wie \u00fcblich\u2028?")), json.dumps(task(task_id=2), ensure_ascii=False)]
    content = {
        "list": f"[{', '.join(two)}]\n",
        "one": json.dumps(task(), indent=1),
        "lines": "\n".join(two),
        "one line": two[0] + "\n\n",
        "windows lines": "\r\n".join(["", *two, ""]),
    }[form]
    world = build(tasks=written(tmp_path, content, encoding))
    assert ids(world) == (["1"] if form.startswith("one") else ["1", "2"]) and not world.refused


def test_files_that_are_none(tmp_path: Path) -> None:
    for content in ("", "[]", "{}", "7", "null", "[{]", "x" * 100, "[" * 100_000, "\u0000"):
        with pytest.raises(ConfigError, match=r"web\.open_web"):
            build(tasks=written(tmp_path, content))
    (tmp_path / "tasks.json").write_bytes(b'[{"task_id": "\xff"}]')
    with pytest.raises(ConfigError, match="cannot read its task file"):
        build(tasks=str(tmp_path / "tasks.json"))
    world = build(tasks=written(tmp_path, f'{json.dumps(task())}\n{{"task_id": 2, \n[3]\n'))
    assert ids(world) == ["1"]
    assert world.refused == ("the task in line 2 is no object of JSON", "the task in line 3 is no object of JSON")


def test_placeholders_and_blanks_are_filled(tmp_path: Path) -> None:
    entry = task(
        start_url="__SHOPPING__/a",
        intent="What is {{x}} in __SHOPPING__?",
        instantiation_dict={"x": 7},
        eval={
            "eval_types": ["url_match", "program_html"],
            "reference_url": "__SHOPPING__/b |OR| __MY_SITE__/c",
            "program_html": [
                {
                    "url": "__MY_SITE__/d",
                    "locator": "window.__INITIAL_STATE__",
                    "required_contents": {"exact_match": "__SHOPPING__/e"},
                }
            ],
        },
    )
    world = build(
        tasks=written(tmp_path, [entry]),
        sites={"SHOPPING": f"{HERE}/", "my_site": "http://h:1"},
        origins=["http://h:1"],
    )
    [made] = world.tasks("train")
    assert made.params["start_url"] == f"{HERE}/a" and made.params["intent"] == f"What is 7 in {HERE}?"
    assert made.params["eval"]["reference_url"] == f"{HERE}/b |OR| http://h:1/c"
    [target] = made.params["eval"]["program_html"]
    assert target["url"] == "http://h:1/d" and target["required_contents"] == {"exact_match": f"{HERE}/e"}
    for sites in ({"SHOPPING": "7770"}, {"SHOPPING": None}, ["SHOPPING"]):
        with pytest.raises(ConfigError, match="sites"):
            build(tasks=written(tmp_path, [task()]), sites=sites)  # type: ignore[arg-type]


def test_alternatives_and_parts() -> None:
    assert string_match("It is blue", {"must_include": ["red |OR| blue"]}) == 1
    assert string_match("It is blue", {"must_include": ["red|or|green"]}) == 0
    assert string_match("red and blue", {"must_include": ["red |AND| blue |OR| green"]}) == 1
    assert string_match("red and pink", {"must_include": ["red |AND| blue |OR| green"]}) == 0
    assert string_match("No", {"exact_match": "no |OR| none"}) == 1 and string_match("n", {"exact_match": "no"}) == 0
    assert content_match("red, blue", {"must_include": ["red |AND| blue"]}) == 1
    assert content_match("red", {"must_include": ["red |AND| blue"]}) == 0
    assert content_match("b", {"exact_match": "a |OR| b"}) == 1
    assert url_match("http://h/b", "http://h/a|OR|http://h/b") == 1


@pytest.mark.browser
async def test_a_login_is_begun_with(shop_with_login: str, tmp_path: Path) -> None:
    host = shop_with_login.split("//")[1].split(":")[0]
    state = {
        "cookies": [{"name": "who", "value": "ann", "domain": host, "path": "/", "expires": -1}],
        "origins": [{"origin": shop_with_login, "localStorage": [{"name": "kept", "value": "9"}]}],
    }
    (tmp_path / "login.json").write_text(json.dumps(state))
    known = task(start_url=f"{shop_with_login}/", require_login=True, storage_state="login.json")
    path = written(tmp_path, [known])
    for ignore, text in ((False, "ann has 9"), (True, "nobody has null")):
        world = build(tasks=path, ignore_logins=ignore, deadline_s=60, load_s=60)
        env = world.make()
        try:
            shown = await env.reset(world.tasks("train")[0], episode_seed("train", 0))
            assert isinstance(shown, Observation) and text in shown.text
        finally:
            await env.close()
            await world.close()


@pytest.fixture
def shop_with_login() -> Any:
    """A site that greets by cookie and by what its page has stored."""
    import threading
    from http.cookies import SimpleCookie
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = SimpleCookie(self.headers.get("Cookie", "")).get("who")
            who = found.value if found else "nobody"
            body = f"<p></p><script>document.querySelector('p').append('{who} has ' + localStorage.kept)</script>"
            body = body.replace("localStorage.kept", "localStorage.getItem('kept')")
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
