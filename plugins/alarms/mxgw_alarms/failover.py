"""Decides which provider reports, by counting failures and successful probes. The monitor acts on the decision."""

from __future__ import annotations

from typing import Literal

from mxgw.v1 import alarms_pb2 as pb

PRIMARY, FALLBACK, NONE = pb.ALARM_PROVIDER_PRIMARY, pb.ALARM_PROVIDER_FALLBACK, pb.ALARM_PROVIDER_NONE

Mode = Literal["automatic", "primary", "fallback"]


class Failover:
    """Decides between the primary and the fallback provider. The primary is the first, except in mode `fallback`.

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
        """Whether the monitor should probe the primary provider from time to time."""
        return self._mode == "automatic" and self.active == FALLBACK

    @property
    def failures(self) -> int:
        """How many times in a row the primary provider failed."""
        return self._failures

    def worked(self) -> None:
        """Forget the counted failures of the primary provider, because it answered."""
        self._failures = 0

    def failed(self, *, for_good: bool = False) -> bool:
        """Count a failure of the primary provider; return True when the fallback takes over now.

        `for_good` says that the primary can never answer, so that one failure is enough.
        """
        self._failures += 1
        if self._mode != "automatic" or self.active != PRIMARY:
            return False
        if not for_good and self._failures < self._failures_before_switch:
            return False
        self.active, self._failures, self._clean = FALLBACK, 0, 0
        return True

    def probed(self, *, clean: bool) -> bool:
        """Count a probe of the primary provider (`clean`: it succeeded); return True when the primary reports again."""
        self._clean = self._clean + 1 if clean else 0
        if not self.probes or self._clean < self._probes_before_return:
            return False
        self.active, self._failures, self._clean = PRIMARY, 0, 0
        return True
