"""The processes of one machine meet where only this machine reaches them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rollwright.config.loopback import own_interface

ROOT = Path(__file__).resolve().parents[2]

RANK = '''
from rollwright.config.launch_env import prepare_environment

prepare_environment()
import json, os, sys
from pathlib import Path

import torch
from rollwright.learner.ranks import open_accelerator


def listeners(pid):
    """Addresses, in hexadecimal, that a process listens on."""
    held = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            held.add(os.readlink(entry))
        except OSError:
            pass
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return [row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in held]


accelerator = open_accelerator()
total = torch.ones(1)
torch.distributed.all_reduce(total)
if accelerator.process_index == 0:
    found = {"sum": total.item(), "rank": listeners(os.getpid()), "launcher": listeners(os.getppid())}
    Path(sys.argv[1]).write_text(json.dumps(found))
torch.distributed.barrier()
'''


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc to see who listens where")
def test_nothing_of_a_run_on_one_machine_listens_beyond_it(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    script, out = tmp_path / "rank.py", tmp_path / "found.json"
    script.write_text(RANK)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    config = str(ROOT / "accelerate_configs" / "cpu_zero1.yaml")
    done = subprocess.run([*launch, config, str(script), str(out)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(out.read_text())
    assert found["sum"] == 2.0
    loopback = {"0100007F", "0" * 24 + "01000000", "0000000000000000FFFF00000100007F"}
    assert found["rank"] and found["launcher"], "the ranks meet somewhere"
    assert {*found["rank"], *found["launcher"]} <= loopback


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, False),
        ({"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}, False),
        ({"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, True),
        ({"WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"}, False),  # loopback would part the machines
    ],
)
def test_ranks_of_one_machine_talk_on_loopback(environment: dict[str, str], told: bool) -> None:
    assert bool(own_interface(environment)) == told


@pytest.mark.parametrize("name", ["cpu_zero1", "cpu_zero2", "cpu_zero3"])
def test_every_configuration_of_several_processes_on_a_cpu_names_it(name: str) -> None:
    text = (ROOT / "accelerate_configs" / f"{name}.yaml").read_text()
    assert "rdzv_backend: rollwright_loopback" in text and "main_process_port: 0" in text
