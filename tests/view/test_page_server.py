"""The server of `rollwright view`: what it answers, and to whom it does not."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rollwright.cli import main
from rollwright.contracts import attach_picture
from rollwright.store import TrajectoryStore
from rollwright.view import PageServer, RunCatalogue
from rollwright.view.live.page_server import HOST
from rollwright.view.live.reference_curves import reference_of
from scripts.write_metric_notes import SOURCE, TARGET, notes
from tests import builders
from tests.viewed_runs import maze_run

PNG = b"\x89PNG\r\n\x1a\npicture"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    root = tmp_path_factory.mktemp("runs")
    maze_run(root / "one")
    maze_run(root / "two", good_from=3, config="run:\n  seed: 1\n")
    picture = builders.turn(attachments=(attach_picture(PNG),))
    TrajectoryStore(root / "one" / "trajectories").append([builders.episode("p", picture)], tag="seen")
    (root / "secret.txt").write_text("secret")
    running = PageServer(RunCatalogue([root]), port=0)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


Reply = tuple[int, dict[str, str], bytes]


def ask(server: PageServer, path: str, *, method: str = "GET", host: str | None = None) -> Reply:
    connection = http.client.HTTPConnection(HOST, server.port, timeout=30)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", f"{HOST}:{server.port}" if host is None else host)
    connection.endheaders()
    reply = connection.getresponse()
    found = reply.status, dict(reply.getheaders()), reply.read()
    connection.close()
    return found


def read(server: PageServer, path: str) -> Any:
    status, _, content = ask(server, path)
    assert status == 200, content
    return json.loads(content)


def test_every_address_answers(server: PageServer) -> None:
    runs = read(server, "/api/runs")["runs"]
    assert {run["id"] for run in runs} == {"one", "two"}
    assert all(run["has_tokens"] and run["success"]["last"] == 1.0 for run in runs)
    whole = read(server, "/api/run/one")
    assert [evaluation["name"] for evaluation in whole["evaluations"]] == ["start", "final"]
    assert whole["seconds"]["collect"] > 0 and whole["settings"] == {"run.seed": 0}
    assert set(read(server, "/api/run/one/metrics?names=reward/total_mean")["series"]) == {"reward/total_mean"}
    rows = read(server, "/api/run/one/episodes?limit=3&success=yes")
    assert len(rows["rows"]) == 3 and rows["matching"] < rows["total"]
    episode = read(server, f"/api/run/one/episode/{rows['rows'][0]['key']}")
    assert episode["turns"] and episode["vocabulary"]
    assert read(server, f"/api/run/one/group/{rows['rows'][0]['group']}")["rows"]
    assert read(server, "/api/run/one/tasks")["rows"] and read(server, "/api/run/one/faults")["total"] == 1
    assert read(server, "/api/run/one/doctor")["available"]
    assert read(server, "/api/metric-names")["rollout/success_frac"]["healthy"]
    assert read(server, "/api/diff?a=one&b=two")["rows"] == [{"key": "run.seed", "a": 0, "b": 1}]


def test_a_reference_curve_has_one_interval_for_each_step(server: PageServer) -> None:
    found = read(server, "/api/reference/text%2Fmaze_grpo")
    assert found["seeds"] >= 3 and "rollout/success_frac" in found["curves"]
    for curve in found["curves"].values():
        assert len(set(map(len, curve.values()))) == 1
        bounds = zip(curve["low"], curve["mean"], curve["high"], strict=True)
        assert all(low <= mean <= high for low, mean, high in bounds)
    assert reference_of("text/maze_grpo") == "text/maze_grpo" and reference_of("own") is None


def test_two_evaluations_are_paired_episode_by_episode(server: PageServer) -> None:
    found = read(server, "/api/compare?a=one/start&b=one/final")
    assert found["counts"] == {"won": 4, "lost": 0, "same": 4, "higher": 0, "lower": 0, "unpaired": 0, "faulted": 0}
    assert found["success"]["difference"] == pytest.approx(0.5) and "final" in found["verdict"]
    won = next(row for row in found["rows"] if row["change"] == "won")
    assert read(server, f"/api/run/one/episode/{won['b']['key']}")["row"]["success"] is True
    status, _, content = ask(server, "/api/compare?a=one/begin&b=one/final")
    assert status == 400 and b"it has: start, final" in content


def test_a_picture_comes_with_the_type_of_its_own_bytes(server: PageServer) -> None:
    [row] = read(server, "/api/run/one/episodes?tag=seen")["rows"]
    [attached] = read(server, f"/api/run/one/episode/{row['key']}")["turns"][0]["attachments"]
    status, headers, content = ask(server, f"/api/run/one/attachment/{attached['sha256']}")
    assert (status, headers["Content-Type"], content) == (200, "image/png", PNG)


@pytest.mark.parametrize(
    "path",
    [
        *("/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/.hidden", "/vendor/"),
        *("/api/run/one/attachment/..%2f..%2fsecret.txt", "/api/run/..%2fone", "/api/run/one/episode/..%2f1"),
        *(
            "/api/reference/..%2fmetrics",
            "/api/",
            "/api/run/one/metrics/more",
            "/api/run/none",
            "/%00",
            "/page_server.py",
            "/" + "a" * 5000,
            "http://[/",
        ),
    ],
)
def test_no_address_leads_out(server: PageServer, path: str) -> None:
    status, _, content = ask(server, path)
    assert status in (400, 404) and set(json.loads(content)) == {"error"} and b"secret\n" not in content


def test_a_page_of_another_site_is_refused(server: PageServer) -> None:
    """A site may let its own name lead to 127.0.0.1; its pages then send that name."""
    for host in ("evil.example", f"evil.example:{server.port}", "", f"{HOST}:1"):
        status, _, content = ask(server, "/api/runs", host=host)
        assert status == 421 and b"runs" not in content
    assert ask(server, "/api/runs", host=f"localhost:{server.port}")[0] == 200


def test_nothing_but_reading_is_possible(server: PageServer) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        found, headers, content = ask(server, "/api/runs", method=method)
        assert found == 501 and set(json.loads(content)) == {"error"} and "Content-Security-Policy" in headers
    status, headers, content = ask(server, "/api/runs", method="HEAD")
    assert status == 200 and content == b"" and int(headers["Content-Length"]) > 0


def test_every_answer_carries_the_locks(server: PageServer) -> None:
    for path in ("/", "/main.js", "/api/runs", "/nothing"):
        _, headers, _ = ask(server, path)
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
        policy = headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy and "script-src 'self' 'sha256-" in policy
        assert "unsafe" not in policy.partition("style-src")[0]
        assert not [name for name in headers if name.lower().startswith("access-control")]
    assert ask(server, "/")[1]["Content-Type"].startswith("text/html")
    assert ask(server, "/main.js")[1]["Content-Type"].startswith("text/javascript")


def test_it_listens_on_the_loopback_alone(server: PageServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_a_taken_port_is_said_and_the_next_free_one_is_found(
    server: PageServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["view", str(tmp_path), "--port", str(server.port), "--no-open"]) == 2
    assert f"port {server.port}" in (said := capsys.readouterr().err) and "--port" in said
    assert main(["view", str(tmp_path), "--port", "70000"]) == 2
    assert "65535" in capsys.readouterr().err
    assert main(["view", str(tmp_path / "gone")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_ctrl_c_ends_it_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: PageServer) -> None:
        with socket.create_connection((HOST, self.port)):
            raise KeyboardInterrupt

    monkeypatch.setattr(PageServer, "serve_forever", interrupted)
    builders.run_of(tmp_path / "one", metrics=[{"reward/total_mean": 1.0}])
    assert main(["view", str(tmp_path), "--port", "0", "--no-open"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"1 run in {tmp_path}: http://127.0.0.1:") and said.err == ""


def test_the_explanations_are_those_of_the_documentation() -> None:
    written = json.loads(TARGET.read_text(encoding="utf-8"))
    assert written == notes(SOURCE.read_text(encoding="utf-8")), "run scripts/write_metric_notes.py"
