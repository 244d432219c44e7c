"""One script per MiniWoB++ task, a function from what a policy sees to its next action, and the teacher that plays it.

They read the observation text and answer in the action grammar, nothing else. The page's own reward is the judge: the
tests play every script on several seeds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from rollwright.contracts import Environment, Observation

from ..scene import Line, Scene, read_lines

Script = Callable[[Scene], str]
SCRIPTS: dict[str, Script] = {}


def _script(*names: str) -> Callable[[Script], Script]:
    def register(script: Script) -> Script:
        SCRIPTS.update(dict.fromkeys(names, script))
        return script

    return register


def _fill_then(scene: Scene, wanted: list[tuple[Line, str]], button: str) -> str:
    """Fill each field that does not hold its text yet, then press the button."""
    for line, value in wanted:
        if line.value != value and scene.once("filled", str(line.id)):
            return f"fill {line.id} {value}"
    return scene.click(button, "button")


@_script("click-test")
def _only_button(scene: Scene) -> str:
    return f"click {scene.having('button')[0].id}"


@_script("click-test-2", "click-test-transfer")
def _button_one(scene: Scene) -> str:
    # The held-out seeds of click-test-transfer ask for the other button; click-test-2 always asks for ONE.
    return scene.click("TWO" if "TWO" in scene.goal else "ONE", "button")


@_script("click-button", "unicode-test")
def _named_button(scene: Scene) -> str:
    return scene.click(scene.quoted()[0], "button")


@_script("click-button-sequence")
def _one_then_two(scene: Scene) -> str:
    return scene.click("ONE" if scene.turn == 0 else "TWO", "button")


@_script("click-dialog")
def _close_dialog(scene: Scene) -> str:
    return scene.click("Close", "button")


@_script("click-dialog-2")
def _dialog_button(scene: Scene) -> str:
    wanted = scene.quoted()[0]
    return scene.click("Close" if wanted == "x" else wanted, "button")


@_script("click-collapsible", "click-collapsible-nodelay")
def _open_and_submit(scene: Scene) -> str:
    header = scene.having("tab")[0]
    return scene.click("Submit", "button") if "open" in header.states or scene.turn else f"click {header.id}"


@_script("click-link")
def _named_link(scene: Scene) -> str:
    return scene.click(scene.quoted()[0], "link")


@_script("click-tab")
def _named_tab(scene: Scene) -> str:
    wanted = re.search(r"Tab #\d+", scene.goal)
    return scene.click(wanted[0] if wanted else "", "tab")


@_script(
    "click-tab-2", "click-tab-2-easy", "click-tab-2-medium", "click-tab-2-hard", "click-collapsible-2",
    "click-collapsible-2-nodelay",
)  # fmt: skip
def _search_tabs(scene: Scene) -> str:
    if link := scene.find(scene.quoted()[0], "link", "text"):
        return f"click {link.id}"
    for tab in scene.having("tab"):
        if "selected" in tab.states or "open" in tab.states:
            scene.once("seen", tab.name)
        elif scene.once("seen", tab.name):
            return f"click {tab.id}"
    return "noop"


@_script("focus-text")
def _only_field(scene: Scene) -> str:
    return f"click {scene.having('textbox')[0].id}"


@_script("focus-text-2")
def _nth_field(scene: Scene) -> str:
    return f"click {scene.having('textbox')[_ordinal(scene.goal) - 1].id}"


def _ordinal(text: str) -> int:
    found = re.search(r"(\d+)(?:st|nd|rd|th)", text)
    return int(found[1]) if found else 1


@_script("enter-text", "enter-text-dynamic")
def _quoted_text(scene: Scene) -> str:
    return _fill_then(scene, [(scene.having("textbox")[0], scene.quoted()[0])], "Submit")


@_script("enter-text-2")
def _cased_text(scene: Scene) -> str:
    word = scene.quoted()[0]
    wanted = word.upper() if "upper case" in scene.goal else word.lower()
    return _fill_then(scene, [(scene.having("textbox")[0], wanted)], "Submit")


@_script("text-transform")
def _shown_text(scene: Scene) -> str:
    return _fill_then(scene, [(scene.having("textbox")[0], scene.text.splitlines()[0])], "Submit")


@_script("enter-password")
def _password_twice(scene: Scene) -> str:
    return _fill_then(scene, [(line, scene.quoted()[0]) for line in scene.having("textbox")], "Submit")


@_script("login-user")
def _log_in(scene: Scene) -> str:
    return _fill_then(scene, list(zip(scene.having("textbox"), scene.quoted(), strict=False)), "Login")


@_script("click-checkboxes", "click-checkboxes-transfer", "click-checkboxes-large")
def _named_boxes(scene: Scene) -> str:
    wanted = _between(scene.goal, "Select ", " and click").split(", ")
    for box in scene.having("checkbox"):
        if (box.name in wanted) != ("on" in box.states):
            return f"click {box.id}"
    return scene.click("Submit", "button")


@_script("click-option")
def _named_option(scene: Scene) -> str:
    option = scene.find(_between(scene.goal, "Select ", " and click"), "radio")
    if option is not None and "on" not in option.states:
        return f"click {option.id}"
    return scene.click("Submit", "button")


def _between(text: str, before: str, after: str) -> str:
    return text.split(before, 1)[-1].rsplit(after, 1)[0]


@_script("choose-list")
def _named_choice(scene: Scene) -> str:
    chooser, wanted = scene.having("select")[0], _between(scene.goal, "Select ", " from the list")
    return scene.click("Submit", "button") if chooser.value == wanted else f"select_option {chooser.id} {wanted}"


@_script("click-scroll-list")
def _named_choices(scene: Scene) -> str:
    chooser, wanted = scene.having("select")[0], _between(scene.goal, "Select ", " from the scroll list").split(", ")
    if set(chooser.value.split(", ")) == set(wanted):
        return scene.click("Submit", "button")
    return f"select_option {chooser.id} {' | '.join(wanted)}"


@_script("click-widget")
def _kind_of_widget(scene: Scene) -> str:
    kind = scene.quoted()[0]
    return f"click {scene.having({'text': 'textbox'}.get(kind, kind))[0].id}"


@_script("click-color")
def _coloured_box(scene: Scene) -> str:
    return scene.click(_between(scene.goal, "Click on the ", " colored box"), "box")


@_script("search-engine")
def _nth_result(scene: Scene) -> str:
    field_, wanted, rank = scene.having("textbox")[0], scene.quoted()[0], _ordinal(scene.goal)
    if field_.value != wanted:
        return f"fill {field_.id} {wanted}"
    if scene.once("searched", wanted):
        return scene.click("Search", "button")
    page = str((rank - 1) // 3 + 1)
    if page != "1" and scene.once("turned", page):
        return scene.click(page, "link")
    results = [link for link in scene.having("link") if not re.fullmatch(r"[<>]|\d+|First|Last", link.name)]
    return f"click {results[(rank - 1) % 3].id}"


@_script("use-autocomplete", "use-autocomplete-nodelay")
def _suggested_item(scene: Scene) -> str:
    field_ = scene.having("textbox")[0]
    start = scene.quoted()[0]
    end = scene.quoted()[1] if len(scene.quoted()) > 1 else ""
    if scene.once("filled", start):
        return f"fill {field_.id} {start}"
    shown = [line for line in scene.lines if line.role not in ("textbox", "button")]
    fitting = [line for line in shown if line.name.startswith(start) and line.name.endswith(end)]
    if fitting and scene.once("chosen", start):
        return f"click {fitting[0].id}"
    return scene.click("Submit", "button")


@_script("navigate-tree")
def _named_leaf(scene: Scene) -> str:
    if leaf := scene.find(scene.quoted()[0], "text", "item"):
        return f"click {leaf.id}"
    closed = next((line for line in scene.having("icon") if "expandable" in line.name), None)
    return f"click {closed.id}" if closed else "noop"


@_script("read-table")
def _one_cell(scene: Scene) -> str:
    wanted = _between(scene.goal, "Enter the value of ", " into the text")
    return _fill_then(scene, [(scene.having("textbox")[0], _cells(scene)[wanted])], "Submit")


@_script("read-table-2")
def _two_cells(scene: Scene) -> str:
    labels = [line[:-1] for line in scene.text.splitlines() if line.endswith(":")]
    values = [_cells(scene)[label] for label in labels]
    return _fill_then(scene, list(zip(scene.having("textbox"), values, strict=False)), "Submit")


def _cells(scene: Scene) -> dict[str, str]:
    rows = [line.split(" | ") for line in scene.text.splitlines() if " | " in line]
    return {row[0]: row[1] for row in rows if len(row) == 2}


@_script("simple-arithmetic")
def _calculate(scene: Scene) -> str:
    box = scene.having("textbox")[0]
    found = re.search(r"(\d+) ([-+x]) (\d+)", box.name)
    if found is None:
        return "noop"
    a, b = int(found[1]), int(found[3])
    return _fill_then(scene, [(box, str({"+": a + b, "-": a - b, "x": a * b}[found[2]]))], "Submit")


@_script("form-sequence-2")
def _radio_and_number(scene: Scene) -> str:
    places = [int(n) for n in re.findall(r"(\d+)(?:st|nd|rd|th)", scene.goal)]
    if scene.once("checked", "radio"):
        return f"click {scene.having('radio')[places[0] - 1].id}"
    return _fill_then(scene, [(scene.having("textbox")[places[1] - 1], scene.quoted()[0])], "Submit")


@_script("form-sequence-3")
def _choice_and_button(scene: Scene) -> str:
    if scene.once("opened", "list"):
        return f"click {next(line.id for line in scene.having('text') if line.name.endswith('▾'))}"
    if scene.once("chosen", "item"):
        return scene.click(_between(scene.goal, "Choose ", " from the dropdown"), "item")
    return scene.click(scene.quoted()[0], "button")


@_script("email-inbox-delete", "email-inbox-important")
def _icon_in_row(scene: Scene) -> str:
    wanted = "trash" if "trash" in scene.goal else "star"
    sender = _between(scene.goal, "email by ", " and click")
    names = [line.name for line in scene.lines]
    after = scene.lines[names.index(sender) :] if sender in names else ()
    return next((f"click {line.id}" for line in after if line.name == wanted), "noop")


@_script("social-media")
def _post_of_user(scene: Scene) -> str:
    user = _between(scene.goal, "For the user ", ", click")
    wanted = scene.quoted()[0].lower()
    text = scene.text.splitlines()
    start = next((i for i, line in enumerate(text) if f"{user} " in f"{line} "), 0)
    icons = read_lines("\n".join(text[start:]))[:4]
    if found := next((line for line in icons if line.name == wanted), None):
        return f"click {found.id}"
    if scene.once("opened", "more"):
        return f"click {icons[-1].id}"
    return next((f"click {line.id}" for line in scene.lines if wanted in line.name.lower()), "noop")


@dataclass(slots=True)
class PageTeacher:
    """Plays one task by its script. An observation with a goal starts a new episode."""

    script: Script
    goal: str = ""
    turn: int = 0
    notes: dict[str, list[str]] = field(default_factory=dict)

    def act(self, env: Environment, observation: Observation) -> str:
        """The script's next action."""
        if observation.goal:
            self.goal, self.turn, self.notes = observation.goal, 0, {}
        text = observation.text
        scene = Scene(goal=self.goal, text=text, lines=read_lines(text), turn=self.turn, notes=self.notes)
        self.turn += 1
        return self.script(scene)


def teacher_for(task: str) -> PageTeacher | None:
    """A teacher for one task, or None where there is none."""
    return PageTeacher(SCRIPTS[task]) if task in SCRIPTS else None
