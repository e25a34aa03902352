"""The settings of `[plugins.replay]`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MIB = 1024 * 1024
_NOT_ENDED = (
    "nothing is ended within its grace any more, remove it; limits.sessions_per_owner says how many sessions one owner "
    "may open"
)
FORMER = {"maximum_detached": _NOT_ENDED, "maximum_detached_per_owner": _NOT_ENDED}


class ReplaySettings(BaseModel):
    """The events that are kept for clients that come back, and how long a session waits for such clients."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # At least twice the queue of a subscriber is needed (docs/reference/streams.md#retention). The original gateway
    # kept 1,024 events beside queues of 10,000 events, so a reader that was disconnected for overflow could never
    # resume without a gap.
    events: int = Field(
        20_000,
        ge=1_024,
        le=10**9,
        description="Events kept per session after delivery; at least twice a subscriber's queue.",
    )
    bytes: int = Field(
        16 * MIB, ge=MIB, le=2**50, description="The same limit in bytes; at least twice a subscriber's queue."
    )
    seconds: float = Field(
        300.0,
        ge=0,
        le=86_400,
        description="Events older than this are forgotten (monotonic clock), an eighth later at most, also while no "
        "others come; 0 is no such limit.",
    )
    detach_grace_seconds: float | Literal["none"] = Field(
        30.0,
        description="How long a session outlives its last subscriber; 0: not at all, `none`: as its lease says.",
    )
    snapshots: bool = Field(
        True, description="Serve SNAPSHOT_THEN_LIVE and on_gap = SNAPSHOT: the last value of every advised item."
    )
    horizon_check_s: float = Field(
        10.0, ge=0.1, le=3600, description="How often the reach of the log is compared with the detach grace."
    )

    @model_validator(mode="after")
    def _grace_is_no_negative_time(self) -> ReplaySettings:
        if self.detach_grace_seconds != "none" and not 0 <= self.detach_grace_seconds <= 86_400:
            raise ValueError('detach_grace_seconds must lie between 0 and 86400, or be "none"')
        return self
