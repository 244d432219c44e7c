"""The engine of a run, from its section."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rollwright.contracts import ConfigError
from rollwright.generation.absent_engine import AbsentEngine
from rollwright.generation.engine import Engine
from rollwright.generation.engine_settings import EngineSettings
from rollwright.generation.select_engine import make_engine
from rollwright.models import ChatCodec, context_within, resolve_precision

if TYPE_CHECKING:
    from rollwright.generation.server import ServerSetup


def open_engine(
    settings: EngineSettings,
    model_folder: Path,
    codec: ChatCodec,
    *,
    seed: int = 0,
    lora_rank: int = 0,
    run_folder: Path | None = None,
    plays: bool = True,
) -> Engine:
    """The generation engine; `auto` takes vLLM where it is importable and says which it took.

    Args:
        plays: false on a rank for which the first one plays; it then only takes part in weight updates.
        lora_rank: of the policy, for engine.lora_sync=adapter.
        run_folder: servers write their logs below it.
    """
    written_down = "max_context" in settings.model_fields_set  # what nobody wrote down gives way to the model
    context_length = settings.max_context if written_down else context_within(model_folder, settings.max_context)
    if not plays:
        # Both sides must iterate over the same tensors, or one of them waits in a gather that the other never enters.
        swaps = settings.name == "vllm_server" and settings.lora_sync == "adapter"
        return AbsentEngine(context_length=context_length, takes_adapters=swaps)
    return make_engine(
        settings.name,
        model_path=model_folder,
        dtype=resolve_precision(settings.dtype),
        context_length=context_length,
        stop_token_ids=tuple(codec.stop_token_ids),
        max_batch=settings.max_batch,
        seed=seed,
        servers=server_setup(settings, lora_rank, run_folder) if settings.name == "vllm_server" else None,
        options=settings.options,
    )


def server_setup(settings: EngineSettings, lora_rank: int, run_folder: Path | None) -> ServerSetup:
    """The servers that the settings describe.

    Raises:
        ConfigError: an adapter is to be swapped, but the policy has none.
    """
    from rollwright.generation.server import ServerSetup

    swaps = settings.lora_sync == "adapter"
    if swaps and not lora_rank:
        raise ConfigError("engine.lora_sync=adapter swaps LoRA adapters, but model.lora_rank is 0: the policy has none")
    # These fields have one name on both sides; a test compares the defaults.
    same = "replicas served_name transport transfer_folder update_mode request_s kv_cache_gib gpu_memory_frac"
    return ServerSetup(
        urls=tuple(settings.urls),
        devices=tuple(settings.devices),
        lora_rank=lora_rank if swaps else 0,
        start_s=settings.server_start_s,
        stall_s=settings.server_stall_s,
        restarts=settings.server_restarts,
        log_folder=run_folder / "servers" if run_folder else None,
        **{name: getattr(settings, name) for name in same.split()},
    )
