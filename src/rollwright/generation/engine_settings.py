"""The section `engine`: who samples."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from rollwright.config import OWN, Config, Limits, Parts, Readers

_HERE = "rollwright.generation"
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
        description="auto: vLLM if importable. vllm_server: processes of their own, here or elsewhere. Or an engine of "
        "one's own.",
    )
    options: dict[str, Any] = Field({}, description="Arguments of an engine of one's own.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 where it is fast.")
    max_batch: int = Field(64, ge=1, description="Requests decoded together, by each server.")
    max_context: int = Field(
        1024, ge=16, description="Prompt plus action, in tokens; where it is not set, less if the model takes less."
    )
    replicas: int = Field(1, ge=1, description="Servers to start.")
    urls: list[str] = Field([], description="Running servers, such as http://10.0.0.2:8000; none is started then.")
    devices: list[str] = Field([], description="CUDA devices of each server: ['1','2'], or ['2,3'] to split a model.")
    served_name: str = Field("policy", description="The model's name at the servers.")
    transport: Literal["file", "ipc", "nccl"] = Field(
        "file", description="Way of new weights: files on one host; ipc: same GPU; nccl: other GPUs and hosts."
    )
    transfer_folder: str = Field("", description="file: where the weights lie; empty = shared memory.")
    update_mode: Literal["keep", "wait"] = Field(
        "keep", description="Requests under way at a weight update: go on under the new weights, or finish first."
    )
    lora_sync: Literal["merge", "adapter"] = Field(
        "merge", description="LoRA policy: send merged weights, or swap the adapter alone."
    )
    request_s: float = Field(170.0, gt=0, description="Limit of one action, retries and restarts included.")
    server_start_s: float = Field(900.0, gt=0, description="Limit of a server's start.")
    server_stall_s: float = Field(60.0, gt=0, description="A server silent for so long is given up and started again.")
    server_restarts: int = Field(3, ge=0, description="How often each server is started again.")
    kv_cache_gib: float = Field(1.0, gt=0, description="Keys and values of one server, without a GPU.")
    gpu_memory_frac: float = Field(0.85, gt=0, le=1, description="Share of the GPU's memory one server takes.")

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
