"""The phone over ADB: real clients drive it, both backends agree, and what is broken is said clearly."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollwright.checks.env_check import check_env
from rollwright.contracts.environment import episode_seed
from rollwright.contracts.errors import ConfigError, EnvironmentFault, EnvironmentUnavailable, MissingDependency
from rollwright.envs.device.adb.client import Answer, DirectLink, ServerLink
from rollwright.envs.device.adb.commands import Handset
from rollwright.envs.device.adb.remote_phones import AdbBackend, parse_rows, simulated_phone
from rollwright.envs.device.adb.server import PhoneServer
from rollwright.envs.device.adb.services import PacketShell
from rollwright.envs.device.adb.wire import SHELL_CLOSE_STDIN, SHELL_EXIT, VERSION, Message, pack, shell_packet
from rollwright.envs.device.adb.wire import Command as Wire
from rollwright.envs.device.backend import Backend, InProcess
from rollwright.envs.device.phone import Phone, Setup, build
from rollwright.envs.device.phone_actions import ActionError, DeviceAction, carry_out
from rollwright.envs.device.phone_world import PhoneEnv
from rollwright.envs.device.screen.tree import to_xml

SETUP = Setup(
    rows={"content://contacts/people": [{"name": "Ann, name=x", "phone": "55 50"}, {"name": "O'Hara\nB"}]},
    files={"/sdcard/Documents/note.txt": "Grüße, 'quoted'\n"},
)


@pytest.fixture(scope="module")
def server() -> Iterator[PhoneServer]:
    server = PhoneServer()
    yield server
    server.close()


@pytest.fixture
def port(server: PhoneServer) -> Iterator[int]:
    port = server.add()
    yield port
    server.remove(port)


@pytest.fixture
def link(port: int) -> Iterator[DirectLink]:
    link = DirectLink(port)
    yield link
    link.close()


# Both backends agree

ODD_ACTIONS = (
    "scroll down",
    "tap 540 1200",
    "hold 2",
    "type 4 a %s b%% \"c\" 'd' $e `f` ü",
    '{"action_type": "input_text", "index": 4, "text": "x y"}',
    '{"action_type": "keyboard_key", "keycode": "KEYCODE_TAB"}',
    '{"action_type": "keyboard_key", "keycode": "no; reboot"}',
    "open Nothing",
    "open clock",
    "wait",
    "back",
    "home",
)


def twins(server: PhoneServer) -> tuple[PhoneEnv, PhoneEnv]:
    """An episode's environment in process and over ADB."""
    world = build(splits="seed", distractors="some", rendering="xml", max_chars=10**6)
    here = world.make()
    return here, PhoneEnv(here._templates, world.options, simulated_phone(server))


def phone_state(backend: Backend) -> list[object]:
    """Clock, screens, chance, and all data; not the order in which settings were written, which the bytes show."""
    state, phone = backend.snapshot(), Phone()
    phone.restore(state)
    tables = [sorted(phone.store.query(f"SELECT * FROM {table}")) for table in ("settings", "files", "folders")]
    return [state.split(b"\n")[1], tables, {uri: phone.store.rows(uri) for uri in phone.store.uris()}]


def test_the_same_tasks_and_actions_give_the_same_trees_and_outcomes_over_adb(server: PhoneServer) -> None:
    world = build(splits="seed")
    here, there = twins(server)
    solved = 0
    for number, task in enumerate(world.tasks("train")[::2]):
        seed, teacher = episode_seed("train", "twins", number), world.teacher(task)
        observation = here.reset(task, seed)
        assert there.reset(task, seed).text == observation.text
        odd = iter(ODD_ACTIONS if number % 4 == 0 else ())
        for _ in range(here.template.budget):
            action = next(odd, "") or teacher.act(here, observation)
            mine, theirs = here.step(action), there.step(action)
            assert mine == theirs, action
            assert here.backend.activity() == there.backend.activity()
            if mine.terminated or mine.truncated:
                solved += mine.success is True
                break
            observation = mine.observation  # type: ignore[assignment]
        assert phone_state(here.backend) == phone_state(there.backend)
    assert solved >= 20
    there.close()


@pytest.mark.parametrize(
    "text", ["a %s b", "%%s s%", 'it\'s "x" $HOME `id` \\n', "ü é 中 🙂", "a\nb\tc\0", "; rm -rf /", "-n"]
)
def test_every_text_is_typed_alike(server: PhoneServer, text: str) -> None:
    here, there = InProcess(), simulated_phone(server)
    for backend in (here, there):
        backend.reset(SETUP)
        backend.open_app("Contacts")
        backend.tap(540, 460)
        backend.text(text)
        backend.key(" del")
        backend.text("!")
    typed = [view.text for view in here.tree().walk() if view.focused]
    assert typed and typed[0].endswith("!")
    assert to_xml(there.tree()) == to_xml(here.tree())
    there.close()


def test_what_a_verdict_reads_is_the_same(server: PhoneServer) -> None:
    here, there = InProcess(), simulated_phone(server)
    for backend in (here, there):
        backend.reset(SETUP)
        with pytest.raises(KeyError, match="no content provider"):
            backend.rows("content://nothing")
        with pytest.raises(ValueError, match="cannot query"):
            backend.rows("content://sms", "no such column = 1")
    for uri in here.phone.store.uris():
        assert here.rows(uri) == there.rows(uri)
    people = "content://contacts/people"
    assert here.rows(people, "name = ?", ["O'Hara\nB"]) == there.rows(people, "name = ?", ["O'Hara\nB"]) != []
    for path in ("/sdcard/Documents/note.txt", "/sdcard/none", "/sdcard/Documents"):
        assert here.file(path) == there.file(path)
    for folder in ("/sdcard", "/sdcard/Documents", "/nothing"):
        assert here.files(folder) == there.files(folder)
    for space, name in (("global", "wifi_on"), ("system", "none")):
        assert here.setting(space, name) == there.setting(space, name)
    assert here.size == there.size
    there.close()


def test_a_fork_goes_on_over_adb_where_it_was_taken(server: PhoneServer) -> None:
    here, there = InProcess(), simulated_phone(server)
    here.reset(SETUP)
    here.open_app("Contacts")
    there.restore(here.snapshot())
    assert to_xml(there.tree()) == to_xml(here.tree())
    with pytest.raises(ValueError, match="no snapshot"):
        there.restore(b"rubbish")
    assert there.screenshot(0.2) == here.screenshot(0.2)
    there.close()


# Real clients


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def adb_port() -> Iterator[int]:
    """An adb server of our own, so that no other one is disturbed."""
    port = free_port()
    yield port
    subprocess.run(["adb", "-P", str(port), "kill-server"], capture_output=True, timeout=60)


class Adb:
    """The program `adb`, for one phone."""

    def __init__(self, adb_port: int, phone_port: int) -> None:
        self._env = os.environ | {"ANDROID_ADB_SERVER_PORT": str(adb_port)}
        self.serial = f"127.0.0.1:{phone_port}"
        assert b"connected" in self._run("connect", self.serial).stdout

    def __call__(self, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return self._run("-s", self.serial, *args, stdin=stdin)

    def _run(self, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["adb", *args], input=stdin, capture_output=True, env=self._env, timeout=120)


@pytest.fixture
def adb(adb_port: int, port: int) -> Adb:
    return Adb(adb_port, port)


@pytest.mark.adb
def test_the_program_adb_runs_commands_with_their_exit_codes(adb: Adb) -> None:
    answer = adb("shell", "echo 'a  b' \"$HOME\"; false || echo no; nosuch; exit 3")
    assert (answer.returncode, answer.stdout) == (3, b"a  b /\nno\n")
    assert b"nosuch: inaccessible or not found" in answer.stderr
    assert adb("shell", "true && ls /sdcard | head -n 1").stdout == b"Documents\n"
    assert adb("shell", stdin=b"echo typed\nexit 5\n").returncode == 5
    counted = adb("shell", "content insert --uri content://contacts/people --bind name:s:Zoe; "
                  "content query --uri content://contacts/people | wc -l")  # fmt: skip
    assert counted.stdout == b"1\n", "a command runs once, also when the host closes its input afterwards"


@pytest.mark.adb
def test_the_program_adb_moves_files_whole(adb: Adb, tmp_path: Path) -> None:
    data = os.urandom(300_001)
    (tmp_path / "up").write_bytes(data)
    assert adb("push", str(tmp_path / "up"), "/sdcard/Download/new/up.bin").returncode == 0
    assert adb("pull", "/sdcard/Download/new", str(tmp_path / "down")).returncode == 0
    assert (tmp_path / "down" / "up.bin").read_bytes() == data
    assert adb("shell", "cat > /sdcard/in.txt", stdin=b"typed").returncode == 0
    assert adb("exec-out", "cat", "/sdcard/in.txt").stdout == b"typed"
    assert adb("pull", "/sdcard/none", str(tmp_path / "none")).returncode != 0
    assert adb("push", str(tmp_path / "up"), "/system/up").returncode != 0


@pytest.mark.adb
def test_the_program_adb_sees_touches_and_asks(adb: Adb, server: PhoneServer, port: int) -> None:
    assert adb("shell", "am", "start", "-n", "org.rollwright.contacts/.MainActivity").returncode == 0
    assert b"org.rollwright.contacts" in adb("shell", "dumpsys window | grep mCurrentFocus").stdout
    adb("shell", "input", "tap", "945", "180")
    xml = adb("exec-out", "uiautomator", "dump", "/dev/tty").stdout
    assert xml.startswith(server.call(port, lambda phone: to_xml(phone.tree())).encode())
    assert b"Create contact" in xml
    adb("shell", "am force-stop org.rollwright.contacts; settings put global wifi_on 0")
    assert server.call(port, lambda phone: (phone.foreground, phone.store.setting("global", "wifi_on"))) == (
        "Launcher",
        "0",
    )
    assert adb("exec-out", "screencap", "-p").stdout.startswith(b"\x89PNG\r\n\x1a\n")
    assert adb("shell", "wm", "size").stdout == b"Physical size: 1080x2400\n"


@pytest.mark.adb
def test_adbutils_drives_the_phone(adb: Adb, adb_port: int) -> None:
    adbutils = pytest.importorskip("adbutils")
    device = adbutils.AdbClient(port=adb_port).device(adb.serial)
    assert device.window_size() == (1080, 2400) and device.rotation() == 0
    assert device.shell2("exit 4", v2=True).returncode == 4 and device.shell2("false").returncode == 1
    device.app_start("org.rollwright.notes")
    assert device.app_current().package == "org.rollwright.notes"
    assert "org.rollwright.notes" in device.dump_hierarchy()
    assert device.screenshot().size == (1080, 2400)
    device.sync.push(b"pushed", "/sdcard/Download/a.txt")
    assert device.sync.read_text("/sdcard/Download/a.txt") == "pushed"
    assert [entry.path for entry in device.sync.list("/sdcard/Download")] == ["a.txt"]
    assert "org.rollwright.notes" in device.list_packages()
    assert device.app_info("org.rollwright.notes").version_name == "1.0"


@pytest.mark.adb
def test_uiautomator2_connects_dumps_and_clicks(adb: Adb, adb_port: int, server: PhoneServer, port: int) -> None:
    uiautomator2 = pytest.importorskip("uiautomator2")
    # By serial it would ask the adb server that was named when the package was first imported.
    device = uiautomator2.connect(pytest.importorskip("adbutils").AdbClient(port=adb_port).device(adb.serial))
    assert device.info["displayHeight"] == 2400
    device.app_start("org.rollwright.contacts")
    assert 'text="Contacts"' in device.dump_hierarchy()
    device.xpath('//*[@content-desc="Create contact"]').click()
    assert server.call(port, lambda phone: phone.frame.screen) != "main"
    device.press("back")
    device(description="Create contact").click(timeout=5)
    device(className="android.widget.EditText", instance=0).set_text("Zoe")
    assert "Zoe" in device.dump_hierarchy()
    assert not device(text="nowhere").exists


class Written:
    """A channel that keeps what the phone writes."""

    def __init__(self) -> None:
        self.data, self.finished = b"", 0

    def write(self, data: bytes) -> None:
        self.data += data

    def finish(self) -> None:
        self.finished += 1


def test_a_host_that_closes_its_input_late_does_not_run_the_command_again() -> None:
    handset, channel = Handset(phone=Phone(), serial="x"), Written()
    shell = PacketShell(handset, "echo once >> /sdcard/n.txt")
    shell.start(channel)
    shell.received(channel, shell_packet(SHELL_CLOSE_STDIN, b""))
    assert handset.files.read("/sdcard/n.txt") == b"once\n"
    assert (channel.data, channel.finished) == (shell_packet(SHELL_EXIT, b"\0"), 1)


# What is broken is said clearly


def test_a_port_in_use_is_named(server: PhoneServer, port: int) -> None:
    with pytest.raises(EnvironmentUnavailable, match=f"port {port} .* is in use"):
        server.add(port=port)


def test_a_phone_that_is_gone_is_a_fault_of_the_environment(server: PhoneServer) -> None:
    backend = simulated_phone(server)
    backend.reset(SETUP)
    for port in list(server._phones):
        server.remove(port)
    with pytest.raises(EnvironmentFault, match=r"gone|closed the connection|does not answer"):
        backend.tree()
    backend.close()
    backend.close()
    with pytest.raises(EnvironmentFault, match="no phone answers"):
        DirectLink(1)


def test_what_listens_but_is_no_phone_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            with other.accept()[0] as peer:
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(EnvironmentFault, match=r"is no phone|does not answer|closed"):
            DirectLink(other.getsockname()[1], timeout_s=20)


@pytest.mark.adb
def test_a_dead_adb_server_is_a_fault_and_a_new_one_is_started(port: int) -> None:
    pytest.importorskip("adbutils")
    own, serial = free_port(), f"127.0.0.1:{port}"
    try:
        for _ in range(2):
            link = ServerLink(serial, port=own)
            assert link.shell("exit 7").code == 7
            assert link.pull("/sdcard/none") is None
            subprocess.run(["adb", "-P", str(own), "kill-server"], capture_output=True, timeout=60)
            with pytest.raises(EnvironmentFault, match=f"adb server at port {own} is gone"):
                link.shell("echo")
    finally:
        subprocess.run(["adb", "-P", str(own), "kill-server"], capture_output=True, timeout=60)


def test_a_missing_adb_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("adbutils")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingDependency, match="apt-get install adb"):
        ServerLink("emulator-5554", port=1)


def test_a_command_that_fails_is_told_and_a_lost_server_thread_answers_the_next(link: DirectLink) -> None:
    answer = link.shell("input tap a b")
    assert answer.code == 255 and b"is no number" in answer.err
    assert link.shell("input swipe 1 1 1 1 nan").code == 255
    assert link.shell("echo 'open").code == 1
    assert link.shell("settings get nowhere x").code == 255
    assert link.shell("echo still here").out == b"still here\n"


# The world


def test_the_contract_is_kept_over_adb() -> None:
    world = build(backend="adb", templates="hard", splits="seed")
    check_env(world, seeds=1)
    world.close()
    world.close()


def test_phones_played_by_threads_at_once_do_not_mix_and_nothing_is_left_behind() -> None:
    before = len([thread for thread in threading.enumerate() if thread.name == "phones"])
    world, alone = build(backend="adb", splits="seed"), build(splits="seed")
    assert world.execution == "thread"

    def play(number: int) -> list[str]:
        played = []
        for made in (world, alone):
            env, task, seen = made.make(), made.tasks("train")[number], []
            observation, teacher = env.reset(task, episode_seed("train", "threads", number)), made.teacher(task)
            for _ in range(env.template.budget):
                result = env.step(teacher.act(env, observation))
                seen.append(f"{result.observation}")
                if result.terminated or result.truncated:
                    break
                observation = result.observation  # type: ignore[assignment]
            played.append("\n".join([*seen, str(result.success)]))
        assert played[0] == played[1]
        return played

    with ThreadPoolExecutor(8) as threads:
        assert len({found[0] for found in threads.map(play, range(16))}) == 16
    phones = world.make()
    world.close()
    with pytest.raises(EnvironmentFault):
        phones.backend.tree()
    assert len([thread for thread in threading.enumerate() if thread.name == "phones"]) == before


def test_options_of_adb_are_checked() -> None:
    with pytest.raises(ConfigError, match="backend: adb"):
        build(serial="emulator-5554")
    with pytest.raises(ConfigError, match="no backend 'usb'"):
        build(backend="usb")  # type: ignore[arg-type]


@pytest.mark.adb
def test_a_phone_with_a_serial_is_played_by_one_environment_at_a_time(
    adb: Adb, adb_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(adb_port))
    pytest.importorskip("adbutils")
    world = build(backend="adb", serial=adb.serial, splits="seed")
    env, task = world.make(), world.tasks("train")[0]
    with pytest.raises(EnvironmentUnavailable, match="all 1 phones are in use"):
        world.make()
    seed = episode_seed("train", "serial")
    observation, teacher = env.reset(task, seed), world.teacher(task)
    for _ in range(env.template.budget):
        result = env.step(teacher.act(env, observation))
        if result.terminated:
            break
        observation = result.observation  # type: ignore[assignment]
    assert result.success
    env.close()
    with pytest.raises(EnvironmentUnavailable, match="no phone 'elsewhere'"):
        build(backend="adb", serial="elsewhere").make()


# A phone without our own command: what is left on a real one


class Plain:
    """A link to a simulated phone that hides what a real one lacks."""

    def __init__(self, link: DirectLink) -> None:
        self.link = link

    def __getattr__(self, name: str) -> Any:
        return getattr(self.link, name)

    def shell(self, line: str) -> Answer:
        if line.startswith("rollwright"):
            return Answer(b"", b"/system/bin/sh: rollwright: inaccessible or not found\n", 127)
        return self.link.shell(line)


def test_on_a_real_phone_android_s_own_commands_do(link: DirectLink, server: PhoneServer, port: int) -> None:
    phone = AdbBackend(Plain(link), fill=True)
    assert not phone.simulated
    phone.reset(Setup(rows={"content://sms": [{"address": "55 50", "body": "it's, a\ntwo-liner", "date_ms": 5}]},
                      files={"/sdcard/Documents/new/a.txt": "x"}, settings={"global": {"wifi_on": "0"}}))  # fmt: skip
    (row,) = phone.rows("content://sms", "address = ?", ["55 50"])
    assert (row["body"], row["date_ms"]) == ("it's, a\ntwo-liner", "5")
    assert phone.rows("content://sms", "address = ?", ["o'ne"]) == []
    assert phone.setting("global", "wifi_on") == "0" and phone.file("/sdcard/Documents/new/a.txt") == b"x"
    assert phone.open_app("messages") and phone.activity() == ("org.rollwright.messages", ".MainActivity")
    assert not phone.open_app("nothing") and phone.key("KEYCODE_HOME") and not phone.key("KEYCODE_NONE")
    assert server.call(port, lambda served: to_xml(served.tree())) == to_xml(phone.tree())
    assert phone.screenshot(0.25).startswith(b"\x89PNG")
    with pytest.raises(EnvironmentFault, match="real phone"):
        phone.snapshot()
    with pytest.raises(ValueError, match="cannot query"):
        phone.rows("content://nothing")


class Stock(Plain):
    """`input text` of a stock Android: it raises at letters that are on no key, with the exit code 0 or not."""

    def __init__(self, link: DirectLink, code: int, *, breaks: bool = False) -> None:
        super().__init__(link)
        self.code, self.breaks, self.lines = code, breaks, list[str]()

    def shell(self, line: str) -> Answer:
        self.lines.append(line)
        if line.startswith("input text") and (self.breaks or not line.isascii()):
            return Answer(b"", b"java.lang.NullPointerException: Attempt to get length of null array\n", self.code)
        return super().shell(line)


@pytest.mark.parametrize("code", [0, 1, 255])
def test_letters_that_a_stock_phone_cannot_type_are_the_policys_slip(link: DirectLink, code: int) -> None:
    phone = AdbBackend(Stock(link, code))
    phone.reset(SETUP)
    act = DeviceAction(action_type="input_text", text="é", press_enter=True)
    with pytest.raises(ActionError, match="cannot type"):
        carry_out(act, phone, ())
    carry_out(replace(act, text="e"), phone, ())
    if code:
        broken = AdbBackend(Stock(link, code, breaks=True))
        with pytest.raises(EnvironmentFault, match="refused"):
            carry_out(replace(act, text="e"), broken, ())


def test_a_long_field_is_cleared_by_few_commands_and_as_in_process(link: DirectLink) -> None:
    stock, here = Stock(link, 0), InProcess()
    there = AdbBackend(stock)
    link.push("/data/local/tmp/state", SETUP.as_json().encode())
    assert link.shell("rollwright power_on /data/local/tmp/state").code == 0
    here.reset(SETUP)
    for backend in (here, there):
        backend.open_app("Contacts")
        backend.tap(540, 460)
        for _ in range(3):
            backend.text("a" * 900)
        (typed,) = (view.text for view in backend.tree().walk() if view.focused)
        before = len(stock.lines)
        backend.erase(len(typed) - 10)
        assert len(stock.lines) - before <= 1 + len(typed) // 200
    (left,) = (view.text for view in there.tree().walk() if view.focused)
    assert left == "a" * 10 and len(typed) > 500 and to_xml(here.tree()) == to_xml(there.tree())


def test_rows_are_read_from_what_content_query_prints() -> None:
    assert parse_rows("No result found.\n") == []
    text = "Row: 0 _id=1, name=Ann, note=NULL\nRow: 1 _id=2, name=a=b\nc, note=\n"
    assert parse_rows(text) == [
        {"_id": "1", "name": "Ann", "note": None},
        {"_id": "2", "name": "a=b\nc", "note": ""},
    ]


# Hostile hosts


def test_rubbish_on_the_wire_ends_one_connection_and_nothing_else(port: int, link: DirectLink) -> None:
    rng = random.Random(5)
    for number in range(60):
        with socket.create_connection(("127.0.0.1", port), 30) as peer:
            if number % 3:
                peer.sendall(pack(Message(Wire.CNXN, VERSION, rng.choice([0, 300, 1 << 20]), b"host::")))
                for _ in range(4):
                    kind, words = rng.choice(list(Wire)), rng.randbytes(rng.randrange(40))
                    peer.sendall(pack(Message(kind, rng.randrange(4), rng.randrange(4), words)))
            else:
                peer.sendall(rng.randbytes(rng.randrange(1, 200)))
    assert link.shell("echo alive").out == b"alive\n"


HOSTILE = (
    "input", "input tap", "input tap 1e400 nan", "input keyevent", "input text", "content", "content query --uri",
    'content query --uri content://sms --where "1); DROP TABLE sms; --"', "content insert --uri content://sms --bind x",
    "settings", "am", "am start", "am start -n", "pm", "cmd", "wm size 1x1", "dumpsys", "dumpsys package", "date +%Q",
    "toybox toybox", "grep '['", "head -n x", "rm -rf /", "rm -rf /sdcard", "mkdir /sdcard/../etc", "cat /etc/passwd",
    "cat ../../etc/passwd", "echo a > /system/b", "sleep nan", "sleep inf", "sleep -5", "rollwright",
    "rollwright rows []", "rollwright rows '{}'", "rollwright power_on /none", "rollwright screencap 9", "monkey",
    "uiautomator dump /system/x", "test", "sh -c", "a=b", ">", "| |", "&& &&", "'", '"', "\\", "$", "${", "exit 999",
    "x" * 70_000,
)  # fmt: skip


@pytest.mark.parametrize("service", ["shell:", "exec:", "shell,v2,raw:"])
def test_no_command_line_breaks_the_phone(link: DirectLink, service: str) -> None:
    rng, alphabet = random.Random(service), "ab '\"\\$;|&<>2?\n%{}()*~#é"
    rubbish = ["".join(rng.choices(alphabet, k=rng.randrange(1, 30))) for _ in range(150)]
    for line in (*HOSTILE, *rubbish):
        with link._stream(service + line) as stream:
            while stream.read() is not None:
                pass
    assert link.shell("cat /etc/passwd").code == 1
    assert link.shell("test -d /sdcard/Download && echo alive").out == b"alive\n"


def test_the_helper_s_port_answers_rubbish_with_errors(link: DirectLink) -> None:
    calls = [b"{", b"[]", b'{"method": "none"}', b'{"method": "click", "params": []}',
             b'{"method": "objInfo", "params": [{"text": "nowhere"}]}', b'{"method": "exist", "params": [{"x": 1}]}',
             b'{"method": "exist", "params": [{"textMatches": "["}]}', b"[" * 100_000]  # fmt: skip
    for body in calls:
        with link._stream("tcp:9008") as stream:
            stream.write(b"POST /jsonrpc/0 HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert b'"error"' in (stream._unread + (b"" if b'"error"' in stream._unread else stream.read() or b""))
    assert link.shell("echo alive").out == b"alive\n"
