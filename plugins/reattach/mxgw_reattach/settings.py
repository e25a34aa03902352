"""The settings of `[plugins.reattach]`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

# The expected time of a restart: starting the new gateway process, importing its modules and opening its sockets, until
# workers can connect to it.
EXPECTED_RESTART_S = 5.0


class ReattachSettings(BaseModel):
    """How long workers wait for a new gateway, and how long a restarted gateway waits for its workers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_orphan_lifetime_seconds: float = Field(
        120.0, ge=1, le=86_400, description="How long a worker outlives its gateway; then it leaves by itself."
    )
    adopt_within_seconds: float = Field(
        10.0,
        gt=0,
        le=600,
        description="How long a restarted gateway waits for a worker to come back before it ends that worker.",
    )
    check_environment: bool = Field(
        True, description="Warn at start when systemd or a container would end the workers with the gateway."
    )

    @model_validator(mode="after")
    def _workers_live_until_they_can_be_adopted(self) -> ReattachSettings:
        needed_s = self.adopt_within_seconds + EXPECTED_RESTART_S
        if self.max_orphan_lifetime_seconds < needed_s:
            raise ValueError(
                f"max_orphan_lifetime_seconds is {self.max_orphan_lifetime_seconds:g}, less than adopt_within_seconds "
                f"and {EXPECTED_RESTART_S:g} s for a restart: workers would leave before the next gateway can take "
                f"them back; raise it to {needed_s:g}, or lower adopt_within_seconds"
            )
        return self
