"""From settings to a running engine "vllm_server"."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rollwright.config import has_gpu, usable_cores
from rollwright.contracts import ConfigError, MissingDependency
from rollwright.generation.server.file_transfer import WeightFiles
from rollwright.generation.server.replica import Supervision, UpdateMode
from rollwright.generation.server.server_engine import Options, VLLMServerEngine
from rollwright.generation.server.server_launch import Launch, server_command, server_environment
from rollwright.generation.server.server_process import ServerProcess
from rollwright.generation.server.weight_transport import AdapterTransport, FileTransport, Transport, shared_folder
from rollwright.generation.vllm_engine import vllm_importable
from rollwright.models import biases_against, unknown_ids

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSetup:
    """How the servers are run; the keys of `EngineSettings` that only this engine reads, with their defaults.

    Args:
        urls: servers that run already; none is started or ended then.
        devices: CUDA devices of each replica that is started, such as ("0", "1") or ("0,1", "2,3").
        transfer_folder: where weight files go; empty is shared memory.
        lora_rank: above 0 for adapters by hot swap, of this rank at most.
        log_folder: gets one log file per server; None is a new temporary folder.
    """

    replicas: int = 1
    urls: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    served_name: str = "policy"
    transport: Literal["file", "ipc", "nccl"] = "file"
    transfer_folder: str = ""
    update_mode: UpdateMode = "keep"
    lora_rank: int = 0
    request_s: float = 170.0
    start_s: float = 900.0
    stall_s: float = 60.0
    restarts: int = 3
    kv_cache_gib: float = 1.0
    gpu_memory_frac: float = 0.85
    block_size: int = 32
    log_folder: Path | None = None


def open_servers(
    model_folder: Path,
    setup: ServerSetup,
    *,
    dtype: str,
    context_length: int,
    stop_token_ids: tuple[int, ...] = (),
    max_batch: int = 64,
    seed: int = 0,
) -> VLLMServerEngine:
    """Start or find the servers; returns when all of them serve the folder's weights.

    Raises:
        MissingDependency: vLLM is not installed and no URL is given.
        ConfigError: settings that exclude each other, or a tokenizer whose ids are not the model's.
        EngineFault: a server does not come up, or serves something else.
    """
    if not setup.urls and not vllm_importable():
        raise MissingDependency(
            "engine 'vllm_server' starts vLLM: pip install 'rollwright[vllm]' with a GPU, 'rollwright[cpu]' without; "
            "or name running servers in engine.urls"
        )
    if setup.devices and len(setup.devices) != setup.replicas:
        raise ConfigError(
            f"engine.devices names {len(setup.devices)} groups of devices for {setup.replicas} replicas: one for each"
        )
    launch = Launch(
        model_folder=model_folder.resolve(),
        served_name=setup.served_name,
        dtype=dtype,
        context_length=context_length,
        max_batch=max_batch,
        block_size=setup.block_size,
        seed=seed,
        transport=setup.transport,
        lora_rank=setup.lora_rank,
        gpu=has_gpu(),
        kv_cache_gib=setup.kv_cache_gib,
        gpu_memory_frac=setup.gpu_memory_frac,
    )
    options = Options(
        served_name=setup.served_name,
        context_length=context_length,
        # Of the folder, not of a server: running servers tell of their models' names and lengths only.
        vocab_size=vocab_size_of(model_folder, context_length=context_length),
        biases=biases_against(unknown_ids(model_folder), model_folder),
        stop_token_ids=stop_token_ids,
        request_s=setup.request_s,
        update_mode=setup.update_mode,
        supervision=Supervision(start_s=setup.start_s, stall_s=setup.stall_s, restarts=setup.restarts),
    )
    # A text is a server that runs already, a function starts one: the engine tells them apart by that.
    servers = setup.urls or [starter(launch, setup, index) for index in range(setup.replicas)]
    return VLLMServerEngine(list(servers), open_transport(model_folder, setup, dtype=dtype), options)


def starter(launch: Launch, setup: ServerSetup, index: int) -> Callable[[int, str], ServerProcess]:
    """What starts replica `index`, and starts it again on another port when it has died."""
    folder = setup.log_folder or Path(tempfile.mkdtemp(prefix="rollwright-servers-"))
    log = folder / f"server_{index}.log"
    devices = setup.devices[index] if setup.devices else ""
    environment = server_environment(os.environ, launch, replicas=setup.replicas, cores=usable_cores(), devices=devices)

    def start(port: int, token: str) -> ServerProcess:
        logger.info("starting server %d on port %d, log %s", index, port, log)
        return ServerProcess(server_command(launch, port=port, token=token, devices=devices), environment, log)

    return start


def open_transport(model_folder: Path, setup: ServerSetup, *, dtype: str) -> Transport:
    """The transport that the settings name; adapters go through files whatever the weights would take."""
    files = WeightFiles(folder=shared_folder(setup.transfer_folder), dtype=dtype)
    if setup.lora_rank:
        return AdapterTransport(files)
    if setup.transport == "file":
        return FileTransport(files, model_folder)
    from rollwright.generation.server.cuda_transport import CudaTransport

    # WORLD_SIZE is the launcher's count of learner processes; without a launcher it is not set.
    return CudaTransport(setup.transport, model_folder, dtype=dtype, ranks=int(os.environ.get("WORLD_SIZE", "1")))


def vocab_size_of(model_folder: Path, *, context_length: int) -> int:
    """Size of the embedding, out of the folder's config.json; an id beyond it would kill a server.

    Raises:
        ConfigError: the model is not made for so long a context; a server would find out after a minute.
    """
    config = json.loads((model_folder / "config.json").read_text(encoding="utf-8"))
    # Models that read more than text keep these numbers one level below.
    text = config if "vocab_size" in config else config["text_config"]
    longest = text.get("max_position_embeddings")
    if longest is not None and context_length > longest:
        raise ConfigError(
            f"engine.max_context is {context_length}, but the model in {model_folder} takes {longest} tokens: lower it"
        )
    return int(text["vocab_size"])
