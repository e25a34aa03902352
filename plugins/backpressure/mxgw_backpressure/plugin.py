"""The hooks of the plugin: they return the limits of subscribers, and the overflow policy of each subscriber."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mxgw_backpressure.policies import (
    BlockPolicy,
    ConflatePolicy,
    DisconnectPolicy,
    DropNewestPolicy,
    DropOldestPolicy,
    FailSessionPolicy,
    Grace,
    PacedGrace,
    ResyncPolicy,
    SamplePolicy,
)
from mxgw_backpressure.settings import BackpressureSettings
from mxgw_core.api import (
    OverflowPolicy,
    PacedPolicy,
    PolicyRequest,
    QueueLimits,
    SessionInfo,
    SettingsSection,
    SubscriberLimits,
    hookimpl,
)
from mxgw_core.api.errors import InvalidRequest

POLICIES = ("disconnect", "fail_session", "drop_oldest", "drop_newest", "conflate", "sample", "resync", "block")
SECTION = "plugins.backpressure"
_INTERVAL = "interval_ms"
_SHORTEST_INTERVAL_MS, _LONGEST_INTERVAL_MS = 10, 3_600_000


class BackpressurePlugin:
    """Returns one of the overflow policies in `POLICIES`; any other policy name is left to other plugins."""

    def __init__(self) -> None:
        self._settings = BackpressureSettings()

    @hookimpl
    def mxgw_settings(self) -> SettingsSection[BackpressureSettings]:
        return SettingsSection("backpressure", BackpressureSettings, self._configure)

    def _configure(self, settings: BackpressureSettings) -> None:
        self._settings = settings

    @hookimpl
    def mxgw_subscriber_limits(self, session: SessionInfo | None) -> SubscriberLimits:
        del session
        s = self._settings
        queue = QueueLimits(s.queue_events, s.queue_bytes, s.queue_seconds, SECTION)
        allows_more = "maximum_subscribers" if s.multiple_subscribers else "multiple_subscribers"
        return SubscriberLimits(s.subscriber_limit, queue, setting=f"{SECTION}.{allows_more}")

    @hookimpl
    def mxgw_overflow_policy(self, request: PolicyRequest) -> OverflowPolicy | None:
        settings = self._settings
        name = request.name or settings.policy
        if name not in POLICIES:
            return None
        if request.name and request.name not in settings.client_policies:
            allowed = ", ".join(settings.client_policies)
            raise InvalidRequest(
                f"this gateway does not let clients ask for the policy {name!r}: ask for one of {allowed}, or have "
                f"{SECTION}.client_policies changed",
                metadata={"field": "policy.name", "allowed": allowed},
            )
        return self._patient(self._policy(name, request.parameters))

    def _policy(self, name: str, parameters: Mapping[str, str]) -> OverflowPolicy:
        known = {_INTERVAL} if name == "sample" else set()
        if unknown := sorted(parameters.keys() - known):
            raise InvalidRequest(
                f"the policy {name!r} has no parameter {unknown[0]!r}"
                + (f"; it has {', '.join(sorted(known))}" if known else ""),
                metadata={"field": "policy.parameters"},
            )
        match name:
            case "fail_session":
                return FailSessionPolicy()
            case "drop_oldest":
                return DropOldestPolicy()
            case "drop_newest":
                return DropNewestPolicy(self._settings.low_water_percent)
            case "conflate":
                return ConflatePolicy()
            case "sample":
                return SamplePolicy(self._interval_s(parameters))
            case "resync":
                return ResyncPolicy()
            case "block":
                return BlockPolicy(self._settings.block_timeout_s)
            case _:
                return DisconnectPolicy()

    def _interval_s(self, parameters: Mapping[str, str]) -> float:
        if _INTERVAL not in parameters:
            return self._settings.sample_interval_s
        try:
            interval_ms = float(parameters[_INTERVAL])
        except ValueError:
            interval_ms = math.nan
        if not _SHORTEST_INTERVAL_MS <= interval_ms <= _LONGEST_INTERVAL_MS:
            raise InvalidRequest(
                f"{_INTERVAL} must be a number from {_SHORTEST_INTERVAL_MS} to {_LONGEST_INTERVAL_MS}",
                metadata={"field": f"policy.parameters.{_INTERVAL}"},
            )
        return interval_ms / 1000

    def _patient(self, policy: OverflowPolicy) -> OverflowPolicy:
        grace = self._settings.grace
        if not grace.seconds:
            return policy
        hard = QueueLimits(grace.hard_events, grace.hard_bytes, 0.0)
        kind = PacedGrace if isinstance(policy, PacedPolicy) else Grace
        return kind(policy, hard, grace.seconds)
