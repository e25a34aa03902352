"""Keeps the changes of the backend's alarms in one numbered list, from which the gateway requests the new changes.

When an alarm manager does not report changes by itself (docs/reference/mxaccess.md#alarms), the worker fetches the list
of alarms at each poll of the gateway, and compares the list with the previous one. An alarm manager that reports
changes by itself adds them to the same numbered list. In a poll the gateway requests the changes after a revision,
which is the number of a change.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence

from mxgw.v1.alarms_pb2 import ALARM_STATE_ACK_RTN, Alarm
from mxgw.worker.v1.worker_pb2 import (
    AcknowledgeAlarms,
    AlarmAcknowledged,
    AlarmReport,
    AlarmsAcknowledged,
    CommandReply,
    PollAlarms,
)
from mxgw_worker.backends.base import E_NOTIMPL, AlarmAck, AlarmPublisher, AlarmSource, MxError
from mxgw_worker.calls import Call, CallFailed
from mxgw_worker.ipc.page_tokens import PAGE_SHARE, page_token, place_of
from mxgw_worker.methods import Methods
from mxgw_worker.paging import parse_page_token

# The number of changes that are kept. A gateway that is further behind gets all active alarms instead of changes.
KEPT_CHANGES = 20_000
# How long a poll waits for the first list of an alarm manager that reports by itself.
_FIRST_S = 2.0


class AlarmWatch:
    """The alarms of one backend. Before the gateway's first poll, nothing is requested from the backend."""

    def __init__(self, *, methods: Methods, maximum_frame_bytes: int) -> None:
        self._methods = methods
        self._page_bytes = int(maximum_frame_bytes * PAGE_SHARE)
        self._alarms: dict[str, Alarm] = {}
        # The kept changes, with the revisions `_revision - len(_changes) + 1` to `_revision`.
        self._changes: deque[Alarm] = deque(maxlen=KEPT_CHANGES)
        self._revision = 1
        # The report whose pages the gateway fetches at the moment, and the alarms of this report. `_reports` counts the
        # reports. The number of the report is in each of its page tokens.
        self._paged: tuple[AlarmReport, Sequence[Alarm]] = (AlarmReport(), ())
        self._reports = 0
        self._is_following = False
        # True once a first list of alarms has come from the backend. Until then `_alarms` is not complete.
        self._is_shown = False
        self._away = ""
        # Every report of the alarm manager sets this, so that a waiting poll goes on.
        self._news = asyncio.Event()

    async def poll(self, call: Call, query: PollAlarms) -> CommandReply:
        """Return the changes after a revision, or all active alarms when these changes are not kept any more.

        The answer is a report. A query with a page token gets the next page of the report that the poll before began.

        Raises:
            CallFailed: ALARMS_NOT_SUPPORTED, ALARMS_UNAVAILABLE or BAD_PAGE_TOKEN.
        """
        if query.page_token:
            return self._page(query.page_token)
        source = self._source()
        try:
            if isinstance(source, AlarmPublisher):
                await self._follow(source, query)
            else:
                async with self._methods.turn(call):
                    alarms = await source.active_alarms()
                self.refreshed(alarms)
        except MxError as error:
            raise _failed(error) from error
        kept = self._revision - len(self._changes)
        is_complete = not kept <= query.after_revision <= self._revision
        if is_complete:
            alarms = tuple(self._alarms.values())
        else:
            skipped = query.after_revision - kept
            alarms = tuple(alarm for index, alarm in enumerate(self._changes) if index >= skipped)
        self._reports += 1
        head = AlarmReport(
            revision=self._revision, complete=is_complete, event_driven=isinstance(source, AlarmPublisher)
        )
        self._paged = head, alarms
        return self._page_from(0)

    async def acknowledge(self, call: Call, request: AcknowledgeAlarms) -> CommandReply:
        """Acknowledge alarms. The reply has one result per alarm.

        Raises:
            CallFailed: ALARMS_NOT_SUPPORTED or ALARMS_UNAVAILABLE.
        """
        source = self._source()
        try:
            async with self._methods.turn(call):
                answers = await source.acknowledge_alarms(request.alarm_ids, request.comment, request.operator)
        except MxError as error:
            raise _failed(error) from error
        return CommandReply(acknowledged=AlarmsAcknowledged(results=map(_message_of, answers)))

    def _source(self) -> AlarmSource:
        backend = self._methods.backend
        if not isinstance(backend, AlarmSource):
            raise CallFailed(
                "ALARMS_NOT_SUPPORTED", f"the backend {self._methods.backend.info().kind} has no alarm manager"
            )
        return backend

    # Methods that make the pages of a report.

    def _page(self, token: str) -> CommandReply:
        name = f"alarms\0{self._reports}"
        if place_of(token, name) is None:
            raise CallFailed("BAD_PAGE_TOKEN", "the token is of an earlier report; poll anew")
        return self._page_from(parse_page_token(token, name)[0])

    def _page_from(self, start: int) -> CommandReply:
        head, alarms = self._paged
        page: list[Alarm] = []
        size = 0
        for alarm in alarms[start:]:
            size += alarm.ByteSize() + 8
            if page and size > self._page_bytes:
                break
            page.append(alarm)
        end = start + len(page)
        report = AlarmReport(
            revision=head.revision, complete=head.complete, event_driven=head.event_driven, alarms=page
        )
        if end < len(alarms):
            report.next_page_token = page_token(end, 0, f"alarms\0{self._reports}")
        else:
            self._paged = AlarmReport(), ()
        return CommandReply(alarms=report)

    # The methods of `AlarmListener`, and methods that wait until the alarm manager calls one of them.

    async def _follow(self, source: AlarmPublisher, query: PollAlarms) -> None:
        if not self._is_following:
            self._is_following = True
            try:
                await source.follow_alarms(self)
            except BaseException:
                self._is_following = False
                raise
        if not self._is_shown and not self._away:
            await self._wait_for_news(_FIRST_S)
        elif query.after_revision == self._revision and not self._away:
            await self._wait_for_news(query.wait_ms / 1000)
        if self._away or not self._is_shown:
            raise CallFailed("ALARMS_UNAVAILABLE", self._away or "the alarm manager has not shown its alarms yet")

    async def _wait_for_news(self, seconds: float) -> None:
        self._news.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass

    def changed(self, alarm: Alarm) -> None:
        """Put the new state of an alarm into the list of changes; see `AlarmListener.changed`."""
        known = self._alarms.get(alarm.alarm_id)
        if known is alarm or known == alarm:
            return
        if alarm.state == ALARM_STATE_ACK_RTN:
            if self._alarms.pop(alarm.alarm_id, None) is None:
                return
        else:
            self._alarms[alarm.alarm_id] = alarm
        self._note(alarm)

    def refreshed(self, alarms: Sequence[Alarm]) -> None:
        """Put all differences from these active alarms into the list of changes; see `AlarmListener.refreshed`. A known
        alarm that is not in `alarms` has ended.
        """
        self._away, self._is_shown = "", True
        listed = {alarm.alarm_id: alarm for alarm in alarms}
        for alarm in _missing(self._alarms, listed):
            over = Alarm()
            over.CopyFrom(alarm)
            over.state, over.native_state, over.inferred = ALARM_STATE_ACK_RTN, "", True
            del self._alarms[alarm.alarm_id]
            self._note(over)
        for alarm in listed.values():
            self.changed(alarm)
        self._news.set()

    def failed(self, detail: str) -> None:
        """Make polls fail until the alarm manager is available again; see `AlarmListener.failed`."""
        self._away = detail or "the alarm manager is away"
        self._news.set()

    def _note(self, alarm: Alarm) -> None:
        self._changes.append(alarm)
        self._revision += 1
        self._news.set()


def _failed(error: MxError) -> CallFailed:
    return CallFailed("ALARMS_NOT_SUPPORTED" if error.hresult == E_NOTIMPL else "ALARMS_UNAVAILABLE", error.message)


def _missing(known: dict[str, Alarm], listed: dict[str, Alarm]) -> Iterable[Alarm]:
    return [alarm for alarm_id, alarm in known.items() if alarm_id not in listed]


def _message_of(ack: AlarmAck) -> AlarmAcknowledged:
    return AlarmAcknowledged(hresult=ack.hresult, message=ack.message, detail=ack.detail)
