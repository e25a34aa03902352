"""Which provider reports: counts failures and successful probes, and decides. It does no work of its own."""

from __future__ import annotations

from typing import Literal

from mxgw.v1 import alarms_pb2 as pb

PRIMARY, FALLBACK, NONE = pb.ALARM_PROVIDER_PRIMARY, pb.ALARM_PROVIDER_FALLBACK, pb.ALARM_PROVIDER_NONE

Mode = Literal["automatic", "primary", "fallback"]


class Failover:
    """Begins with the primary provider, unless the fallback is forced.

    Source: docs/reference/mxaccess.md#alarm-failover.
    """

    def __init__(self, mode: Mode, failures_before_switch: int, probes_before_return: int) -> None:
        self._mode = mode
        self._failures_before_switch = failures_before_switch
        self._probes_before_return = probes_before_return
        self._failures = 0
        self._clean = 0
        self.active: pb.AlarmProvider.ValueType = FALLBACK if mode == "fallback" else PRIMARY

    @property
    def probes(self) -> bool:
        """Whether the primary is to be probed now and then."""
        return self._mode == "automatic" and self.active == FALLBACK

    @property
    def failures(self) -> int:
        """How often in a row the primary failed."""
        return self._failures

    def worked(self) -> None:
        """Note that the primary answered."""
        self._failures = 0

    def failed(self, *, for_good: bool = False) -> bool:
        """Count a failure of the primary (`for_good`: it can never answer); return whether the fallback takes over."""
        self._failures += 1
        if self._mode != "automatic" or self.active != PRIMARY:
            return False
        if not for_good and self._failures < self._failures_before_switch:
            return False
        self.active, self._failures, self._clean = FALLBACK, 0, 0
        return True

    def probed(self, *, clean: bool) -> bool:
        """Count a probe of the primary; return whether the primary reports again."""
        self._clean = self._clean + 1 if clean else 0
        if not self.probes or self._clean < self._probes_before_return:
            return False
        self.active, self._failures, self._clean = PRIMARY, 0, 0
        return True
