"""The phone itself: touch, keys, scrolling, data, distractors, snapshots, trees in both directions, pictures."""

from __future__ import annotations

from itertools import pairwise

import pytest

from rollwright.envs.device.phone import START_MS, STEP_MS, Phone, Setup
from rollwright.envs.device.screen import widgets as w
from rollwright.envs.device.screen.tree import Element, elements, from_xml, to_html, to_lines, to_xml

PEOPLE = "content://contacts/people"
ADULTS = [{"name": f"Person {i:02}", "phone": f"555{i:04}"} for i in range(30)]


@pytest.fixture
def phone() -> Phone:
    return Phone(Setup(rows={PEOPLE: ADULTS}, files={"/sdcard/Documents/a.txt": "one\ntwo"}))


def find(phone: Phone, name: str) -> Element:
    return next(e for e in elements(phone.tree()) if name in (*e.texts, e.desc, e.hint))


def press(phone: Phone, *names: str) -> None:
    for name in names:
        phone.tap(*find(phone, name).centre)


def names(phone: Phone) -> list[str]:
    return [e.name for e in elements(phone.tree())]


def test_a_contact_is_made_by_touch_and_keys_alone(phone: Phone) -> None:
    press(phone, "Contacts", "Create contact", "Name")
    assert phone.text("Zoe <&> Qux")
    phone.key("KEYCODE_DEL")
    press(phone, "Phone")
    for key in ("KEYCODE_5", "KEYCODE_7", "a"):
        assert phone.key(key)
    press(phone, "Save")
    row = phone.store.rows(PEOPLE, "name LIKE 'Zoe%'")[0]
    assert (row["name"], row["phone"]) == ("Zoe <&> Qu", "57a")
    assert phone.current_activity() == ("org.rollwright.contacts", ".CardActivity")


def test_back_leaves_screens_and_home_keeps_them(phone: Phone) -> None:
    press(phone, "Settings", "Display")
    phone.key("KEYCODE_HOME")
    assert phone.current_activity()[0] == "org.rollwright.launcher"
    press(phone, "Settings")
    assert phone.current_activity() == ("org.rollwright.settings", ".DisplayActivity")
    phone.key(4)
    assert phone.current_activity() == ("org.rollwright.settings", ".MainActivity")
    phone.key(4)
    phone.key(4)
    assert phone.current_activity()[0] == "org.rollwright.launcher"


def test_a_list_scrolls_by_a_finger_and_stops_at_its_ends(phone: Phone) -> None:
    press(phone, "Contacts")
    assert "Person 29" not in names(phone)
    for _ in range(5):
        phone.swipe(540, 1900, 540, 700)
    assert "Person 29" in names(phone) and "Person 00" not in names(phone)
    at_end = to_xml(phone.tree())
    phone.swipe(540, 1900, 540, 700)
    assert to_xml(phone.tree()) == at_end
    for _ in range(5):
        phone.swipe(540, 700, 540, 1900)
    assert "Person 00" in names(phone)
    bounds = [e.bounds for e in elements(phone.tree()) if e.name.startswith("Person")]
    assert all(a[3] <= b[1] for a, b in pairwise(bounds)), "rows must not overlap"


def test_time_moves_with_touches_and_not_with_looking_or_typing(phone: Phone) -> None:
    press(phone, "Contacts", "Search contacts")
    now = phone.now_ms
    assert now == START_MS + 2 * STEP_MS
    phone.text("abc")
    phone.tree()
    phone.screenshot(0.1)
    assert phone.now_ms == now
    phone.wait(5000)
    assert phone.now_ms == now + 5000


def test_a_timer_and_a_stopwatch_run_on_the_virtual_clock(phone: Phone) -> None:
    press(phone, "Clock", "Timer", "Seconds")
    phone.text("30")
    press(phone, "Start")
    assert "00:29" in names(phone)  # the touch on Start took a second
    phone.wait(29_000)
    assert "Time is up" in names(phone)
    press(phone, "Stopwatch", "Start")
    phone.wait(61_000)
    assert "01:02" in names(phone)
    press(phone, "Stop")
    shown = names(phone)[4]
    phone.wait(60_000)
    assert names(phone)[4] == shown


def test_a_dialog_hides_what_is_below_it(phone: Phone) -> None:
    press(phone, "Contacts", "Person 03")
    where = find(phone, "Call").centre
    press(phone, "Delete")
    assert names(phone)[0] == "Delete this contact?" and "Call" not in names(phone)
    phone.tap(*where) if where not in [e.centre for e in elements(phone.tree())] else None
    press(phone, "Cancel")
    assert len(phone.store.rows(PEOPLE)) == 30
    press(phone, "Delete", "Delete")
    assert [r["name"] for r in phone.store.rows(PEOPLE, "name = ?", ["Person 03"])] == []


def test_unknown_input_changes_nothing_and_raises_nothing(phone: Phone) -> None:
    before = to_xml(phone.tree())
    assert not phone.key("KEYCODE_NOSUCH") and not phone.key(-1) and not phone.key("")
    assert not phone.open_app("Nosuch")
    assert not phone.text("nobody listens")
    phone.tap(-5, 99_999)
    phone.long_press(10**9, -(10**9))
    phone.swipe(-1, -1, 5000, 5000)
    assert to_xml(phone.tree()) == before.replace("09:00", "09:00")


def test_files_folders_and_their_errors(phone: Phone) -> None:
    store = phone.store
    phone.write_file("/sdcard/Documents/b.txt", b"\x00\xff")
    assert store.list_folder("/sdcard/Documents") == ([], ["a.txt", "b.txt"])
    store.make_folder("/sdcard/Documents/in")
    phone.write_file("/sdcard/Documents/in/c.txt", b"c")
    assert store.stat_file("/sdcard/Documents/b.txt") == (2, START_MS)
    with pytest.raises(FileNotFoundError):
        phone.write_file("/nowhere/x", b"")
    with pytest.raises(IsADirectoryError):
        phone.write_file("/sdcard/Documents", b"")
    with pytest.raises(FileExistsError):
        store.make_folder("/sdcard/Documents/a.txt")
    store.delete_file("/sdcard/Documents")
    assert not store.is_folder("/sdcard/Documents/in")
    with pytest.raises(FileNotFoundError):
        phone.read_file("/sdcard/Documents/in/c.txt")
    assert store.list_folder("/sdcard")[0] == ["Download", "Music", "Pictures"]


def test_content_providers_answer_and_refuse(phone: Phone) -> None:
    store = phone.store
    key = store.insert(PEOPLE, {"name": "New"})
    assert store.rows(f"{PEOPLE}/{key}")[0]["name"] == "New"
    assert store.update(PEOPLE, {"starred": 1}, "name = ?", ["New"]) == 1
    assert [row["name"] for row in store.rows(PEOPLE, "starred = 1")] == ["New"]
    assert store.delete(f"{PEOPLE}/{key}") == 1 and len(store.rows(PEOPLE)) == 30
    with pytest.raises(KeyError, match="content://contacts/people"):
        store.rows("content://nosuch")
    with pytest.raises(ValueError, match="no column"):
        store.insert(PEOPLE, {"shoe_size": 43})
    for condition in ("name = ", "1; DROP TABLE people", "nosuch = 1"):
        with pytest.raises(ValueError, match="cannot query"):
            store.rows(PEOPLE, condition)
    assert len(store.rows(PEOPLE)) == 30


def test_a_setup_survives_json() -> None:
    setup = Setup(rows={PEOPLE: [{"name": "Ünal", "starred": 1}]}, settings={"global": {"wifi_on": "0"}}, seed=7)
    again = Setup.from_json(setup.as_json())
    assert to_xml(Phone(again).tree()) == to_xml(Phone(setup).tree())
    assert Phone(again).store.rows(PEOPLE)[0]["name"] == "Ünal"
    with pytest.raises(ValueError, match="setup"):
        Setup.from_json("[1]")


def test_a_snapshot_is_exact_and_goes_into_any_phone(phone: Phone) -> None:
    phone.power_on(Setup(rows={PEOPLE: ADULTS}, distractors="many", seed=3))
    script = [("open", "Contacts"), ("tap", (900, 180)), ("tap", (500, 500)), ("text", "abc"), ("key", "BACK")] * 6
    for name, value in script[:13]:
        _do(phone, name, value)
    state = phone.snapshot()
    expected = [_do(phone, name, value) for name, value in script[13:]]
    other = Phone()
    for target in (phone, other):
        target.restore(state)
        assert [_do(target, name, value) for name, value in script[13:]] == expected
    with pytest.raises(ValueError, match="snapshot"):
        phone.restore(b"rubbish")


def _do(phone: Phone, name: str, value: object) -> tuple[str, int]:
    if name == "tap":
        assert isinstance(value, tuple)
        phone.tap(*value)
    else:
        {"open": phone.open_app, "text": phone.text, "key": phone.key}[name](value)  # type: ignore[operator]
    return to_xml(phone.tree()), phone.now_ms


def test_distractors_come_by_seed_and_can_be_answered() -> None:
    seen: dict[int, list[str]] = {}
    for seed in (1, 1, 2):
        phone = Phone(Setup(rows={PEOPLE: ADULTS}, distractors="many", seed=seed))
        kinds = []
        for _ in range(60):
            phone.open_app("Contacts")
            kinds.append(phone.tree().resource_id)
            ids = {e.resource_id: e for e in elements(phone.tree())}
            button = ids.get("popup_close") or ids.get("permission_allow_button")
            if button:
                phone.tap(*button.centre)
            phone.key("BACK")
        assert seen.setdefault(seed, kinds) == kinds
        assert {"popup", "permission_dialog"} <= set(kinds)
        assert kinds.count("permission_dialog") == 1, "asked once, then granted"
    assert seen[1] != seen[2]


def test_a_denied_permission_blocks_the_app_until_it_is_given() -> None:
    phone = Phone(Setup(rows={PEOPLE: ADULTS[:1]}, distractors="some", seed=5))
    phone.open_app("Contacts")
    press(phone, "Don't allow")
    assert "Person 00" not in names(phone)
    press(phone, "Allow access")
    while "Loading" in names(phone):
        phone.wait(1000)
    assert "Person 00" in names(phone)


# Trees


def test_the_tree_survives_xml_on_every_screen(phone: Phone) -> None:
    for app in phone.apps:
        phone.open_app(app)
        text = to_xml(phone.tree())
        again = from_xml(text)
        assert to_xml(again) == text and elements(again) == elements(phone.tree())
    for rubbish in ("", "ERROR: null root node", "<hierarchy><node></hierarchy>"):
        with pytest.raises(ValueError, match="XML"):
            from_xml(rubbish)


def test_autodroid_html_by_hand() -> None:
    """A row of two texts is one button, an invisible part is absent, ids have no gaps, the way back comes last."""
    row = w.item("Wi-Fi", detail="Connected", on_tap=lambda: None)
    hidden = w.Widget("TextView", text="never", bounds=(0, 0, 0, 0))
    on = w.switch("Dark <theme>", True, lambda: None)
    root = w.lay_out(w.screen(w.label("Title"), row, on, w.icon("Add", lambda: None)))
    root.children.append(hidden)
    assert to_html(elements(root)).split("\n") == [
        "<p id=0>Title</p>",
        "<button id=1>Wi-Fi<br>Connected</button>",
        "<checkbox id=2 checked=true>Dark &lt;theme&gt;</checkbox>",
        "<button id=3 text='Add'></button>",
        "<button id=4>go back</button>",
    ]
    assert to_lines(elements(root)).split("\n")[1:3] == ["1 button Wi-Fi / Connected", "2 checkbox Dark <theme> (on)"]


def test_a_button_with_buttons_inside_is_left_to_its_parts() -> None:
    inner = w.button("Inner", lambda: None)
    outer = w.Widget("LinearLayout", clickable=True, children=[w.label("Text"), inner], height=300)
    shown = [(e.role, e.name) for e in elements(w.lay_out(w.screen(outer)))]
    assert shown == [("p", "Text"), ("button", "Inner"), ("button", "go back")]
    long = w.item("x" * 80, on_tap=lambda: None)
    assert elements(w.lay_out(w.screen(long)))[0].texts == ("x" * 50,)


def test_touch_hits_the_innermost_widget(phone: Phone) -> None:
    press(phone, "Clock", "Add alarm", "Hour")
    phone.text("07")
    press(phone, "Minute")
    phone.text("30")
    press(phone, "Save", "07:30 alarm")
    assert phone.store.rows("content://clock/alarms")[0]["enabled"] == 0, "the switch, not the row around it"


# Pictures


@pytest.mark.parametrize("scale", [0.1, 0.5])
def test_a_picture_shows_the_state(phone: Phone, scale: float) -> None:
    pytest.importorskip("PIL")
    first = phone.screenshot(scale)
    assert first.size == (round(1080 * scale), round(2400 * scale))
    assert phone.screenshot(scale).tobytes() == first.tobytes()
    press(phone, "Settings", "Display", "Dark theme")
    dark = phone.screenshot(scale)
    assert sum(dark.convert("L").resize((1, 1)).getpixel((0, 0)) for _ in range(1)) < 90, "the dark theme is dark"
    with pytest.raises(ValueError, match="scale"):
        phone.screenshot(0)


def test_every_screen_and_dialog_can_be_drawn(phone: Phone) -> None:
    pytest.importorskip("PIL")
    for app in phone.apps:
        phone.open_app(app)
        pictures = {phone.screenshot(0.1).tobytes()}
        for element in elements(phone.tree())[:-1]:
            phone.tap(*element.centre)
            pictures.add(phone.screenshot(0.1).tobytes())
            phone.key("BACK")
            phone.open_app(app)
        assert len(pictures) > 1 or app == "Launcher"
