"""The settings of `[plugins.alarms]`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MIB = 1024 * 1024

_Text = Annotated[str, Field(min_length=1, max_length=1024)]


class AlarmsSettings(BaseModel):
    """The backend whose alarms are kept, the provider that reports them, and how much is kept for clients."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    backend: str = Field("", description="Backend whose alarms are monitored, by its name; empty for the default one.")
    mode: Literal["automatic", "primary", "fallback"] = Field(
        "automatic",
        description="`primary`: the backend's alarm manager only; `fallback`: sub-attributes only; `automatic`: both.",
    )
    poll_interval_s: float = Field(
        0.5, ge=0.05, le=60, description="How often an alarm manager that does not report by itself is asked."
    )
    answer_timeout_s: float = Field(
        5.0, ge=0.1, le=120, description="An alarm manager that takes longer than this has failed once."
    )
    failures_before_switch: int = Field(
        3, ge=1, le=100, description="Failures in a row after which the fallback takes over."
    )
    probe_interval_s: float = Field(
        30.0, ge=0.1, le=3600, description="How often the alarm manager is tried while the fallback reports."
    )
    probes_before_return: int = Field(
        3, ge=1, le=100, description="Probes without a failure, in a row, after which the alarm manager reports again."
    )
    references: tuple[_Text, ...] = Field(
        (), description="Alarms the fallback watches, by reference, besides those that were seen or found."
    )
    discover: bool = Field(
        True, description="Look for alarms in the backend's address space, where it can be browsed, for the fallback."
    )
    discover_below: str = Field("", description="Only below this node of the address space; empty for all of it.")
    in_alarm: _Text = Field("InAlarm", description="Sub-attribute that is true in alarm.")
    acknowledged: _Text = Field("Acked", description="Sub-attribute that is true once acknowledged.")
    priority: str = Field("Priority", description="Sub-attribute with the priority; empty when there is none.")
    acknowledge: _Text = Field("AckMsg", description="Sub-attribute that acknowledges when a comment is written to it.")
    settle_s: float = Field(
        0.2, ge=0, le=10, description="Changes of one alarm's sub-attributes within this time count as one."
    )
    maximum_alarms: int = Field(
        50_000,
        ge=1,
        le=1_000_000,
        description="Different alarms that are kept; further ones are left out, with a warning.",
    )
    maximum_subscribers: int = Field(64, ge=1, le=10_000, description="Clients that may follow alarms at once.")
    queue_events: int = Field(20_000, ge=0, le=10**9, description="Events a client may be behind; 0 is no such limit.")
    queue_bytes: int = Field(16 * MIB, gt=0, le=2**50, description="Bytes a client may be behind. Always bounded.")
    queue_seconds: float = Field(
        0.0, ge=0, le=86_400, description="Age of the oldest unread event; 0 is no such limit."
    )
    events: int = Field(40_000, ge=0, le=10**9, description="Events kept for clients that come back.")
    bytes: int = Field(32 * MIB, ge=0, le=2**50, description="The same limit in bytes.")
    seconds: float = Field(
        0.0, ge=0, le=86_400, description="Events older than this are forgotten; 0 is no such limit."
    )
    restart_first_s: float = Field(
        1.0,
        ge=0.05,
        le=60,
        description="Pause before the monitor's session is opened again; doubles up to the longest.",
    )
    restart_longest_s: float = Field(30.0, ge=0.05, le=3600, description="The longest such pause.")
