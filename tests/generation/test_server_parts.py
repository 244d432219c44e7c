"""Parts of the engine "vllm_server" without vLLM: what is sent and read, who is asked, what is started and ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rollwright.config import build
from rollwright.contracts.errors import ConfigError, EngineFault
from rollwright.generation.engine import Sampling
from rollwright.generation.engine_settings import EngineSettings
from rollwright.generation.open_engine import server_setup
from rollwright.generation.server.file_transfer import WeightFiles, sweep
from rollwright.generation.server.make_servers import ServerSetup, vocab_size_of
from rollwright.generation.server.parent_guard import has_living
from rollwright.generation.server.replica import Supervision
from rollwright.generation.server.request_routing import Router, session_of
from rollwright.generation.server.server_client import (
    ForeignVersion,
    ServerFailed,
    ServerLost,
    generation_of,
    refusal,
    request_body,
    spans_of,
)
from rollwright.generation.server.server_engine import Options, VLLMServerEngine
from rollwright.generation.server.server_launch import Launch, served_rank, server_command, server_environment
from rollwright.generation.server.server_process import ServerProcess
from rollwright.generation.server.weight_transport import FileTransport

LAUNCH = Launch(model_folder=Path("/models/m"), served_name="policy", dtype="float32", context_length=512, max_batch=8)


# Routing


def test_new_episodes_go_round_and_old_ones_stay():
    router = Router(3)
    assert [router.choose(episode, [0, 1, 2]) for episode in "abcd"] == [0, 1, 2, 0]
    assert [router.choose(episode, [0, 1, 2]) for episode in "dcba"] == [0, 2, 1, 0]


def test_an_episode_moves_only_when_its_replica_is_gone_and_then_for_good():
    router = Router(2)
    assert router.choose("a", [0, 1]) == 0
    assert router.choose("a", [1]) == 1
    assert router.choose("a", [0, 1]) == 1
    with pytest.raises(ValueError, match="no replica is ready"):
        router.choose("a", [])


@given(st.lists(st.tuples(st.integers(0, 9), st.sets(st.integers(0, 3), min_size=1)), max_size=60))
def test_the_choice_is_always_ready(asked: list[tuple[int, set[int]]]):
    router = Router(4, remember=5)
    for episode, ready in asked:
        assert router.choose(str(episode), sorted(ready)) in ready
        assert len(router._home) <= 5


def test_the_turns_of_an_episode_share_a_session():
    assert session_of("0/3/1/7#1/0") == session_of("0/3/1/7#1/12") == "0/3/1/7#1"
    assert session_of("alone") == "alone"


# What is sent and read


def answer(**changes: Any) -> dict[str, Any]:
    choice = {
        "finish_reason": "stop",
        "token_ids": [5, 6, 2],
        "logprobs": {"content": [{"token_id": t, "logprob": -float(t)} for t in (5, 6, 2)]},
        "weight_versions": [{"version": "3", "start": 0, "end": 2}, {"version": "4", "start": 2, "end": 3}],
    }
    return {"choices": [choice | changes], "usage": {"prompt_tokens_details": {"cached_tokens": 32}}}


def test_an_answer_becomes_a_generation():
    generation = generation_of(answer(), seconds=0.5, url="u")
    assert (generation.token_ids, generation.logprobs) == ((5, 6, 2), (-5.0, -6.0, -2.0))
    assert [(span.start, span.end, span.version) for span in generation.spans] == [(0, 2, 3), (2, 3, 4)]
    assert (generation.finish_reason, generation.cached_tokens, generation.generate_s) == ("stop", 32, 0.5)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"token_ids": [5]}, EngineFault, "cover 3 of 1|cannot be read"),
        ({"weight_versions": None}, EngineFault, "cannot be read"),
        ({"weight_versions": [{"version": "1", "start": 1, "end": 3}]}, EngineFault, "cannot be read"),
        ({"weight_versions": [{"version": "sft", "start": 0, "end": 3}]}, ForeignVersion, "'sft'"),
        ({"logprobs": None}, EngineFault, "cannot be read"),
        ({"finish_reason": "abort"}, ServerLost, "dropped"),
        ({"finish_reason": "error"}, EngineFault, "'error'"),
    ],
)
def test_an_answer_that_does_not_fit_together_is_refused(changes: dict[str, Any], error: type, message: str):
    with pytest.raises(error, match=message):
        generation_of(answer(**changes), seconds=0.0, url="u")


def test_weights_that_nobody_updated_are_version_0():
    assert [span.version for span in spans_of([{"version": "default", "start": 0, "end": 4}], 4)] == [0]


def test_the_request_carries_the_seed_and_only_our_stop_tokens():
    body = request_body((1, 2), Sampling(seed=9, max_tokens=5, stop_token_ids=(2,)), request_id="r", model="policy")
    assert "logit_bias" not in body["sampling_params"]
    assert body["token_ids"] == [1, 2] and body["model"] == "policy"
    sent = body["sampling_params"]
    assert (sent["seed"], sent["max_tokens"], sent["stop_token_ids"], sent["ignore_eos"]) == (9, 5, [2], True)


def test_error_statuses_say_what_to_do():
    assert isinstance(refusal("u", "/p", 500, '{"error": {"message": "boom"}}'), ServerFailed)
    denied = refusal("u", "/p", 403, '{"detail": "Scale-out endpoints are disabled"}')
    assert not isinstance(denied, ServerFailed)
    assert "disabled. start the server with --enable-scale-out" in str(denied)
    assert "HTTP 418: plain words" in str(refusal("u", "/p", 418, "plain words"))


# What is started


def test_the_command_line_and_its_differences():
    plain = server_command(LAUNCH, port=81, token="secret")
    assert plain[plain.index("--served-model-name") + 1 :][:2] == ["policy", "secret"]
    assert plain[plain.index("--host") + 1] == "127.0.0.1" and "--enforce-eager" in plain
    assert json.loads(plain[plain.index("--weight-transfer-config") + 1]) == {"backend": "rollwright_file"}
    lora = server_command(replace(LAUNCH, lora_rank=12), port=81, token="secret")
    assert lora[lora.index("--max-lora-rank") + 1] == "16" and "--enable-lora" not in plain
    gpu = server_command(replace(LAUNCH, gpu=True, transport="nccl"), port=81, token="secret", devices="2,3")
    assert gpu[gpu.index("--tensor-parallel-size") + 1] == "2" and "--enforce-eager" not in gpu
    assert json.loads(gpu[gpu.index("--weight-transfer-config") + 1]) == {"backend": "nccl"}
    with pytest.raises(ValueError, match="rank 512 at most, got 600"):
        served_rank(600)


def test_servers_share_the_threads_and_do_not_inherit_the_learners_rank():
    base = {"OMP_NUM_THREADS": "8", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "RANK": "1", "WORLD_SIZE": "2", "HOME": "/h"}
    environment = server_environment(base, LAUNCH, replicas=3, cores=64)
    assert environment["OMP_NUM_THREADS"] == "2" and environment["HOME"] == "/h"
    assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "1" and environment["VLLM_SERVER_DEV_MODE"] == "1"
    assert not {"RANK", "WORLD_SIZE", "CUDA_VISIBLE_DEVICES", "VLLM_ALLOW_RUNTIME_LORA_UPDATING"} & environment.keys()
    gpu = server_environment({}, replace(LAUNCH, gpu=True, transport="ipc"), replicas=1, cores=4, devices="3")
    assert (gpu["CUDA_VISIBLE_DEVICES"], gpu["OMP_NUM_THREADS"]) == ("3", "4")
    assert gpu["VLLM_ALLOW_INSECURE_SERIALIZATION"] == "1"


def test_keys_of_the_servers_are_errors_for_other_engines():
    assert build(EngineSettings, {"name": "vllm_server", "replicas": 2}).replicas == 2
    with pytest.raises(ConfigError, match="replicas"):
        build(EngineSettings, {"name": "vllm", "replicas": 2})
    with pytest.raises(ConfigError, match="transfer_folder"):
        build(EngineSettings, {"name": "vllm_server", "transport": "nccl", "transfer_folder": "/x"})
    defaults = server_setup(build(EngineSettings, {"name": "vllm_server"}), 0, None)
    assert defaults == ServerSetup()  # one truth about the defaults
    with pytest.raises(ConfigError, match=r"model\.lora_rank is 0"):
        server_setup(build(EngineSettings, {"name": "vllm_server", "lora_sync": "adapter"}), 0, None)


# Processes

_FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("family", child.pid, flush=True)
time.sleep(600)
"""


def members(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            state, _, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if its_group == str(group) and state != "Z":
            found.append(int(entry.name))
    return found


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start_family(folder: Path) -> tuple[ServerProcess, int]:
    process = ServerProcess([sys.executable, "-c", _FAMILY], dict(os.environ), folder / "s.log")
    wait_for(lambda: "family" in process.tail())
    assert process.pid is not None and len(members(process.pid)) == 2
    return process, process.pid


@pytest.mark.long
def test_a_server_is_ended_with_its_children(tmp_path: Path):
    process, group = start_family(tmp_path)
    assert process.exit_code is None
    process.stop()
    process.stop()
    assert not has_living(group) and process.pid is None


@pytest.mark.long
def test_children_of_a_killed_server_go_too_and_its_end_is_named(tmp_path: Path):
    process, group = start_family(tmp_path)
    os.kill(group, signal.SIGKILL)
    wait_for(lambda: process.exit_code is not None)
    assert process.exit_code == -signal.SIGKILL and not has_living(group)


@pytest.mark.long
def test_a_guard_is_one_thread_without_torch(tmp_path: Path):
    process, _ = start_family(tmp_path)
    try:
        own = Path(f"/proc/{process._guard.pid}")
        assert "Threads:\t1\n" in (own / "status").read_text(encoding="ascii")
        assert "libtorch" not in (own / "maps").read_text(encoding="utf-8")
    finally:
        process.stop()


def test_a_killed_guard_takes_its_server_along(tmp_path: Path):
    process, group = start_family(tmp_path)
    process._guard.kill()
    wait_for(lambda: group not in members(group))  # by the kernel; the child is left to `stop`
    process.stop()
    assert not has_living(group)


def test_servers_of_a_killed_run_are_ended(tmp_path: Path):
    """Also where a forked worker of the run lives on: it holds everything open that the run held open."""
    script = f"""
import os, time
from pathlib import Path
from rollwright.generation.server.server_process import ServerProcess
import sys
ServerProcess([sys.executable, "-c", {_FAMILY!r}], dict(os.environ), Path({str(tmp_path / "s.log")!r}))
if os.fork() == 0:
    time.sleep(20)
    os._exit(0)
time.sleep(600)
"""
    run = subprocess.Popen([sys.executable, "-c", script])
    log = tmp_path / "s.log"
    wait_for(lambda: log.exists() and "family" in log.read_text())
    group = int((tmp_path / "s.pid").read_text())
    assert has_living(group)
    run.kill()
    run.wait()
    wait_for(lambda: not has_living(group), seconds=15.0)


# Weight files


def test_weights_are_cut_into_shards_and_read_back(tmp_path: Path):
    from safetensors.torch import load_file

    files = WeightFiles(folder=tmp_path, dtype="bfloat16", shard_bytes=64)
    weights = {f"w{n}": torch.full((4, 4), float(n)) for n in range(5)}  # 32 bytes each in bfloat16
    paths = files.write(iter(weights.items()), version=1)
    assert len(paths) == 3
    read = {name: value for path in paths for name, value in load_file(path).items()}
    assert all(torch.equal(read[name].float(), value) for name, value in weights.items())
    assert (files.own.stat().st_mode & 0o777) == 0o700
    files.write(iter(weights.items()), version=2)
    files.forget_all_but(2)
    assert [folder.name for folder in files.own.glob("version-*")] == ["version-2"]
    files.close()
    assert not list(tmp_path.iterdir())


def test_what_killed_runs_left_is_swept_and_a_living_ones_files_stay(tmp_path: Path):
    living, dead = WeightFiles(folder=tmp_path), tmp_path / "rollwright-weights-dead"
    dead.mkdir()
    (dead / "shard").write_bytes(b"x")
    for folder in (living.own, dead):
        os.utime(folder, (0, 0))
    sweep(tmp_path)
    assert living.own.is_dir() and not dead.exists()
    living.close()


# The engine and a server that misbehaves: failures that a real vLLM shows only now and then


class Impostor:
    """Answers as vLLM does, or as `script` says: a list of statuses for the next generations."""

    def __init__(self) -> None:
        self.script: list[int] = []
        self.version, self.hangs, self.dead = "default", False, False
        self.refuses_updates = self.dies_of_it = self.is_no_vllm = False
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.reply(self, {})

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                outer.reply(self, json.loads(self.rfile.read(length) or b"{}"))

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reply(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        path = handler.path.partition("?")[0]
        self.asked.append(path)
        while self.hangs and path in ("/is_paused", "/inference/v1/generate"):
            time.sleep(0.05)
        if self.dead:
            handler.close_connection = True
            return
        status, content = self._content(path, body)
        data = json.dumps(content).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def _content(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/v1/models" and self.is_no_vllm:
            return 200, {"hello": "world"}
        if path == "/v1/models":
            return 200, {"data": [{"id": "policy", "max_model_len": 512}]}
        if path == "/weight_info":
            return 200, {"weight_version": self.version}
        if path == "/update_weight_version":
            self.version = body["new_version"]
        if path == "/update_weights" and self.refuses_updates:
            self.dead = self.dies_of_it
            return 500, {"error": {"message": "no room"}}
        if path == "/finish_weight_update":
            self.version = body["weight_version"]
        if path == "/inference/v1/generate":
            status = self.script.pop(0) if self.script else 200
            if status != 200:
                return status, {"error": {"message": "told to fail"}}
            return 200, answer(weight_versions=[{"version": self.version, "start": 0, "end": 3}])
        return 200, {"success": True, "is_paused": False}


@pytest.fixture
def impostors() -> Iterator[list[Impostor]]:
    pair = [Impostor(), Impostor()]
    yield pair
    for impostor in pair:
        impostor.hangs = False
        impostor.server.shutdown()
        impostor.server.server_close()


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    from safetensors.torch import save_file

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"vocab_size": 100}))
    save_file({"w": torch.zeros(2)}, folder / "model.safetensors")
    return folder


def engine_over(urls: list[str], model_folder: Path, **changes: Any) -> VLLMServerEngine:
    supervision = Supervision(start_s=20.0, stall_s=2.0, poll_s=0.2, restarts=2)
    options = Options(
        served_name="policy",
        context_length=64,
        vocab_size=vocab_size_of(model_folder, context_length=64),
        supervision=supervision,
        **({"request_s": 30.0} | changes),
    )
    transport = FileTransport(WeightFiles(folder=model_folder.parent / "shm"), model_folder)
    return VLLMServerEngine(urls, transport, options)


async def test_a_server_error_is_tried_elsewhere_but_not_for_ever(impostors: list[Impostor], model_folder: Path):
    engine = await asyncio.to_thread(engine_over, [i.url for i in impostors], model_folder)
    impostors[0].script = [500]
    generation = await engine.generate((1, 2), Sampling(max_tokens=3), request_id="a/0")
    assert generation.token_ids == (5, 6, 2)
    for impostor in impostors:
        impostor.script = [500] * 9
    with pytest.raises(EngineFault, match=r"failed 3 times.*told to fail"):
        await engine.generate((1, 2), Sampling(max_tokens=3), request_id="b/0")
    await asyncio.to_thread(engine.close)


async def test_a_refusal_is_final(impostors: list[Impostor], model_folder: Path):
    engine = await asyncio.to_thread(engine_over, [impostors[0].url], model_folder)
    impostors[0].script = [400]
    with pytest.raises(EngineFault, match="HTTP 400: told to fail"):
        await engine.generate((1, 2), Sampling(max_tokens=3), request_id="a/0")
    assert impostors[0].asked.count("/inference/v1/generate") == 1
    await asyncio.to_thread(engine.close)


async def test_a_silent_server_ends_in_a_fault_at_the_deadline(impostors: list[Impostor], model_folder: Path):
    engine = await asyncio.to_thread(engine_over, [impostors[0].url], model_folder, request_s=1.0)
    impostors[0].hangs = True
    with pytest.raises(EngineFault, match=r"no answer within 1 s \(engine.request_s\)"):
        await engine.generate((1, 2), Sampling(max_tokens=3), request_id="a/0")
    await asyncio.to_thread(engine.close)


async def test_a_silent_server_is_given_up_and_its_requests_go_elsewhere(impostors: list[Impostor], model_folder: Path):
    engine = await asyncio.to_thread(engine_over, [i.url for i in impostors], model_folder)
    impostors[0].hangs = True
    both = [engine.generate((1, 2), Sampling(max_tokens=3), request_id=f"{name}/0") for name in "ab"]
    for generation in await asyncio.wait_for(asyncio.gather(*both), 30):
        assert generation.token_ids == (5, 6, 2)
    await asyncio.to_thread(engine.close)


async def test_no_server_left_is_said_at_once(impostors: list[Impostor], model_folder: Path):
    engine = await asyncio.to_thread(engine_over, [impostors[0].url], model_folder)
    replica = engine._replicas[0]
    replica._supervision = replace(replica._supervision, start_s=0.5)
    impostors[0].dead = True
    with pytest.raises(EngineFault, match=r"no server is left: server 0 .* given up after 2 restarts"):
        await engine.generate((1, 2), Sampling(max_tokens=3), request_id="a/0")
    await asyncio.to_thread(engine.close)


async def test_weights_that_somebody_else_changed_are_put_right(impostors: list[Impostor], model_folder: Path):
    engine = await asyncio.to_thread(engine_over, [impostors[0].url], model_folder)
    assert impostors[0].version == "0"
    await asyncio.to_thread(engine.load_weights, [("w", torch.ones(2))], version=1)
    assert impostors[0].version == "1"
    impostors[0].version = "default"  # as after a restart by its owner
    generation = await engine.generate((1, 2), Sampling(max_tokens=3), request_id="a/0")
    assert [span.version for span in generation.spans] == [1]
    assert impostors[0].asked.count("/update_weights") == 2
    await asyncio.to_thread(engine.close)


async def test_a_server_of_an_earlier_run_gets_the_models_weights_first(impostors: list[Impostor], model_folder: Path):
    impostors[0].version = "7"
    engine = await asyncio.to_thread(engine_over, [impostors[0].url], model_folder)
    assert impostors[0].version == "0" and impostors[0].asked.count("/update_weights") == 1
    await asyncio.to_thread(engine.close)


async def test_an_update_that_a_living_server_refuses_ends_the_run_and_a_dying_one_does_not(
    impostors: list[Impostor], model_folder: Path
):
    engine = await asyncio.to_thread(engine_over, [i.url for i in impostors], model_folder)
    impostors[1].refuses_updates = True
    with pytest.raises(EngineFault, match=r"update to version 1 failed.*no room.*Make a new engine"):
        await asyncio.to_thread(engine.load_weights, [("w", torch.ones(2))], version=1)
    with pytest.raises(EngineFault, match="Make a new engine"):
        await engine.generate((1, 2), Sampling(max_tokens=3), request_id="a/0")
    await asyncio.to_thread(engine.close)

    impostors[1].refuses_updates = False
    engine = await asyncio.to_thread(engine_over, [i.url for i in impostors], model_folder)
    impostors[1].refuses_updates = impostors[1].dies_of_it = True
    await asyncio.to_thread(engine.load_weights, [("w", torch.ones(2))], version=1)
    generation = await engine.generate((1, 2), Sampling(max_tokens=3), request_id="a/0")
    assert [span.version for span in generation.spans] == [1] and not engine._replicas[1].ready
    impostors[1].refuses_updates = impostors[1].dies_of_it = impostors[1].dead = False
    while not engine._replicas[1].ready:
        await asyncio.sleep(0.05)
    assert impostors[1].version == "1"
    await asyncio.to_thread(engine.close)


def test_something_else_at_the_url(impostors: list[Impostor], model_folder: Path):
    impostors[0].is_no_vllm = True
    with pytest.raises(EngineFault, match=r"answered /v1/models without 'data'.*Is this vLLM"):
        engine_over([impostors[0].url], model_folder)


def test_a_context_that_the_model_does_not_have_is_refused_at_once(tmp_path: Path):
    (tmp_path / "config.json").write_text(
        json.dumps({"text_config": {"vocab_size": 7, "max_position_embeddings": 512}})
    )
    assert vocab_size_of(tmp_path, context_length=512) == 7
    with pytest.raises(ConfigError, match=r"max_context is 1024, but the model in .* takes 512"):
        vocab_size_of(tmp_path, context_length=1024)
