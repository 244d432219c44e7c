"""The sections `world` and `reward`: where episodes are played, and who scores them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from rollwright.config import Config, Readers


class WorldSettings(Config):
    """The world to act in."""

    name: str = Field(description="Module of rollwright.envs, such as `web.miniwob`, or `package.module:Attribute`.")
    options: dict[str, Any] = Field({}, description="Arguments of the world's `build`.")
    placement: Literal["local", "ray"] = Field(
        "local", description="Where environments are played: in this process, or in Ray actors on any node."
    )
    ray_address: str = Field("", description="ray: a running cluster, or auto; empty starts one on this machine.")
    ray_cpus: float = Field(1.0, ge=0, description="ray: CPUs that one environment takes of its node.")

    only_for: ClassVar[Readers] = {name: {"placement": ("ray",)} for name in ("ray_address", "ray_cpus")}


class RewardSettings(Config):
    """Who scores the episodes."""

    name: str = Field("env", description="Module of rollwright.rewards or `package.module:Attribute`.")
    options: dict[str, Any] = Field({}, description="Arguments of the reward's `build`.")

    def require_outcomes(self) -> None:
        """Raises ValueError for a model's shares and scores: they lie above 0 for most failures too."""
        if self.name in ("outcome_model", "judge") and self.options.get("value", "verdict") != "verdict":
            raise ValueError(
                f"`reward.options.value={self.options['value']}` gives most failures a return above 0, and with "
                "`algorithm.outcome=reward` that is a success: use verdict"
            )
