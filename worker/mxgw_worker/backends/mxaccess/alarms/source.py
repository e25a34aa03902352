"""`ConsumerAlarms` asks the alarm manager, in an apartment of its own: when its COM object hangs, MXAccess does not."""

from __future__ import annotations

import asyncio
import logging
import platform
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from mxgw.v1.alarms_pb2 import ALARM_STATE_ACK_ALM, ALARM_STATE_ACK_RTN, Alarm
from mxgw.v1.events_pb2 import SOURCE_HEALTH_DEGRADED, SOURCE_HEALTH_GOOD
from mxgw_worker.backends.base import E_FAIL, E_INVALIDARG, E_NOTIMPL, AlarmAck, MxError
from mxgw_worker.backends.mxaccess.alarms.book import AlarmBook
from mxgw_worker.backends.mxaccess.alarms.consumer import AlarmConsumer, MakeConsumer, Use
from mxgw_worker.backends.mxaccess.alarms.native import NativeAlarm, RecordReader
from mxgw_worker.backends.mxaccess.alarms.options import AlarmOptions
from mxgw_worker.backends.mxaccess.alarms.query import LEAST_SEVERE, MOST_SEVERE, query_xml, subscription
from mxgw_worker.backends.mxaccess.alarms.times import RecordTimes
from mxgw_worker.backends.mxaccess.apartment import Apartment
from mxgw_worker.backends.mxaccess.com import Pump
from mxgw_worker.backends.mxaccess.dates import Dates
from mxgw_worker.backends.mxaccess.health import Health
from mxgw_worker.backends.mxaccess.watch import CallWatch

log = logging.getLogger(__name__)

T = TypeVar("T")

_PRODUCT, _APPLICATION, _VERSION = "mxgw", "mxgw worker", "1"
# Each hung object leaves a thread behind, so not more than so many are given up.
_MOST_HUNG = 3
_STOP_S = 3.0
_ACKED_ALREADY = 1015  # Source: docs/reference/mxaccess.md#status-details
_OBSERVER = "alarms"
_SUBJECT = "the alarm manager"


class ConsumerAlarms:
    """Implements the methods of `AlarmSource`. Nothing is made before the first call."""

    def __init__(
        self,
        options: AlarmOptions,
        dates: Dates,
        make: MakeConsumer,
        make_pump: Callable[[], Pump],
        health: Health,
        *,
        slow_call_s: float,
        call_limit_s: float,
    ) -> None:
        """A call that takes longer than `slow_call_s` is reported; after `call_limit_s` its object is given up, and
        another one is made.
        """
        self._options = options
        self._dates = dates
        self._make = make
        self._make_pump = make_pump
        self._health = health
        self._slow_call_s = slow_call_s
        self._call_limit_s = call_limit_s
        self._line: _Line | None = None
        self._watch: CallWatch | None = None
        self._hung = 0
        self._is_closed = False
        self._trouble = ""

    async def active_alarms(self) -> Sequence[Alarm]:
        """See `AlarmSource.active_alarms`.

        Raises:
            MxError: the alarm manager does not answer. E_NOTIMPL: there is none.
        """
        try:
            listed = await self._ready().poll(self._options.answer_s)
        except MxError as error:
            self._fails(error)
            raise
        self._works()
        return listed

    async def acknowledge_alarms(self, alarm_ids: Sequence[str], comment: str, operator: str) -> Sequence[AlarmAck]:
        """See `AlarmSource.acknowledge_alarms`.

        Raises:
            MxError: the alarm manager does not answer, and no alarm was acknowledged. E_NOTIMPL: there is none.
        """
        return await self._ready().acknowledge(alarm_ids, comment, operator, self._options.answer_s)

    async def stop(self) -> None:
        """Release the objects. It takes a bounded time, and never raises."""
        self._is_closed = True
        line, self._line = self._line, None
        if self._watch is not None:
            self._watch.close()
        if line is None:
            return
        line.leave()
        try:
            async with asyncio.timeout(_STOP_S):
                await line.apartment.end()
        except TimeoutError:
            log.warning("%s was not released, because a call of it has not returned", _SUBJECT)

    def _ready(self) -> _Line:
        if self._is_closed:
            raise MxError(E_FAIL, "the backend is not running")
        if not self._options.areas:
            raise MxError(
                E_NOTIMPL,
                "the backend does not ask the alarm manager, because its option alarm_areas names no areas",
            )
        if self._hung >= _MOST_HUNG:
            raise MxError(
                E_FAIL, f"{_SUBJECT} has hung {self._hung} times in this session, which asks it no more; open a new one"
            )
        if self._line is not None and self._line.is_dead and self._watch is not None:
            self._watch.close()
            self._line = None
        if self._line is None:
            line = self._line = _Line(
                self._options, self._dates, self._make, Apartment(self._make_pump(), "alarm manager")
            )
            self._watch = CallWatch(
                line.apartment,
                self._health,
                lambda _detail: self._give_up(line),
                slow_s=self._slow_call_s,
                limit_s=self._call_limit_s,
                subject=_SUBJECT,
                observer=_OBSERVER,
            )
        return self._line

    def _give_up(self, line: _Line) -> None:
        """Leave an object whose call does not return. The next call makes another one in a thread of its own."""
        self._hung += 1
        self._line = self._watch = None
        line.give_up()
        log.error(
            "%s has not returned from a call for %g s; its object is given up (%d of %d)",
            _SUBJECT,
            self._call_limit_s,
            self._hung,
            _MOST_HUNG,
        )
        self._trouble = f"{_SUBJECT} has not returned from a call for {self._call_limit_s:g} s"
        self._health.report(_OBSERVER, SOURCE_HEALTH_DEGRADED, self._trouble)

    def _fails(self, error: MxError) -> None:
        # Where there is no alarm manager nothing is wrong with the source.
        if error.hresult == E_NOTIMPL or self._is_closed:
            return
        if not self._trouble:
            log.warning("alarms cannot be read: %s", error.message)
        if error.message != self._trouble:
            self._health.report(_OBSERVER, SOURCE_HEALTH_DEGRADED, f"alarms cannot be read: {error.message}")
        self._trouble = error.message

    def _works(self) -> None:
        if self._trouble:
            log.info("alarms can be read again")
            self._health.report(_OBSERVER, SOURCE_HEALTH_GOOD, "alarms can be read again")
        self._trouble = ""


class _Line:
    """One apartment with a consumer that reads and one that acknowledges."""

    def __init__(self, options: AlarmOptions, dates: Dates, make: MakeConsumer, apartment: Apartment) -> None:
        self.apartment = apartment
        self._options = options
        self._dates = dates
        self._make = make
        # True when its thread cannot be an apartment.
        self.is_dead = False
        # The poll that runs, which all who ask meanwhile wait for, and when it began.
        self._polling: asyncio.Future[Sequence[Alarm]] | None = None
        self._began = 0.0
        # Completed when the object is given up, so that nobody waits for it any more.
        self._given_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Of the apartment.
        self._reading: AlarmConsumer | None = None
        self._acknowledging: AlarmConsumer | None = None
        self._book: AlarmBook | None = None
        apartment.begin()

    async def poll(self, answer_s: float) -> Sequence[Alarm]:
        """Return the alarms, or raise MxError, also when there is no answer within `answer_s`."""
        # A poll that nobody waited for until its end is not new enough any more.
        if self._polling is None or self._polling.done():
            self._began = time.perf_counter()
            self._polling = self._call("a poll", self._poll)
        polling = self._polling
        await self._wait_for(polling, self._began + answer_s - time.perf_counter())
        if not polling.done():
            raise MxError(E_FAIL, self._unanswered(answer_s))
        return self._result(polling)

    async def acknowledge(
        self, alarm_ids: Sequence[str], comment: str, operator: str, answer_s: float
    ) -> Sequence[AlarmAck]:
        """Return one result per alarm, or raise MxError when none was acknowledged."""
        task = _Acknowledgements(alarm_ids)
        acknowledging = self._call("an acknowledgement", lambda: self._acknowledge(task, comment, operator))
        await self._wait_for(acknowledging, answer_s)
        if acknowledging.done():
            self._result(acknowledging)
        elif not task.give_up():
            raise MxError(E_FAIL, f"{self._unanswered(answer_s)}; no alarm was acknowledged")
        return task.results()

    async def _wait_for(self, called: asyncio.Future[T], seconds: float) -> None:
        await asyncio.wait((called, self._given_up), timeout=max(seconds, 0.0), return_when=asyncio.FIRST_COMPLETED)

    def _unanswered(self, answer_s: float) -> str:
        if self._given_up.done():
            return f"{_SUBJECT} has not returned from a call; its object was given up"
        return f"{_SUBJECT} has not answered for {answer_s:g} s"

    def give_up(self) -> None:
        """Let nobody wait for the object any more, and let the thread end when its call returns after all."""
        self._given_up.set_result(None)
        self.leave()
        self.apartment.let_end()

    def leave(self) -> None:
        """Release the objects after what was asked of them, and acknowledge nothing any more."""
        self._call("its release", self._release)

    def _call(self, what: str, function: Callable[[], T]) -> asyncio.Future[T]:
        called = self.apartment.call(what, function)
        called.add_done_callback(_forget)
        return called

    def _result(self, done: asyncio.Future[T]) -> T:
        try:
            return done.result()
        except OSError as error:
            self.is_dead = True
            raise MxError(E_FAIL, f"there is no apartment for {_SUBJECT}: {error}") from None

    # In the apartment.

    def _poll(self) -> Sequence[Alarm]:
        if self._reading is None:
            self._reading = self._made(Use.READING)
        if self._book is None:
            times = RecordTimes(self._options.times, self._dates, self._reading.date_of)
            self._book = AlarmBook(self._options, RecordReader(self._options, times))
        try:
            xml = self._reading.current_alarms(self._options.most)
        except MxError:
            # A new object may work where this one no longer does, for example after a restart of the alarm manager.
            reading, self._reading = self._reading, None
            reading.release()
            raise
        return self._book.listed(xml)

    def _made(self, use: Use) -> AlarmConsumer:
        consumer = self._make(use)
        try:
            _note("InitializeConsumer", consumer.initialize(_APPLICATION))
            _note("RegisterConsumer", consumer.register(_PRODUCT, _APPLICATION, _VERSION))
            if use is Use.READING:
                _note("SetXmlAlarmQuery", consumer.set_query(query_xml(self._options)))
            else:
                expression = subscription(self._options, platform.node())
                _note(
                    "Subscribe",
                    consumer.subscribe(expression, MOST_SEVERE, LEAST_SEVERE, self._options.subscribe),
                )
        except MxError:
            consumer.release()
            raise
        return consumer

    def _acknowledge(self, task: _Acknowledgements, comment: str, operator: str) -> None:
        if task.is_given_up:
            return
        # What is acknowledged already is seen in the newest states only.
        self._poll()
        if self._acknowledging is None:
            self._acknowledging = self._made(Use.ACKNOWLEDGING)
        assert self._book is not None
        for alarm_id in task.alarm_ids:
            if not task.begin():
                return
            task.finish(self._acknowledge_one(self._book.native(alarm_id), comment, operator))

    def _acknowledge_one(self, native: NativeAlarm | None, comment: str, operator: str) -> AlarmAck:
        if native is None:
            return AlarmAck(E_INVALIDARG, "there is no alarm of this id")
        if native.state in (ALARM_STATE_ACK_ALM, ALARM_STATE_ACK_RTN):
            return AlarmAck(E_FAIL, "the alarm is acknowledged already", _ACKED_ALREADY)
        words = {
            "name": native.name,
            "provider": native.provider or self._options.provider,
            "group": native.group,
            "comment": comment,
            "operator": operator,
            "node": platform.node(),
        }
        arguments = [words.get(word, "").replace("\0", "") for word in self._options.acknowledge]
        assert self._acknowledging is not None
        try:
            code = self._acknowledging.acknowledge(arguments)
        except MxError as error:
            return AlarmAck(error.hresult, error.message)
        return (
            AlarmAck() if code == 0 else AlarmAck(E_FAIL, f"{_SUBJECT} refuses the acknowledgement: it returned {code}")
        )

    def _release(self) -> None:
        for consumer in (self._reading, self._acknowledging):
            if consumer is not None:
                consumer.release()
        self._reading = self._acknowledging = None


class _Acknowledgements:
    """The acknowledgement of some alarms. The apartment makes them, and the event loop can give them up meanwhile."""

    def __init__(self, alarm_ids: Sequence[str]) -> None:
        self.alarm_ids = alarm_ids
        self.is_given_up = False
        self._done: list[AlarmAck] = []
        self._begun = 0
        self._lock = threading.Lock()

    def begin(self) -> bool:
        """Return whether the next alarm is to be acknowledged."""
        with self._lock:
            if not self.is_given_up:
                self._begun += 1
            return not self.is_given_up

    def finish(self, ack: AlarmAck) -> None:
        with self._lock:
            self._done.append(ack)

    def give_up(self) -> bool:
        """Let no further alarm be acknowledged. Return whether one was begun."""
        with self._lock:
            self.is_given_up = True
            return self._begun > 0

    def results(self) -> Sequence[AlarmAck]:
        """Return one result per alarm."""
        with self._lock:
            results, begun = list(self._done), self._begun
        unknown = AlarmAck(E_FAIL, f"{_SUBJECT} has not answered: look whether it is acknowledged before you repeat it")
        results += [unknown] * (begun - len(results))
        left = AlarmAck(E_FAIL, f"{_SUBJECT} does not answer; this alarm was not acknowledged")
        return results + [left] * (len(self.alarm_ids) - len(results))


def _note(method: str, code: int) -> None:
    # What the numbers mean is known of none but 0, and clients go on whatever they are.
    if code != 0:
        log.warning("%s of %s returned %d", method, _SUBJECT, code)


def _forget(done: asyncio.Future[T]) -> None:
    """Take note of an exception that nobody waits for any more."""
    if not done.cancelled():
        done.exception()
