"""The section `engine`: who samples."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from rollwright.config import OWN, Config, Limits, Parts, Readers

_HERE = "rollwright.generation"
# Builders are named by text, not imported: `select_engine`, which has most of them, imports this module.
ENGINES = Parts(
    what="engine",
    given=("model_path", "dtype", "context_length", "stop_token_ids", "max_batch", "seed"),
    contract=("generate", "load_weights", "close"),
    ours={
        "auto": f"{_HERE}.select_engine:make_engine",
        "vllm": f"{_HERE}.vllm_engine:VLLMEngine",
        "vllm_server": f"{_HERE}.select_engine:open_server_engine",
        "transformers": f"{_HERE}.select_engine:open_transformers_engine",
    },
)


class EngineSettings(Config):
    """Who samples. `engine=transformers` is short for `engine.name=transformers`."""

    name: Annotated[str, ENGINES] = Field(
        "auto",
        description="auto: vLLM if it can be imported. vllm_server: separate server processes, on this "
        "machine or others. Or your own engine.",
    )
    options: dict[str, Any] = Field({}, description="Arguments of your own engine.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Data type of the engine; auto: bfloat16 where the hardware is fast with it."
    )
    max_batch: int = Field(64, ge=1, description="Maximum number of requests that each server decodes together.")
    max_context: int = Field(
        1024,
        ge=16,
        description="Maximum length of prompt plus action, in tokens; if it is not set, the model's own limit"
        " may lower it.",
    )
    replicas: int = Field(1, ge=1, description="Number of servers to start.")
    urls: list[str] = Field(
        [], description="URLs of running servers, such as http://10.0.0.2:8000; no server is started then."
    )
    devices: list[str] = Field(
        [],
        description="CUDA devices of each server: ['1','2'] for two servers, or ['2,3'] to split one model "
        "over two GPUs.",
    )
    served_name: str = Field("policy", description="Name of the model on the servers.")
    transport: Literal["file", "ipc", "nccl"] = Field(
        "file",
        description="How new weights reach the servers. file: files on one host; ipc: same GPU; nccl: other "
        "GPUs and hosts.",
    )
    transfer_folder: str = Field("", description="file: folder for the weights; empty = shared memory.")
    update_mode: Literal["keep", "wait"] = Field(
        "keep",
        description="What happens to running requests at a weight update: continue with the new weights, or "
        "finish first.",
    )
    lora_sync: Literal["merge", "adapter"] = Field(
        "merge", description="LoRA policy: send merged weights, or only the adapter."
    )
    # Below rollout.engine_call_s (180 s): the engine's own error names the server's fault, the caller's only the time.
    request_s: float = Field(
        170.0, gt=0, description="Time limit of one action in seconds, including retries and restarts."
    )
    server_start_s: float = Field(900.0, gt=0, description="Time limit for starting a server, in seconds.")
    server_stall_s: float = Field(60.0, gt=0, description="Seconds of silence after which a server is restarted.")
    server_restarts: int = Field(3, ge=0, description="Maximum number of restarts per server.")
    kv_cache_gib: float = Field(1.0, gt=0, description="Key-value cache of one server without a GPU, in GiB.")
    gpu_memory_frac: float = Field(0.85, gt=0, le=1, description="Share of the GPU's memory that one server takes.")

    shorthand = "name"
    limits: ClassVar[Limits] = {
        "max_batch": (2**16, "keys and values of all of them are held at once"),
        "max_context": (10_000_000, "no model reads more"),
        "replicas": (1000, "each is a process with a copy of the model"),
        "kv_cache_gib": (2**17, "no machine has more memory"),
    }
    only_for: ClassVar[Readers] = {
        key: {"name": ("vllm_server",)}
        for key in (
            *("replicas", "urls", "devices", "served_name", "transport", "update_mode", "lora_sync", "request_s"),
            *("server_start_s", "server_stall_s", "server_restarts", "kv_cache_gib", "gpu_memory_frac"),
        )
    } | {"transfer_folder": {"name": ("vllm_server",), "transport": ("file",)}, "options": {"name": (OWN,)}}
