"""Where the processes of one machine meet: an address that only this machine reaches.

torchrun's own meeting point listens on all interfaces, without a password, whatever address it is given; whoever
reaches it can make the processes do as they like. accelerate and torchrun find this one by the entry point
`torchrun.handlers` and the name `rollwright_loopback` (`rdzv_backend` in accelerate_configs/cpu_zero*.yaml).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousParameters

NAME = "rollwright_loopback"
ADDRESS = "127.0.0.1"
_TIMEOUT_S = 600.0


def handlers() -> Callable[[RendezvousParameters], RendezvousHandler]:
    """What torchrun asks the entry point for: the function that makes the meeting point of one launch."""
    return meeting_point


def meeting_point(params: RendezvousParameters) -> RendezvousHandler:
    """The meeting point of a launch on this machine alone.

    Raises:
        ValueError: the launch is of several machines, which do not reach each other's loopback.
    """
    # Imported here: the room `config` loads without torch, and only a launcher calls this.
    from torch.distributed import PrefixStore
    from torch.distributed.elastic.rendezvous import RendezvousInfo, RendezvousStoreInfo
    from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

    if params.max_nodes != 1:
        raise ValueError(
            f"rdzv_backend rollwright_loopback is for one machine, the launch is of {params.max_nodes}: leave it out, "
            "and let only the run's machines reach the port (accelerate_configs/multi_node_zero3.yaml)"
        )

    class Loopback(StaticTCPRendezvous):
        """The store that processes meet at, and its address for them."""

        def get_backend(self) -> str:
            return NAME

        def next_rendezvous(self) -> RendezvousInfo:
            # torchrun asks again when it restarts the workers: one store serves the whole launch.
            self._store = self._store or store_here(timeout_s=_TIMEOUT_S)
            where = RendezvousStoreInfo(ADDRESS, getattr(self._store, "port"))  # noqa: B009
            # Rank 0 of 1 counts launchers, one per machine, not the processes that they start.
            return RendezvousInfo(PrefixStore(self.run_id, self._store), 0, 1, where)

    return Loopback(ADDRESS, 0, 0, 1, params.run_id, int(_TIMEOUT_S))


def store_here(*, timeout_s: float) -> Any:
    """A `torch.distributed.TCPStore` that listens on loopback, on a port that was free."""
    from torch.distributed import TCPStore

    with socket.socket() as listener:
        # A store that opens a socket itself listens on all interfaces, so it is given one that is bound already.
        listener.bind((ADDRESS, 0))
        listener.listen(1024)
        port = int(listener.getsockname()[1])
        return TCPStore(
            ADDRESS,
            port,
            is_master=True,
            timeout=timedelta(seconds=timeout_s),
            # The launcher makes the store before it starts the workers that will connect.
            wait_for_workers=False,
            multi_tenant=False,
            # The store closes it; without `detach` the `with` would close it under the store.
            master_listen_fd=listener.detach(),
        )


def own_interface(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Variables that keep what the ranks of one machine say to each other on loopback; none for several machines."""
    started, here = environment.get("WORLD_SIZE", "1"), environment.get("LOCAL_WORLD_SIZE", "1")
    # Different numbers mean several machines, which have to use an interface that the others reach.
    if started == "1" or started != here:
        return {}
    # Linux calls the loopback lo, macOS lo0.
    name = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    return {} if name is None or os.name == "nt" else {"GLOO_SOCKET_IFNAME": name}
