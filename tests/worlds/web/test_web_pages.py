"""Patterns of today's pages, one small page each: what the agent sees of it, and what it can do, or is told.

A script of a row is a list of turns: an action, and texts of which each must stand in the observation that follows
(with `!` before it: must not). `{Push}` in an action is the number of the first line that holds `Push`; `wait` is
`noop` until the texts are there.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rollwright.contracts.environment import Observation, StepResult, episode_seed
from rollwright.contracts.errors import ConfigError
from rollwright.envs.web.open_web import OpenWebEnv, OpenWebWorld, build

PAGES = Path(__file__).parent / "pages"
AT_ONCE = 4

Turns = list[tuple[str, list[str]]]

DIALOGS: dict[str, Turns] = {
    "dialog-alert": [("click {Warn}", ["Dialog: alert 'Stock is low'", "told"])],
    "dialog-confirm": [
        ("click {Delete}", ["Dialog: confirm 'Delete it?' is open; answer it with accept_dialog", "!nothing yet"]),
        ("click 1", ["Error: Dialog: confirm 'Delete it?' is open"]),
        ("accept_dialog", ["deleted", "!Dialog"]),
        ("click {Delete}", ["is open"]),
        ("dismiss_dialog", ["kept"]),
        ("dismiss_dialog", ["Error: no dialog is open", "kept"]),
    ],
    "dialog-prompt": [
        (
            "click {Greet}",
            ["Dialog: prompt 'Your name?' with 'guest' filled in is open; answer it with accept_dialog text"],
        ),
        ("accept_dialog Ann Lee", ["hello Ann Lee"]),
        ("click {Greet}", ["is open"]),
        ("accept_dialog", ["hello guest"]),
        ("click {Greet}", ["is open"]),
        ("dismiss_dialog()", ["hello null"]),
    ],
    "dialog-at-load": [("", ["Dialog: confirm 'Are you old enough?' is open"]), ("accept_dialog", ["come in"])],
    "dialog-later": [
        ("click {Wait}", []),
        ("wait", ["confirm 'Still there?'"]),
        ("accept_dialog", ["here"]),
    ],
    "dialog-chain": [
        ("click {Ask}", ["'One?' is open"]),
        ("accept_dialog", ["prompt 'Two?' is open"]),
        ("accept_dialog('b')", ["'Three?' is open"]),
        ("dismiss_dialog", ["true b false"]),
    ],
    "dialog-before-leaving": [
        ("click {Send}", ["'Really send?' is open"]),
        ("dismiss_dialog", ["nothing yet"]),
        ("click {Send}", ["is open"]),
        ("accept_dialog", ["landing.html", "Arrived"]),
    ],
    "dialog-modal": [
        ("click {Open}", ["Shall we?", "button Yes"]),
        ("click {Yes}", ["!Shall we?"]),
        ("wait", ["said yes"]),
    ],
    "dialog-leave": [("fill {Note} x", ["= x"]), ("click {Go}", ["Arrived"])],
}

DRAWING: dict[str, Turns] = {
    "frame-of-animation": [("click {Grow}", []), ("wait", ["grown"])],
    "observer-of-sight": [("wait", ["loaded as it came into sight"])],
}


def editing(start: str = "= old words") -> Turns:
    return [("", [start]), ("fill {textbox} new words", ["textbox Note = new words"]), ("clear {Note}", ["!words"])]


def form(name: str, before: str, wrong: list[str], right: str, told: str) -> Turns:
    """A wrong form is a slip that names the right one and leaves the value; the right form is taken."""
    slips = [(f"fill {{{name}}} {text}", [f"Error: this {told}", f"{name} = {before}"]) for text in wrong]
    return [*slips, (f"fill {{{name}}} {right}", [f"{name} = {right}", "!Error"])]


EDITING: dict[str, Turns] = {
    **{name: editing() for name in ("edit-bare", "edit-empty-value", "edit-plain", "edit-upper")},
    "edit-false": [("", ["fixed words", "odd words", "!textbox"])],
    "edit-rich": [
        ("", ["textbox Letter = one two three"]),
        ("fill {Letter} Dear Ann,", ["= Dear Ann,", "9 letters"]),
    ],
    "edit-island": [("", ["textbox"]), ("fill 1 over", ["= over"])],
    "edit-guarded": [
        ("fill {Code} 12345", ["Code = 123"]),
        ("fill {Fixed} x", ["Error: the element is read-only", "Fixed = kept"]),
        ("fill {Off} x", ["Error: the element is read-only", "Off = off", "Code = 123"]),
    ],
}
INPUTS: dict[str, Turns] = {
    "input-date": [
        *form(
            "Day",
            "2024-01-02",
            ["31.12.2024", "2024-02-30", "soon"],
            "2024-12-31",
            "date field takes text such as 2024-",
        ),
        ("clear {Day}", ["!2024"]),
    ],
    "input-time": form("Hour", "08:30", ["8:30 PM", "25:00"], "20:30", "time field takes text such as 23:59"),
    "input-month": form("Month", "2024-01", ["January", "2024-13"], "2024-12", "month field takes"),
    "input-week": form("Week", "2024-W05", ["5", "2024-W60"], "2024-W06", "week field takes"),
    "input-moment": form(
        "Moment", "2024-01-02T08:30", ["2024-01-02", "now"], "2024-01-02T09:00", "datetime-local field takes"
    ),
    "input-colour": [
        *form("Colour", "#ff0000", ["red", "ff0000", "#f00", "#ggg000"], "#00ff00", "color field takes text such as #"),
        ("noop", ["chosen #00ff00"]),
        ("clear {Colour}", ["Error", "= #00ff00"]),
    ],
    "input-range": [
        *form("Volume", "4", ["loud", "11", "3", "-2"], "8", "range field takes a number from 0 to 10 in steps of 2"),
        ("noop", ["at 8"]),
        ("press {Volume} ArrowRight", ["Volume = 10"]),
    ],
    "input-number": [
        ("fill {Count} many", ["Error: this field takes a number", "Count = 3"]),
        ("fill {Count} 12", ["Count = 12"]),
        ("clear {Count}", ["!= 12"]),
    ],
    "input-framework": [("fill {Name} Ann", ["Name = Ann", "state is Ann"])],
    "file-input": [
        ("click {Picture}", ["Error: files cannot be chosen here"]),
        ("fill {Picture} /etc/passwd", ["Error: files cannot be chosen here"]),
    ],
    "file-button": [
        ("click {Upload}", ["Error: this opens a choice of files; files cannot be chosen here"]),
        ("click {file Browse}", ["Error: this opens a choice of files"]),
    ],
    "file-detached": [("click {Import}", []), ("wait", ["a choice of files was closed: files cannot be chosen here"])],
    "label-for-hidden": [
        ("check {checkbox I agree}", ["agreed true", "checkbox I agree (on)"]),
        ("click {I agree}", ["agreed false", "!(on)"]),
    ],
}
LISTENERS: dict[str, Turns] = {
    "listener-div": [("click {Archive}", ["archived"])],
    "listener-press": [("click {Hold me}", ["held"])],
    "listener-removed": [("", ["Silent", "!1 "])],
    "listener-root": [("", ["Report", "A long account", "The last line."])],
    "listener-rows": [("click {Bob}", ["row of Bob"])],
    "listener-pointer": [("click {Card two}", ["opened Card two"])],
    "listener-object": [("click {Handler}", ["handled"])],
}
ROLES: dict[str, Turns] = {
    "role-switch": [
        ("check {switch}", ["(on)"]),
        ("uncheck {switch}", ["!(on)"]),
    ],
    "role-toggle": [("", ["button Off (disabled)", "(mixed)"]), ("click {Bold}", ["button Bold (on)"])],
    "role-slider": [("press {slider} ArrowRight", ["= 6"]), ("press {slider} ArrowRight", ["= 7"])],
    "role-spin": [("", ["= two guests"]), ("press {spinbutton} ArrowUp", ["= three guests"])],
    "role-combobox": [
        ("", ["combobox Pick", "!Japan"]),
        ("click {combobox}", ["(open)"]),
        ("click {Japan}", ["combobox Japan", "!France"]),
    ],
    "role-menu": [
        ("click {Menu}", ["button Menu (open)", "menuitemcheckbox Grid", "menuitemradio Small"]),
        ("check {Grid}", ["menuitemcheckbox Grid (on)"]),
        ("click {Small}", ["small it is"]),
    ],
    "role-named": [("", ["button Close the window", "textbox Close the window now"])],
    "role-tree": [("click {Folder}", ["Folder (open)"]), ("click {Leaf}", ["leaf"])],
    "key-enter": [("fill {Search} shoes", []), ("press {Search} Enter", ["found shoes"])],
    "key-form": [("fill {Query} shoes", []), ("press {Query} Enter", ["Arrived with ?q=shoes"])],
    "key-escape": [("press {Accept} Escape", ["!Cookies?"]), ("press 1 NoSuchKey", ["Error: unknown key"])],
    "much-elements": [("", ["Top", "1 button b", "more lines"])],
}
INNER = [
    ("fill {City} Rome", ["City = Rome"]),
    ("click {Send}", ["sent Rome", "Outside", "After"]),
    ("click {Deeper}", ["Outside", "Arrived", "!Inside the frame"]),
]
FRAMES: dict[str, Turns] = {
    "frame-same": [("", ["Outside\nInside the frame\n", "Out\nAfter"]), *INNER],
    "frame-nested": [*INNER[:2], ("click {Out}", ["landing.html", "Arrived", "!Outside"])],
    "frame-srcdoc": [("click {Tell}", ["told the parent"])],
    "frame-editor": [("", ["textbox = draft"]), ("fill {textbox} Dear Bob", ["textbox = Dear Bob", "wrote Dear Bob"])],
    "frame-other": [
        ("", ["Shop", "(a frame of another site, which is not shown: Payment)", "not shown: http", "!Inside"]),
    ],
    "frame-removed": [("click {Remove}", ["!Inside the frame"]), ("click 1", ["Error: no element 1 on this page"])],
    "frame-named": [("click {Show}", ["frame-named.html", "Arrived"])],
}
SHADOWS: dict[str, Turns] = {
    "shadow-open": [
        ("", ["In the shadow", "!color"]),
        ("fill {Size} L", ["Size = L"]),
        ("click {Order}", ["ordered L"]),
    ],
    "shadow-slot": [
        ("", ["button Buy now", "in stock", "button Other unslotted no more", "no note"]),
        ("click {Buy now}", ["bought"]),
    ],
    "shadow-nested": [("check {Deep}", ["Outer", "checkbox Deep (on)"])],
    "shadow-listener": [("click {Press me}", ["pressed"])],
    "shadow-host": [("", ["button Save", "!span"]), ("click {Save}", ["saved"])],
    "shadow-editor": [("fill {textbox} new words", ["textbox = new words"])],
    "shadow-link": [("click {Go on}", ["landing.html", "Arrived"])],
    "shadow-closed": [("", ["Before", "(x-box: closed, its inside is not shown)", "!Hidden away"])],
    "svg-link": [("click {Map}", ["landing.html", "Arrived"])],
}
TABS: dict[str, Turns] = {
    "tab-link": [
        ("", ["First", "!Tabs"]),
        ("click {More}", ["landing.html\nTabs: 1 http", "tab-link.html, 2 http", "landing.html (shown)", "Arrived"]),
        ("tab_focus 1", ["tab-link.html (shown)", "First", "!Arrived"]),
        ("tab_focus 3", ["Error: there is no tab 3; there are 2", "First"]),
        ("tab_focus(2)", ["Arrived"]),
        ("tab_close", ["First", "!Tabs"]),
        ("tab_close", ["Error: the only tab cannot be closed"]),
        ("tab_focus 2", ["Error: there is no tab 2; there is one"]),
        ("click {More}", ["Arrived"]),
        ("goto {site}/tab-form.html", ["Find", "Tabs: 1"]),
    ],
    "tab-opener": [("click {Sign in}", ["Who are you?"]), ("click {Ann}", ["signed in", "!Tabs", "!Error"])],
    "tab-script": [
        ("click {Open}", ["Arrived with ?from=script", "Tabs"]),
        ("tab_focus 1", ["First"]),
        ("click {Print}", ["Printed sheet", "3 about:blank (shown)"]),
    ],
    "tab-form": [("click {Find}", ["Arrived with ?q=1", "Tabs: 1"])],
    "tab-refused": [
        ("click {Away}", ["Error: this link leaves the site", "First", "!Tabs"]),
        ("click {Far away}", ["Error: http://192.0.2.7/y could not be opened: only these sites", "First", "!Tabs"]),
    ],
    "tab-many": [("click {Open twelve}", ["Tabs: 1"]), ("wait", ["8 http", "!9 http"])],
}

ROWS: dict[str, Turns] = {
    **DIALOGS,
    **DRAWING,
    **EDITING,
    **INPUTS,
    **LISTENERS,
    **ROLES,
    **FRAMES,
    **SHADOWS,
    **TABS,
}


ARIA: dict[str, Turns] = {
    "frame-same": [
        ("", ['- button "Send" [', "paragraph [", "Inside the frame", "!ref="]),
        ("fill {textbox} Rome", ["Rome"]),
        ("click {Send}", ["sent Rome"]),
        ("click {Deeper}", ["Arrived", "!Inside the frame"]),
        ("click 99999", ["Error: no element 99999 on this page"]),
    ],
    "shadow-slot": [("click {Buy now}", ["bought"])],
    "key-enter": [("fill {Search} shoes", []), ("press {Search} Enter", ["found shoes"])],
    "dialog-confirm": [("click {Delete}", ["is open"]), ("accept_dialog", ["deleted"])],
    "tab-link": [("click {More}", ["Arrived", "Tabs: 1"]), ("tab_focus 1", ["First"]), ("click {More}", ["Tabs: 1"])],
    "label-for-hidden": [("check {checkbox}", ["agreed true"])],
    "much-elements": [("", ["in lines instead", "1 button b", "more lines"]), ("click 1", ["!Error"])],
}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(PAGES)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def world_of(folder: Path, site: str, pages: list[str], **options: Any) -> OpenWebWorld:
    tasks = [
        {
            "task_id": name,
            "start_url": f"{site}/{name}.html",
            "intent": "Look and act.",
            "eval": {"eval_types": ["string_match"], "reference_answers": {"exact_match": "done"}},
        }
        for name in pages
    ]
    (folder / "tasks.json").write_text(json.dumps(tasks))
    return build(tasks=str(folder / "tasks.json"), **{"max_turns": 150, **options})


def numbered(action: str, text: str) -> str:
    def number(found: re.Match[str]) -> str:
        marks = [re.search(r"^(\d+) |\[(\d+)\]", line) for line in text.splitlines() if found[1] in line]
        return next((mark[1] or mark[2] for mark in marks if mark), "") or f"<no line with {found[1]}>"

    return re.sub(r"\{(.+?)\}", number, action)


def unmet(texts: list[str], shown: str) -> list[str]:
    return [text for text in texts if text[0] == "!" and text[1:] in shown] + [
        text for text in texts if text[0] != "!" and text not in shown
    ]


async def observed(env: OpenWebEnv, action: str, texts: list[str]) -> str:
    """What an action brings; `wait` looks again until the page has got round to it."""
    tries, action = (100, "noop") if action == "wait" else (1, action)
    for _ in range(tries):
        result = await env.step(action)
        assert isinstance(result, StepResult) and isinstance(result.observation, Observation)
        if not unmet(texts, result.observation.text):
            break
        await asyncio.sleep(0.05 if tries > 1 else 0)
    return result.observation.text


async def play(world: OpenWebWorld, name: str, turns: Turns) -> list[str]:
    """What was not as it should be."""
    [task] = [task for task in world.tasks("train") if task.id == name]
    env = world.make()
    try:
        first = await env.reset(task, episode_seed("train", 0))
        assert isinstance(first, Observation)
        shown = first.text
        for action, texts in turns:
            if action and not (action == "wait" and not unmet(texts, shown)):
                shown = await observed(env, numbered(action.replace("{site}", world.origins[0]), shown), texts)
            if missed := unmet(texts, shown):
                return [f"{name}, {action or 'at first'}: {missed} in\n{shown}\n"]
        assert (await env.step("answer done")).success is True
    except Exception as error:
        return [f"{name}: {type(error).__name__}: {error}"]
    finally:
        await env.close()
    return []


async def play_all(world: OpenWebWorld, rows: dict[str, Turns]) -> list[str]:
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(name: str, turns: Turns) -> list[str]:
        async with slots:
            return await play(world, name, turns)

    try:
        return [wrong for found in await asyncio.gather(*(one(*row) for row in rows.items())) for wrong in found]
    finally:
        await world.close()


@pytest.mark.browser
async def test_every_pattern_is_seen_and_operated_or_told(site: str, tmp_path: Path) -> None:
    wrong = await play_all(world_of(tmp_path, site, list(ROWS)), ROWS)
    assert not wrong, "\n".join(wrong)


@pytest.mark.browser
async def test_an_aria_snapshot_is_operated_by_its_numbers(site: str, tmp_path: Path) -> None:
    wrong = await play_all(world_of(tmp_path, site, list(ARIA), observation="aria"), ARIA)
    assert not wrong, "\n".join(wrong)
    with pytest.raises(ConfigError, match="observation must be lines or aria, got 'pixels'"):
        world_of(tmp_path, site, ["landing"], observation="pixels")


@pytest.mark.browser
def test_the_page_on_bringing_pages_runs(tmp_path: Path) -> None:
    text = (PAGES.parents[3] / "docs" / "bring_your_pages.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "pages.py").write_text(code, encoding="utf-8")
    ran = subprocess.run([sys.executable, "pages.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert "Error: this field takes a number" in ran.stdout and "solved: True" in ran.stdout
