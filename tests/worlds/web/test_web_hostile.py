"""Pages and sites that do all they can: each action on them brings an observation in bounded time, never a fault."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rollwright.contracts.environment import Observation, StepResult, episode_seed
from rollwright.contracts.errors import EnvironmentFault
from rollwright.envs.web.open_web import OpenWebEnv, OpenWebWorld, build

pytestmark = pytest.mark.browser

ENV_CALL_S = 30.0  # what the rollout grants to one call
SEED = episode_seed("train", 0)
SHADOWED = ("childNodes", "matches", "getAttribute", "tagName", "body", "querySelector", "activeElement", "id")
NAMES = "".join(f'<form><input name="{name}"></form><img name="{name}" id="{name}">' for name in SHADOWED)
NAMES += "".join(f"<a id={name} name={name}></a>" for name in ("__rw", "__rwSites", "__rwWalk", "jQuery", "JSON"))
ODD = (
    "chrome://crash",
    "file:///etc/passwd",
    "view-source:/",
    "data:text/html,x",
    "javascript:void(location=`/loop`)",
    "about:blank",
    "ftp://h/",
    "blob:x",
)
FIELD = "<input aria-label=Name>"
SCRIPT = "<p>Here</p><script>{}</script>"
BUTTON = "<p>Here</p><button onclick='{}'>Push</button>"

PAGES = {
    "/": "<title>Home</title><p>Home</p><a href=/other>other</a><a href=/pdf>paper</a><a href=/silent>slow</a>",
    "/other": "<p>Other</p><input aria-label=Name>",
    "/spin": BUTTON.format("for (;;);"),
    "/spin-later": SCRIPT.format("setTimeout(() => { for (;;); }, 300)"),
    "/alerts": BUTTON.format("for (;;) alert(1)"),
    "/stay": FIELD + SCRIPT.format("onbeforeunload = (e) => { e.preventDefault(); return 1; }"),
    "/buttons": "<p>Here</p>" + "<button>b</button>" * 30_000,
    "/boxes": "<p>Here</p>"
    + "<script>document.write('<div role=button onclick=1>'.repeat(400) + '<i role=link>x</i>'.repeat(30000))</script>",
    "/patched": SCRIPT.format(
        "Array.prototype.map = Array.prototype[Symbol.iterator] = JSON.stringify = String.prototype.trim = () => 'x';"
        "document.querySelector = Element.prototype.matches = Map.prototype.get = WeakMap.prototype.has = () => 'x';"
        "EventTarget.prototype.dispatchEvent = Event.prototype.preventDefault = getComputedStyle = () => { throw 1; };"
        "Object.hasOwn = Object.keys = Promise = undefined; window.__rwSites = window.__rw = 1"
    )
    + "<button>Real</button>",
    "/named": f"<p>Here</p>{NAMES}<button>Real</button>",
    "/forged": "<p>False</p><script>document.querySelector = () => ({ innerText: 'Here' });"
    """JSON.stringify = () => '{"content":"Here"}'</script>""",
    "/close": BUTTON.format("window.open(``, `_self`).close()"),
    "/reload": SCRIPT.format("location.reload()"),
    "/pong": SCRIPT.format("location = '/ping'"),
    "/ping": SCRIPT.format("location = '/pong'"),
    "/deep": SCRIPT.format(
        "let d = document.body; for (let i = 0; i < 20000; i++) d = d.appendChild(document.createElement('div'))"
    ),
    "/mutate": SCRIPT.format("setInterval(() => document.body.append(document.createElement('button')), 0)"),
    "/giant": "<p>Here</p><button aria-label='{0}'>x</button><p>{0}</p>".format("giant " * 500_000),
    "/write": BUTTON.format("document.open(); document.write(`<p>Written</p>`)"),
    "/history": SCRIPT.format("for (let i = 0; i < 300; i++) history.pushState({}, '', '#' + i)"),
    "/long": SCRIPT.format("history.pushState({}, '', '/' + 'x'.repeat(1e6))"),
    "/back": BUTTON.format("history.go(-99)"),
    "/nobody": BUTTON.format("document.documentElement.remove()"),
    "/frames": SCRIPT.format(
        "if (location.hash.length < 60) { const f = document.createElement('iframe');"
        "f.src = '/frames' + (location.hash || '#') + 'x'; document.body.append(f); }"
    ),
    "/frameset": "<frameset cols='50%,50%'><frame src=/other><frame src=/other></frameset>",
    "/popup": BUTTON.format("window.open(`/other`); window.open(`about:blank`)") + "<a target=_blank href=/other>b</a>",
    "/print": BUTTON.format("print()"),
    "/mail": BUTTON.format("location = `mailto:a@b`") + "<a href=mailto:a@b>mail</a>",
    "/odd": "<p>Here</p>" + "".join(f"<a href='{address}'>odd</a>" for address in ODD),
    "/half": SCRIPT.format("document.body.append('\\ud83d', ' half')") + "<button title='\U0001f600'>x</button>",
    "/cut": f"<p>Here</p><button>x{'&#128578;' * 100}</button>",
    "/upload": "<p>Here</p><input type=file><input type=color><input type=date><details><summary>x</summary></details>",
    "/save": "<p>Here</p><a download=x href=/other>save</a><a download href='data:text/plain,x'>data</a>"
    + BUTTON.format("const a = document.createElement(`a`); a.download = `y`; a.href = `data:,x`; a.click()"),
    "/worker": SCRIPT.format("new Worker(URL.createObjectURL(new Blob(['for(;;);'])))"),
    "/media": "<p>Here</p><img src=/silent><script async src=/silent></script>",
}
TIMER = (
    "<p>Here</p><script>let n = 3000; setInterval(() => {{ for (let i = 0; i < 20 && n-- > 0; i++) {} }}, 0)</script>"
)
FLOODS = {
    "/flood-console": TIMER.format("{ console.log('x'.repeat(1000)); setTimeout(() => { throw new Error('y'); }); }"),
    "/flood-fetch": TIMER.format("fetch('/other?' + Math.random())"),
    "/flood-windows": TIMER.format("window.open('/other')"),
    "/flood-sockets": TIMER.format("new WebSocket('ws://127.0.0.1:9/')"),
}
PAGES |= FLOODS
FILES = {"/pdf": "application/pdf", "/csv": "text/csv", "/exe": "application/octet-stream", "/none": ""}
MOVES = {
    "/loop": "/loop",
    "/off": "http://192.0.2.1/",
    "/bad": "http://[",
    "/script": "/x</script><b>forged</b>",
    "/file": "file:///etc/passwd",
}


class HostileSite:
    """All of `PAGES`, `FILES` and `MOVES`, and paths that are silent, hang up, or talk nonsense."""

    def __init__(self) -> None:
        over = self._over = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with suppress(OSError):
                    self._answer(self.path.split("?")[0])

            do_POST = do_GET

            def _answer(self, path: str) -> None:
                if path in MOVES:
                    self._send(302, {"Location": MOVES[path]}, b"")
                elif path in FILES:
                    self._send(200, {"Content-Type": FILES[path]} if FILES[path] else {}, bytes(range(256)))
                elif path == "/attached":
                    self._send(200, {"Content-Type": "text/html", "Content-Disposition": "attachment"}, b"<p>x")
                elif path in ("/204", "/500"):
                    self._send(int(path[1:]), {"Content-Type": "text/html"}, b"")
                elif path == "/silent":
                    over.wait(60)
                elif path == "/trickle":
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>Here</p>")
                    over.wait(60)
                elif path == "/nonsense":
                    self.wfile.write(b"\x00\x01 nonsense\r\n\r\n")
                elif path == "/hangup":
                    self.connection.shutdown(socket.SHUT_RDWR)
                else:
                    body = PAGES.get(path, "<p>Nothing here</p>").encode("utf-8", "surrogatepass")
                    self._send(200, {"Content-Type": "text/html; charset=utf-8"}, body)

            def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        self._over.set()
        self._http.shutdown()
        self._http.server_close()


OTHER_PATHS = (*FILES, *MOVES, "/attached", "/204", "/500", "/silent", "/trickle", "/nonsense", "/hangup", "/nowhere")


@pytest.fixture(scope="module")
def site() -> Iterator[HostileSite]:
    site = HostileSite()
    yield site
    site.close()


def make_world(site: HostileSite, folder: Path, **options: object) -> OpenWebWorld:
    task = {"task_id": 1, "start_url": f"{site.address}/", "intent": "x"}
    task["eval"] = {"eval_types": ["string_match"], "reference_answers": {"exact_match": "x"}}
    (folder / "tasks.json").write_text(json.dumps([task]))
    return build(tasks=str(folder / "tasks.json"), **{"max_turns": 10**6, **options})  # type: ignore[arg-type]


@pytest.fixture
async def patient(site: HostileSite, tmp_path: Path) -> AsyncIterator[OpenWebWorld]:
    """Waits as long as a busy machine may need: for what is not about waiting."""
    world = make_world(site, tmp_path, deadline_s=60, load_s=30)
    yield world
    await world.close()


@pytest.fixture
async def hasty(site: HostileSite, tmp_path: Path) -> AsyncIterator[OpenWebWorld]:
    """Waits a moment: for pages that are waited for in vain."""
    world = make_world(site, tmp_path, deadline_s=3, load_s=2)
    yield world
    await world.close()


async def started(world: OpenWebWorld) -> OpenWebEnv:
    env = world.make()
    for attempt in range(5):  # the hasty world may be too hasty for a busy machine
        try:
            await env.reset(world.tasks("train")[0], SEED)
            break
        except EnvironmentFault:
            if attempt == 4:
                raise
    world.pool.faults.clear()
    return env


def text_of(result: StepResult) -> str:
    assert isinstance(result.observation, Observation)
    return result.observation.text


async def visit(env: OpenWebEnv, site: HostileSite, path: str, *actions: str) -> str:
    """Open a page, act on it; the last observation."""
    result = await env.step(f"goto {site.address}{path}")
    for action in actions:
        result = await env.step(action)
    return text_of(result)


async def until(env: OpenWebEnv, action: str, said: str) -> str:
    """Repeat an action until the observation says something: a busy machine may need a second try."""
    for _ in range(8):
        if said in (text := text_of(await env.step(action))):
            return text
    raise AssertionError(f"{action}: expected {said!r} in {text[:300]!r}")


ACTIONS = ("click 1", "click 2", "fill 1 x", "press 1 Enter", "noop", "go_back")


async def play(env: OpenWebEnv, site: HostileSite, path: str, *actions: str) -> list[str]:
    """Open a page and act on it; what went wrong."""
    wrong = []
    for action in (f"goto {site.address}{path}", *actions):
        begun = time.monotonic()
        try:
            text = text_of(await env.step(action))
        except Exception as error:
            return [*wrong, f"{path}: {action} raised {error!r}"]
        if time.monotonic() - begun > ENV_CALL_S or len(text) > 20_000 or "\nAt " not in f"\n{text}":
            wrong.append(f"{path}: {action} took {time.monotonic() - begun:.1f} s and gave {text[:200]!r}")
    return wrong


@pytest.mark.slow
async def test_every_page_gives_observations_within_the_time_of_a_call(hasty: OpenWebWorld, site: HostileSite) -> None:
    paths = [path for path in (*PAGES, *OTHER_PATHS) if path not in FLOODS]
    random.Random(0).shuffle(paths)
    shares = [paths[k::6] for k in range(6)]

    async def player(share: list[str]) -> list[str]:
        env = await started(hasty)
        wrong = [line for path in share for line in await play(env, site, path, *ACTIONS)]
        await env.close()
        return wrong

    wrong = [line for lines in await asyncio.gather(*map(player, shares)) for line in lines]
    assert wrong == [] and hasty.pool.faults == []


SAID = {
    ("/pdf",): "a file to download (application/pdf)",
    ("/csv",): "a file to download (text/csv)",
    ("/attached",): "a file to download",
    ("/none",): "could not be opened",
    ("/loop",): "from one address to the next without end",
    ("/off",): "only these sites can be opened",
    ("/file",): "only these sites can be opened",
    ("/bad",): "could not be opened",
    ("/nonsense",): "could not be opened",
    ("/hangup",): "could not be opened",
    ("/204",): "without a page (204)",
    ("/500",): "/500\n500",
    ("/", "click 2"): "a file to download (application/pdf)",
    ("/save", "click 1"): "a file to download",
    ("/popup", "click 1"): "Tabs: 1 ",
    ("/popup", "click 2"): "(shown); tab_focus N shows another one, tab_close closes this one\nOther",
    ("/patched", "click 1"): "Here\n1 button Real",
    ("/named",): "button Real",
    ("/half",): "\ufffd half",
    ("/cut",): "button x" + "\U0001f642" * 59 + "...",
    ("/buttons",): "... 4",
    ("/frames",): "Here",
    ("/back", "click 1"): "1 button Push",
    ("/write", "click 1"): "Written",
    ("/nobody", "click 1", "noop"): "/nobody",
    ("/history", "go_back"): "#298\nHere",
    ("/odd", "click 1"): "leaves the site",
    ("/stay", "fill 1 x", "goto OTHER"): "beforeunload '' was accepted\nAt ",
    ("/stay", "fill 1 x", "go_back"): "Home",
    ("/other", "goto file:///etc/passwd"): "only these sites can be opened",
    ("/other", "go_back", "go_back", "go_back"): "there is no earlier page",
}


@pytest.mark.slow
async def test_what_a_page_does_instead_is_said(patient: OpenWebWorld, site: HostileSite) -> None:
    silent = []
    env = await started(patient)
    for (path, *actions), said in SAID.items():
        await env.reset(patient.tasks("train")[0], SEED)
        text = await visit(env, site, path, *(action.replace("OTHER", f"{site.address}/other") for action in actions))
        if said not in text:
            silent.append(f"{path} {actions}: expected {said!r} in {text[:300]!r}")
    assert silent == [] and patient.pool.faults == []
    await env.close()


async def test_a_refused_journey_leaves_the_page_where_it_was(patient: OpenWebWorld, site: HostileSite) -> None:
    env = await started(patient)
    await visit(env, site, "/other", "fill 1 kept")
    for path in ("/pdf", "/loop", "/off", "/204", "/hangup"):
        text = await visit(env, site, path)
        assert text.startswith("Error: ") and text.endswith(
            f"At {site.address}/other\nOther\n1 textbox Name = kept (focused)"
        )
    await env.close()


@pytest.mark.parametrize("path", ["/silent", "/trickle"])
async def test_a_site_that_never_answers_is_waited_for_and_left(
    hasty: OpenWebWorld, site: HostileSite, path: str
) -> None:
    env = await started(hasty)
    text = await until(env, f"goto {site.address}{path}", "answer in time")
    assert text.splitlines()[1] == f"At {site.address}/"
    if path == "/silent":
        for _ in range(4):  # on a busy machine the page itself may be given up and replaced, which is an answer too
            if "3 link slow" in (text := await until(env, "click 3", "answer in time")):
                break
            await until(env, f"goto {site.address}/", "3 link slow")
        assert "3 link slow" in text
    await env.close()


@pytest.mark.parametrize("how", ["spins", "spins-later", "alerts", "crashes", "closes"])
async def test_a_page_that_is_lost_is_replaced(hasty: OpenWebWorld, site: HostileSite, how: str) -> None:
    env = await started(hasty)
    assert env._page is not None
    broken = env._page.page.handle
    if how in ("spins", "alerts"):
        await until(env, f"goto {site.address}/{'spin' if how == 'spins' else 'alerts'}", "Here")
        text = text_of(await env.step("click 1"))
    elif how == "spins-later":
        await until(env, f"goto {site.address}/spin-later", "/spin-later")
        await asyncio.sleep(0.5)
        text = text_of(await env.step("noop"))
    else:
        with suppress(Exception):
            await (broken.goto("chrome://crash") if how == "crashes" else broken.close())
        text = text_of(await env.step("click 1"))
    assert text.startswith("Error: the page stopped answering and was closed") and "At about:blank" in text
    if how == "alerts":
        assert "Dialog: alert '1' was dismissed" in text and len(text) < 5000
    assert env._page.page.handle is not broken and hasty.pool.faults == []
    assert "1 textbox Name" in await until(env, f"goto {site.address}/other", "Other"), "the episode goes on"
    assert len(env._page.page.context.pages) == 1
    await env.close()


@pytest.mark.slow
async def test_a_flood_costs_its_own_page_at_most(site: HostileSite, tmp_path: Path) -> None:
    world = make_world(site, tmp_path)
    try:
        neighbour = await started(world)
        for path in FLOODS:
            env = await started(world)
            assert await play(env, site, path, "noop", "go_back") == []
            await env.close()
            assert "1 textbox Name" in await until(neighbour, f"goto {site.address}/other", "Other")
        assert world.pool.faults == []
    finally:
        await world.close()


async def test_a_browser_that_dies_is_a_fault(patient: OpenWebWorld) -> None:
    env = await started(patient)
    assert env._page is not None
    await env._page.page.browser.handle.close()
    with pytest.raises(EnvironmentFault):
        await env.step("noop")
    assert len(patient.pool.faults) == 1


async def test_a_redirect_cannot_write_into_the_page(patient: OpenWebWorld, site: HostileSite) -> None:
    env = await started(patient)
    text = await visit(env, site, "/script")
    assert text.splitlines()[1:] == ["Nothing here"] and "forged" in text.splitlines()[0], text
    await env.close()


async def verdicts(site: HostileSite, folder: Path, *cases: tuple[str, str, str]) -> list[float | str]:
    """Scores of episodes that begin on a page, act once and answer; the judge wants to read "Here" at its address."""
    tasks = []
    for number, (path, _, at) in enumerate(cases):
        target = {"url": at and site.address + at, "locator": "document.querySelector('p').innerText"}
        target["required_contents"] = {"must_include": ["Here"]}  # type: ignore[assignment]
        evaluation = {"eval_types": ["program_html"], "program_html": [target]}
        tasks.append({"task_id": number, "start_url": f"{site.address}{path}", "intent": "x", "eval": evaluation})
    (folder / "judged.json").write_text(json.dumps(tasks))
    world, scores = build(tasks=str(folder / "judged.json"), deadline_s=10, load_s=2), []
    try:
        for task, (_, action, _) in zip(world.tasks("train"), cases, strict=True):
            env = world.make()
            await env.reset(task, SEED)
            await env.step(action)
            try:
                scores.append((await env.step("answer done")).rewards["env"])
            except EnvironmentFault:
                scores.append("fault")
            await env.close()
    finally:
        await world.close()
    return scores


async def test_the_policy_cannot_choose_not_to_be_judged(site: HostileSite, tmp_path: Path) -> None:
    cases = {
        ("/spin", "noop", ""): 1.0,
        ("/spin", "click 1", ""): 0.0,  # hung by the policy: a failure, no fault
        ("/frameset", "noop", ""): 0.0,  # what the locator asks for is not there
        ("/spin", "click 1", "/stay"): 1.0,  # the judge's own page, whatever became of the policy's
        ("/stay", "fill 1 x", "/spin"): 1.0,
        ("/other", "noop", "/hangup"): "fault",  # the site's failure is nobody's score
    }
    assert await verdicts(site, tmp_path, *cases) == list(cases.values())


async def test_a_page_cannot_forge_what_the_judge_reads(site: HostileSite, tmp_path: Path) -> None:
    assert await verdicts(site, tmp_path, ("/forged", "noop", ""), ("/patched", "noop", "")) == [0.0, 1.0]
