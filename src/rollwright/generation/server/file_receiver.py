"""The server's end of the weight transport "file": read safetensors shards into the running model.

This module is imported inside vLLM's worker processes only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)

from rollwright.generation.vllm_engine import rank_without_compiling, repack_tied_head


@dataclass
class NoInit(WeightTransferInitInfo):
    """Nothing is agreed upon beforehand."""


@dataclass
class Shards(WeightTransferUpdateInfo):
    """Absolute paths of safetensors files that this host can read; together they hold part or all of the weights."""

    paths: list[str]


class FileReceiver(WeightTransferEngine[NoInit, Shards]):
    """Made by each worker when it starts. An update is `start`, any number of `receive_weights`, `finish`."""

    init_info_cls = NoInit
    update_info_cls = Shards

    def __init__(self, config: Any, vllm_config: Any, device: Any, model: Any) -> None:
        super().__init__(config, vllm_config, device, model)
        self._on_cpu = device.type == "cpu"
        if self._on_cpu:
            # The patch that the in-process engine makes; here it must be made in each worker.
            rank_without_compiling()

    def init_transfer_engine(self, init_info: NoInit) -> None:
        """Nothing to do: files need no handshake."""

    def start_weight_update(self) -> None:
        """Prepare the model for weights that come layer by layer."""
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: Shards) -> None:
        """Load the shards one after the other.

        Raises:
            ValueError: a path is not absolute or does not exist here: learner and server share no file system.
        """
        from safetensors.torch import load_file

        # Checked here, on the reader's host: the learner's host has the files in any case.
        for name in update_info.paths:
            path = Path(name)
            if not (path.is_absolute() and path.is_file()):
                raise ValueError(
                    f"this host has no weight file {name}: transport 'file' needs learner and server on one"
                )
            self.model.load_weights(iter(load_file(path, device=str(self.device)).items()))

    def finish_weight_update(self) -> None:
        """End the loading; a tied head on a CPU is packed anew."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self.model, self.model_config)
        if self._on_cpu:  # on CUDA a tied head shares the embedding's memory
            repack_tied_head(self.model)

    def shutdown(self) -> None:
        """Nothing is held between updates."""
