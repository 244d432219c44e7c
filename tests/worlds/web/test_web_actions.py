"""The action grammar of the web world, without a browser."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwright.envs.web.observe import Element, render
from rollwright.envs.web.page_actions import MAX_ACTION_CHARS, SIGNATURES, Action, ActionError, parse_action
from rollwright.envs.web.scene import read_lines

READ = [
    ("click 3", Action(name="click", ids=(3,))),
    ("click [3]", Action(name="click", ids=(3,))),
    ("  `click 3`  ", Action(name="click", ids=(3,))),
    ("click('3')", Action(name="click", ids=(3,))),
    ("click(3)", Action(name="click", ids=(3,))),
    ("fill 5 hello  world", Action(name="fill", ids=(5,), text="hello  world")),
    ("fill 5", Action(name="fill", ids=(5,), text="")),
    ("""fill('5', "a \\"b\\" c")""", Action(name="fill", ids=(5,), text='a "b" c')),
    ("fill('5', 'x, y) [z]')", Action(name="fill", ids=(5,), text="x, y) [z]")),
    ("fill 5 click(3)", Action(name="fill", ids=(5,), text="click(3)")),
    ("select_option 4 Dark Blue", Action(name="select_option", ids=(4,), options=("Dark Blue",))),
    ("select_option 4 Red | Blue", Action(name="select_option", ids=(4,), options=("Red", "Blue"))),
    ("select_option('4', ['Red', 'Blue'])", Action(name="select_option", ids=(4,), options=("Red", "Blue"))),
    ("press 5 Control+a", Action(name="press", ids=(5,), text="Control+a")),
    ("press 5 +", Action(name="press", ids=(5,), text="+")),
    ("drag_and_drop 3 7", Action(name="drag_and_drop", ids=(3, 7))),
    ("scroll 0 -200", Action(name="scroll", numbers=(0.0, -200.0))),
    ("mouse_click(12.5, 30)", Action(name="mouse_click", numbers=(12.5, 30.0))),
    ("noop", Action(name="noop")),
    ("noop()", Action(name="noop")),
    ("\n\nclick 1\nclick 2\n", Action(name="click", ids=(1,))),
]

REFUSED = [
    ("", "no action"),
    ("\n  \n", "no action"),
    ("click", "expected: click <id>"),
    ("click 1 2", "expected: click <id>"),
    ("click the button", "arguments"),
    ("click button", "no element id"),
    ("click -1", "no element id"),
    ("click ²", "no element id"),
    ("click 99999999", "no element id"),
    ("Click 3", "unknown action"),
    ("__import__('os').system('true')", "unknown action"),
    ("fill('5', \"never closed)", "never closed"),
    ("click([1, [2]])", "list"),
    ("click([1])", "a list does not fit"),
    ("press 5 Nonsense", "unknown key"),
    ("press 5 Enter+a", "unknown key"),
    ("keyboard_press é", "unknown key 'é'.*typed with keyboard_type or fill"),
    ("press 5 Control+é", "unknown key"),
    ("keyboard_press Ω+a", "unknown key"),
    ("press 5 ₂", "unknown key"),
    ("scroll 0 1e9", "no coordinate"),
    ("scroll 0 nan", "no coordinate"),
    ("mouse_click(1, 99999)", "no coordinate"),
    ("x" * 10_000, "10000 characters"),
    ("fill 1 " + "y" * 10_000, "10007 characters"),
]


@pytest.mark.parametrize(("answer", "action"), READ)
def test_an_action_is_read(answer: str, action: Action) -> None:
    assert parse_action(answer) == action


@pytest.mark.parametrize(("answer", "why"), REFUSED, ids=[why + answer[:12] for answer, why in REFUSED])
def test_what_is_no_action_is_refused_with_a_reason(answer: str, why: str) -> None:
    with pytest.raises(ActionError, match=why) as caught:
        parse_action(answer)
    assert len(str(caught.value)) < 500, "the message goes into the next prompt: it must not repeat a long answer"


@given(st.text(max_size=300))
def test_any_text_is_an_action_or_an_action_error(answer: str) -> None:
    try:
        action = parse_action(answer)
    except ActionError:
        return
    assert action.name in SIGNATURES


@given(st.sampled_from(sorted(SIGNATURES)), st.text(alphabet="()[]'\"\\,0123456789 abc\t|+.-", max_size=60))
def test_any_arguments_are_read_or_refused(name: str, rest: str) -> None:
    for answer in (f"{name} {rest}", f"{name}({rest})"):
        try:
            assert parse_action(answer).name == name
        except ActionError:
            continue


def test_halves_of_letters_are_made_whole() -> None:
    assert parse_action("fill 5 a\ud83db").text == "a\ufffdb"


@given(st.characters())
def test_every_key_is_one_that_a_browser_has_or_is_refused(letter: str) -> None:
    try:
        action = parse_action(f"keyboard_press {letter}")
    except ActionError:
        return
    assert action.text.isascii() and action.text.isprintable()


@given(st.text(max_size=200).filter(lambda text: len(text) * 2 < MAX_ACTION_CHARS))
def test_quoting_brings_any_text_back(text: str) -> None:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    for plain, letter in (("\n", "n"), ("\r", "r"), ("\t", "t")):
        escaped = escaped.replace(plain, f"\\{letter}")
    assert parse_action(f'fill("5", "{escaped}")').text == text


def test_the_page_is_rendered_one_element_a_line() -> None:
    elements = [
        Element(id=None, role="", name="Sign in"),
        Element(id=1, role="textbox", name="Name", value="bob", states=("focused",), box=(10, 20, 40, 10)),
        Element(id=2, role="select", name="Size", value="M", options=("S", "M"), more_options=3),
        Element(id=3, role="checkbox", name="TC0ephL", states=("on", "focused")),
    ]
    assert render(elements).splitlines() == [
        "Sign in",
        "1 textbox Name = bob (focused)",
        "2 select Size = M [S, M, ... 3 more]",
        "3 checkbox TC0ephL (on)",
    ]
    assert render(elements, positions=True).splitlines()[1] == "1 textbox Name = bob (focused) @30,25"
    assert render(elements, max_chars=45).splitlines() == [
        "Sign in",
        "1 textbox Name = bob (focused)",
        "... 2 more lines",
    ]


def test_a_rendered_line_is_read_back() -> None:
    elements = [
        Element(id=7, role="textbox", name="User name", value="bob", states=("focused",)),
        Element(id=8, role="select", name="", value="M", options=("S", "M")),
        Element(id=9, role="button", name="Book for $1586 (now)"),
        Element(id=None, role="", name="3 is a crowd"),
    ]
    name, size, book, crowd = read_lines(render(elements))
    assert (name.id, name.name, name.value, name.states) == (7, "User name", "bob", ("focused",))
    assert (size.name, size.value, size.options) == ("", "M", ("S", "M"))
    assert book.id == 9
    assert crowd.role == "is", "plain text may look like a line: ids are checked by the page, not by the text"
