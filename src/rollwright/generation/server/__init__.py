"""Generation by vLLM servers: start, supervise, ask, and give them new weights."""

from rollwright.generation.server.make_servers import ServerSetup

__all__ = [
    "ServerSetup",
]
