"""How new weights reach the servers: whole weights through files, whole LoRA adapters through files.

A transport `stage`s the weights once, on the thread of the caller (under ZeRO-3 every rank takes part in that), and
then `deliver`s what is staged to one server at a time or to all at once. `cuda_transport` has vLLM's own ways.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rollwright.contracts import EngineFault
from rollwright.generation.server.file_transfer import WeightFiles
from rollwright.generation.server.server_client import UNVERSIONED, ServerClient
from rollwright.generation.vllm_engine import complete, weight_names
from rollwright.models import Adapter

if TYPE_CHECKING:
    from torch import Tensor

ADAPTER_NAME = "rollwright-adapter"
FRESH = (UNVERSIONED, "0")
"""Versions of a server whose weights are still the model folder's."""
UPDATE_S = 900.0
"""Limit of one step of an update: a large model is read from disk in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """Weights that are ready to be delivered, of one version; `content` is the transport's own."""

    version: int
    content: Any


class Transport(Protocol):
    """One way to a server. `keeps`: what is staged may be delivered again later, to a server that was restarted."""

    keeps: bool

    async def begin(self, client: ServerClient) -> None:
        """Have a server that has just come up hold the model folder's weights, as version 0."""
        ...

    def stage(self, weights: Iterable[tuple[str, Tensor]], *, version: int) -> Staged:
        """Take the weights in. Raises ValueError where they are not those of the model."""
        ...

    async def deliver(self, client: ServerClient, staged: Staged) -> str | None:
        """Give one paused server the weights and their version; returns the name to ask for, None for the model's."""
        ...

    def settle(self, version: int) -> None:
        """Every server has this version: what was staged earlier can go."""
        ...

    def close(self) -> None:
        """Give back what the transport holds."""
        ...


class FileTransport:
    """Safetensors shards on a file system that learner and servers share, by default in memory."""

    keeps = True

    def __init__(self, files: WeightFiles, model_folder: Path) -> None:
        self._files, self._folder = files, model_folder
        self._expected = weight_names(model_folder)

    async def begin(self, client: ServerClient) -> None:
        """Name a new server's weights version 0; give a server that outlives runs the model folder's."""
        if await client.version() in FRESH:
            await name_version(client, 0)
        else:  # a server that outlives runs still has the last run's weights
            paths = [str(path) for path in sorted(self._folder.glob("*.safetensors"))]
            await self.deliver(client, Staged(version=0, content=paths))

    def stage(self, weights: Iterable[tuple[str, Tensor]], *, version: int) -> Staged:
        """Write the weights as shards."""
        paths = self._files.write(complete(weights, self._expected), version=version)
        # Paths, not tensors: a server that is restarted later reads the same files again.
        return Staged(version=version, content=[str(path) for path in paths])

    async def deliver(self, client: ServerClient, staged: Staged) -> str | None:
        """Let a server load the shards, one after the other."""
        await client.post("/start_weight_update", timeout_s=UPDATE_S)
        for path in staged.content:
            await client.post("/update_weights", {"update_info": {"paths": [path]}}, timeout_s=UPDATE_S)
        # The version comes with the last call: a server that ends before it still reports the old one.
        await client.post("/finish_weight_update", {"weight_version": str(staged.version)}, timeout_s=UPDATE_S)
        return None

    def settle(self, version: int) -> None:
        """Remove the files of all other versions."""
        self._files.forget_all_but(version)

    def close(self) -> None:
        """Remove all files."""
        self._files.close()


class AdapterTransport:
    """LoRA adapters by hot swap: the base weights stay where they are, only the adapter's files are read anew."""

    keeps = True

    def __init__(self, files: WeightFiles) -> None:
        self._files = files

    async def begin(self, client: ServerClient) -> None:
        """Name the base weights version 0."""
        await name_version(client, 0)  # the base weights never change; the first adapter comes with an update

    def stage(self, weights: Iterable[tuple[str, Tensor]], *, version: int) -> Staged:
        """Refuses: whole weights are not what this transport sends."""
        raise EngineFault(
            "this engine takes LoRA adapters (engine.lora_sync=adapter), but was given whole weights: hand it the "
            "adapter with `load_adapter`, or set engine.lora_sync=merge"
        )

    def stage_adapter(self, adapter: Adapter, *, version: int) -> Staged:
        """Write the adapter as PEFT does: a folder with `adapter_config.json` and `adapter_model.safetensors`."""
        folder = self._files.own / f"version-{version}"
        # PEFT's layout has one file: an adapter of more than one shard (1 GiB) is a ValueError here and not staged.
        (path,) = self._files.write(adapter.weights, version=version)
        shutil.move(path, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps(adapter.config, indent=1), encoding="utf-8")
        return Staged(version=version, content=str(folder))

    async def deliver(self, client: ServerClient, staged: Staged) -> str | None:
        """Let a server read the adapter's files; the name that requests then ask for."""
        # Without `load_inplace` vLLM refuses a name that it has already loaded.
        body = {"lora_name": ADAPTER_NAME, "lora_path": staged.content, "load_inplace": True}
        await client.post("/v1/load_lora_adapter", body, timeout_s=UPDATE_S)
        await name_version(client, staged.version)
        return ADAPTER_NAME

    def settle(self, version: int) -> None:
        """Remove the files of all other versions."""
        self._files.forget_all_but(version)

    def close(self) -> None:
        """Remove all files."""
        self._files.close()


async def name_version(client: ServerClient, version: int) -> None:
    """Tell a server what to call the weights that it has."""
    await client.post("/update_weight_version", {"new_version": str(version)}, timeout_s=UPDATE_S)


def shared_folder(name: str) -> Path | None:
    """The folder of a setting; an empty one leaves the choice to `WeightFiles`."""
    return Path(name).expanduser().resolve() if name else None
