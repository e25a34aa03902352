"""The primary provider: polls the backend's own alarm manager.

An alarm manager that is able to wait for changes answers a poll only after a change, or after `_WAIT_S`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mxgw.v1.alarms_pb2 import Alarm
from mxgw_alarms.providers import Outcome, Reporter, outcome_of
from mxgw_alarms.settings import AlarmsSettings
from mxgw_core.api import InternalSession, SessionState
from mxgw_core.api.errors import CommandFailed, GatewayError

# In one poll, an alarm manager that is able to wait waits at most this long for a change.
_WAIT_S = 10.0
_NOT_SUPPORTED = "ALARMS_NOT_SUPPORTED"


class ManagerProvider:
    """Implements `Provider` with the alarm manager of the session's backend."""

    def __init__(self, session: InternalSession, settings: AlarmsSettings) -> None:
        self._session = session
        self._settings = settings
        self._revision = 0
        self._waits = False

    async def run(self, reporter: Reporter) -> None:
        self._revision = failures = 0
        while True:
            try:
                report = await self._session.poll_alarms(
                    self._revision, _WAIT_S if self._waits else 0.0, self._settings.answer_timeout_s
                )
            except GatewayError as error:
                if self._session.info().state is not SessionState.READY:
                    await self._session.wait_closed()
                    return
                if reporter.failed(error.message, for_good=_is_for_good(error)):
                    return
                failures += 1
                if failures >= self._settings.failures_before_switch:
                    self._revision = 0  # the monitor has marked all alarms as stale, so all must be reported again
            else:
                failures = 0
                reporter.works()
                if report.is_complete:
                    reporter.everything(report.alarms, None)
                elif report.alarms:
                    reporter.changed(report.alarms)
                self._revision, self._waits = report.revision, report.is_event_driven
                if self._waits:
                    continue
            await asyncio.sleep(self._settings.poll_interval_s)

    async def probe(self) -> None:
        """Poll the alarm manager once, only to see whether it answers; the alarms in its answer are ignored.

        Raises:
            GatewayError: the alarm manager does not answer.
        """
        report = await self._session.poll_alarms(self._revision, 0.0, self._settings.answer_timeout_s)
        self._revision = report.revision

    async def acknowledge(self, alarms: Sequence[Alarm], comment: str, operator: str) -> Sequence[Outcome]:
        answers = await self._session.acknowledge_alarms(
            [alarm.alarm_id for alarm in alarms], comment, operator, self._settings.answer_timeout_s
        )
        return [outcome_of(answer.hresult, answer.message, answer.detail) for answer in answers]


def _is_for_good(error: GatewayError) -> bool:
    return isinstance(error, CommandFailed) and error.metadata.get("worker_reason") == _NOT_SUPPORTED
