"""Weight transports of vLLM itself, GPU to GPU: "ipc" on one device, "nccl" between devices and machines.

Needs CUDA on both sides. The learner's tensors are copied once in the servers' precision, since under ZeRO-3 they live
only while they are iterated, and vLLM asks for their names and shapes first.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from rollwright.contracts import ConfigError, EngineFault
from rollwright.generation.server.server_client import ServerClient
from rollwright.generation.server.server_process import free_port
from rollwright.generation.server.weight_transport import FRESH, UPDATE_S, Staged, name_version
from rollwright.generation.vllm_engine import complete, weight_names

if TYPE_CHECKING:
    from torch import Tensor


class CudaTransport:
    """`Transport` over vLLM's trainer engines, one per server; a restarted server waits for the next update.

    Raises:
        ConfigError: there is no CUDA device, or ipc is asked for by several learner processes.
    """

    keeps = False

    def __init__(self, backend: Literal["ipc", "nccl"], model_folder: Path, *, dtype: str, ranks: int = 1) -> None:
        import torch

        if not torch.cuda.is_available():
            raise ConfigError(f"engine.transport={backend} needs CUDA; use engine.transport=file")
        if backend == "ipc" and ranks > 1:
            # Its handles are gathered over all ranks, of which only the sending one comes here.
            raise ConfigError("engine.transport=ipc is for one learner process; use nccl or file with several")
        self._backend, self._dtype = backend, getattr(torch, dtype)
        self._device = torch.cuda.current_device()
        self._expected = weight_names(model_folder)
        self._trainers: dict[str, Any] = {}  # by URL: a restarted server has a new one
        self._one_at_a_time = asyncio.Lock()

    async def begin(self, client: ServerClient) -> None:
        """Name a new server's weights version 0; one that an earlier run has changed is refused."""
        found = await client.version()
        if found not in FRESH:
            raise EngineFault(
                f"server {client.url} holds weights of version {found} from an earlier run: restart it, or use "
                "engine.transport=file, which can give it the model folder's"
            )
        await name_version(client, 0)

    def stage(self, weights: Iterable[tuple[str, Tensor]], *, version: int) -> Staged:
        """Copy the weights on this GPU, so that the learner may change its own."""
        copies = [
            # copy=True: without it, a tensor that is on this device in this precision would be the learner's own.
            (name, value.to(device=f"cuda:{self._device}", dtype=self._dtype, copy=True).contiguous())
            for name, value in complete(weights, self._expected)
        ]
        return Staged(version=version, content=copies)

    async def deliver(self, client: ServerClient, staged: Staged) -> str | None:
        """Send the copies to a server, one server at a time."""
        async with self._one_at_a_time:
            # The server's GPUs: all of them join the NCCL group that the sender opens.
            world = (await client.get("/get_world_size", timeout_s=60.0))["world_size"]
            await asyncio.to_thread(self._send, client.url, int(world), staged.content)
        await name_version(client, staged.version)
        return None

    def settle(self, version: int) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """End the senders."""
        for trainer in self._trainers.values():
            trainer.shutdown()
        self._trainers.clear()

    def _send(self, url: str, world: int, tensors: list[tuple[str, Tensor]]) -> None:
        """vLLM's round trip: start, handles or broadcast, finish. Blocks this thread."""
        import torch

        torch.cuda.set_device(self._device)  # the device is a thread's own
        if url not in self._trainers:
            self._trainers[url] = self._handshake(url, world)
        trainer = self._trainers[url]
        trainer.source = weight_source(tensors)
        try:
            trainer.send_weights()
        finally:
            trainer.source = weight_source([])  # lets go of the copies

    def _handshake(self, url: str, world: int) -> Any:
        from vllm.distributed.weight_transfer.clients import HTTPVLLMWeightSyncClient
        from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
        from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        info: Any = IPCTrainerInitInfo(rank=0, packed=True)
        if self._backend == "nccl":
            # This sender is NCCL rank 0, the server's workers are the ranks behind it.
            info = NCCLTrainerInitInfo(
                rank=0, master_address=address_towards(url), master_port=free_port(), world_size=1 + world
            )
        client = HTTPVLLMWeightSyncClient(url, timeout=UPDATE_S)
        # An empty source: the real one is set for the time of a send only, so that no copies outlive it.
        return WeightTransferTrainerFactory.trainer_init(info, client=client, source=weight_source([]))


def weight_source(tensors: list[tuple[str, Tensor]]) -> Any:
    """Tensors that are all there already, in the shape vLLM reads a trainer's weights in."""
    from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource

    class Listed(WeightSource):  # the base class is vLLM's, which is imported only where it is used
        def metadata(self) -> list[Any]:
            return [ParamMeta(name, value.dtype, tuple(value.shape)) for name, value in tensors]

        def __iter__(self) -> Iterator[tuple[str, Tensor]]:
            return iter(tensors)

    return Listed()


def address_towards(url: str) -> str:
    """This machine's address as the server at `url` sees it. Sends nothing."""
    host = urlsplit(url).hostname or "127.0.0.1"
    # The port does not matter: connecting a UDP socket only has the kernel choose the route and its local address.
    family, _, _, _, target = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(target)
        return str(probe.getsockname()[0])
