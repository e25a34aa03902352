"""The settings of `[plugins.dashboard_tui]`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class DashboardSettings(BaseModel):
    """How much the dashboard's service sends and keeps, and the role of local callers when no plugin has operators."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    local_role: Literal["none", "viewer", "administrator"] = Field(
        "viewer",
        description="Where no plugin knows operators: what callers on this machine may do. Others are always refused.",
    )
    maximum_watchers: int = Field(
        16, ge=1, le=1000, description="Dashboards that may watch at once, and as many the audit log."
    )
    event_interval_s: float = Field(
        0.5, ge=0.05, le=60, description="A watched session shows each item at most once in this many seconds."
    )
    journal_entries: int = Field(1000, ge=10, le=100_000, description="How much of what happened is kept.")
