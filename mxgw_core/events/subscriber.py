"""One reader of a session's log: its unread events, its filters, and counts of what was delivered to it.

An Outlet reads a subscriber with `take`. When `take` perhaps returns something new, the subscriber calls the function
`on_work`, which the Outlet has set.

The module has more than 400 lines, because taking events, counting them and waiting for them change the same
attributes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.api.errors import GatewayError
from mxgw_core.api.events import Lag, QueueLimits
from mxgw_core.events.counts import GAP_FRAMES, LOST, SessionCounts, SubscriberCounts
from mxgw_core.events.filters import Filters, ItemFilters, Passed
from mxgw_core.events.log import EventLog
from mxgw_core.events.pieces import Chunk, Gap, Piece
from mxgw_core.events.policies import CheckedPolicy
from mxgw_core.events.snapshot_place import SnapshotAt, SnapshotDue, SnapshotWanted
from mxgw_core.events.sources import Aside, Ending, FromLog, Gathering, Granted, Source, Unread, ended, first_source
from mxgw_core.events.start import StartPlace
from mxgw_core.plugins.blame import Delays

# A subscriber with filters gets a Progress frame when its filters have dropped this many events in a row.
PROGRESS_EVENTS = 1000


@dataclass(frozen=True, slots=True)
class Progress:
    """Everything up to `sequence` was delivered, filtered or covered by a gap."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Control:
    """An encoded frame without events, ready to be sent before the next events."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The stream is over; `error` says why."""

    error: GatewayError


# What `Subscriber.take` returns.
Output: TypeAlias = Chunk | Gap | Progress | Control | SnapshotWanted | SnapshotDue | End


class Subscriber:
    """One reader. Made by `Distributor.attach`. Lives in the event loop.

    Args:
        gap: the gap that the stream begins with; None when there is no gap, or when events of a history store are sent
            in place of the gap (see `feed`).
        session_counts: counters for gaps and lost events, shared by all subscribers of the session.

    Attributes:
        place: where the stream began.
        source: what is unread, and where it is held; `events.overflow` replaces the source when the policy acts.
        delivered: everything up to this sequence was handed over, filtered, or covered by a gap. A client can resume
            after this sequence and misses nothing.
        is_internal: the reader belongs to the gateway itself, for example to the dashboard, and is never disconnected
            for being slow.
        is_idle: the reader waits only for new events, and will take any number of them at once. So a burst of events is
            no overflow.
        is_timed: a timer will wake the reader when a pace, or the policy's interval, lets it continue. So new events
            need not wake the reader.
        on_work: called when `take` perhaps returns something.
        on_end: called once, when the end of the stream is decided.
        on_taken: called after each piece that was taken. Set only while the action `Block` of this reader's policy
            stops the worker's events.
    """

    def __init__(
        self,
        subscriber_id: str,
        log: EventLog,
        place: StartPlace,
        gap: Gap | None,
        limits: QueueLimits,
        policy: CheckedPolicy,
        *,
        filters: Filters | None = None,
        session_counts: SessionCounts,
        client_name: str = "",
        peer: str = "",
        is_internal: bool = False,
    ) -> None:
        self.id = subscriber_id
        self.client_name = client_name
        self.peer = peer
        self.limits = limits
        self.policy = policy.policy
        self.policy_name = policy.name
        self.policy_source = policy.source
        self.policy_owner = policy.owner
        # Delays of the policy for which the system does not say whether the policy is to blame.
        self.policy_delays, self.keep_delays = Delays(), Delays()
        self.is_internal = is_internal
        self.log = log
        self.attached_at = log.clock()
        self.place = place
        self.source: Source = first_source(log, place.cursor, policy, gap)
        self.filters = filters
        # The filters of a history store's events, while such events are sent to a reader with filters. They know the
        # items that the store knows.
        self.fed_filters: ItemFilters | None = None
        self.counts = SubscriberCounts()
        self._counts_of_session = session_counts
        self.delivered = place.delivered
        self._granted = Granted(log.head, log.appended_events, log.appended_bytes, *log.after(place.cursor))
        # When the reader exceeded its limits; None once the reader has caught up or is within its limits again.
        self.over_since: float | None = None
        self._controls: deque[bytes] = deque()
        self._snapshot: SnapshotAt | None = None
        # Pieces that still have to pass the filters. They were taken from `source`, or `feed` added them.
        self._staged: deque[Piece] = deque()
        # How many events the filters have dropped since the last frame with a position was returned.
        self._skipped_events = 0
        self.is_idle = self.is_timed = False
        self.on_work: Callable[[], None] | None = None
        self.on_end: Callable[[], None] | None = None
        self.on_taken: Callable[[], None] | None = None

    @property
    def name(self) -> str:
        """Id and client name in one text, for messages."""
        return f"{self.id} ({self.client_name})" if self.client_name else self.id

    @property
    def attached_s(self) -> float:
        """How many seconds ago the subscriber attached."""
        return self.log.clock() - self.attached_at

    @property
    def end_error(self) -> GatewayError | None:
        """The error that ends the stream after everything unread was delivered; None if no end is decided yet."""
        return self.source.error if isinstance(self.source, Ending) else None

    # The next properties and methods report how far the reader is behind.

    @property
    def unread(self) -> Unread:
        """The number, the bytes and the age of the unread events.

        The old events that the reader asked for when it attached are counted too.
        """
        return self.source.unread()

    @property
    def backlog_bytes(self) -> int:
        """About how many bytes are held for this reader alone. Unread events in the shared log are not counted."""
        return self.source.backlog_bytes

    @property
    def memory_bytes(self) -> int:
        """About how many bytes of memory the reader's unread events outside the log use."""
        staged = sum(piece.batch_bytes for piece in self._staged if isinstance(piece, Chunk))
        remembered = 0 if self.fed_filters is None else self.fed_filters.memory_bytes
        return self.source.memory_bytes + staged + remembered

    @property
    def is_caught_up(self) -> bool:
        """Whether the reader was handed everything up to the head."""
        return self.source.is_read and not self._staged

    @property
    def is_conflating(self) -> bool:
        """Whether the policy conflates because the reader fell behind, and the reader has not caught up since."""
        return isinstance(self.source, Gathering) and not self.source.interval_s

    def is_over_limit(self) -> bool:
        """Whether the reader's lag is beyond the limits, so that the policy must be asked."""
        return self.source.is_over(self.limits, self._granted_now())

    def fits(self) -> bool:
        """Whether the events that remain after conflating are within the limits.

        True when the reader's events are not conflated.
        """
        return not isinstance(self.source, Gathering) or self.source.fits(self.limits, self._granted_now())

    def lag(self) -> Lag:
        """Return the lag that the policy gets. Called only when the reader is over its limits.

        The first such call also records in `over_since` that the reader went over its limits now.
        """
        now = self.log.clock()
        if self.over_since is None:
            self.over_since = now
        lag = self.source.lag(self._granted_now())
        return Lag(
            subscriber_id=self.id,
            events=lag.events,
            bytes=lag.bytes,
            seconds=lag.seconds,
            limits=self.limits,
            over_limit_s=now - self.over_since,
        )

    @property
    def why_dropped(self) -> str:
        """The text of a gap for events that the reader's policy drops."""
        return f"dropped by the overflow policy {self.policy_name!r}: read faster, or raise the queue limits"

    def _granted_now(self) -> Granted:
        self._granted.is_delivered = self.delivered >= self._granted.head
        return self._granted

    # The next methods are called when something new came for the reader.

    def arrived(self) -> None:
        """Let `source` process the events appended to the log, and replace `source` if another state follows."""
        self.source.arrived()
        self._go_on()

    def finish(self, error: GatewayError) -> None:
        """End the stream with `error` after everything unread is delivered. Later events are not delivered."""
        if self.end_error is None:
            self.source = ended(self.source, error)
            if self.on_end is not None:
                self.on_end()
            self.wake()

    def send(self, frame: bytes) -> None:
        """Queue a control frame; `take` returns it before any more events."""
        self._controls.append(frame)
        self.wake()

    def want_snapshot(self) -> None:
        """Let `take` return `SnapshotWanted` next.

        The snapshot is then sent after the events up to the snapshot's position.
        """
        if self._snapshot is None:
            self._snapshot = SnapshotAt()
        else:
            self._snapshot.want_again()
        self.wake()

    def snapshot_fetched(self, position: int) -> None:
        """Record that the wanted snapshot was fetched, and that it shows the values as of `position`."""
        if self._snapshot is not None:
            self._snapshot.fetched(position)

    @property
    def is_fetching_snapshot(self) -> bool:
        """Whether a snapshot is fetched for this reader now."""
        return self._snapshot is not None and self._snapshot.is_fetching

    def feed(self, older: Piece) -> None:
        """Add a piece of a history store. `take_fed` returns what the filters let pass of it."""
        self._staged.append(older)

    # The next methods return what the reader's stream sends.

    def take(self, limit_bytes: int) -> Output | None:
        """Return what to send next, up to about `limit_bytes` of events at once; None when there is nothing to send.

        None is also returned while filters must be asked about more items (`is_asking`), and while the policy's
        interval has not ended.
        """
        source = self.source
        if type(source) is FromLog and not (self._controls or self._staged or self._snapshot or self.filters):
            piece = source.next(limit_bytes)  # the usual case, which must be fast
            if piece is not None:
                self._hand_over(piece)
                if self.on_taken is not None:
                    self.on_taken()
            return piece
        if self._controls:
            return self.take_control()
        while True:
            if self._snapshot is not None and (due := self._due_snapshot(self._snapshot)) is not None:
                return due
            if not self._staged:
                piece = self._next(limit_bytes)
                if piece is None:
                    error = self.end_error
                    return None if error is None else self._progress(0) or End(error)
                self._staged += (piece,) if self._snapshot is None else self._snapshot.feed(piece)
                continue
            staged = len(self._staged)
            output = self._pass_on(self.filters)
            if output is not None or len(self._staged) == staged:
                return output

    def take_control(self) -> Control | None:
        """Return the next control frame; None when there is none."""
        return Control(self._controls.popleft()) if self._controls else None

    def take_fed(self, limit_bytes: int) -> Output | None:  # noqa: ARG002 - a store's pages are as large as they are
        """Return what to send next of the pieces given to `feed`; None after the last one, or while `is_asking`."""
        while staged := len(self._staged):
            output = self._pass_on(self.fed_filters or self.filters)
            if output is not None or len(self._staged) == staged:
                return output
        return None

    @property
    def is_asking(self) -> bool:
        """Whether a piece cannot be returned yet, because the filters must first be asked about more items."""
        return bool(self._staged)

    def _next(self, limit_bytes: int) -> Piece | None:
        while True:
            piece = self.source.next(limit_bytes)
            has_gone_on = self._go_on()
            if piece is not None:
                if self.on_taken is not None:
                    self.on_taken()
                return piece
            if not has_gone_on:
                return None

    def _go_on(self) -> bool:
        """Replace `source` if another state follows; return whether it was replaced."""
        source = self.source
        then = source.then()
        if then is source:
            return False
        if not isinstance(source, Aside):
            self.over_since = None
        self.source = then
        return True

    def _due_snapshot(self, snapshot: SnapshotAt) -> SnapshotWanted | SnapshotDue | None:
        due = snapshot.due(self.delivered, is_ending=self.end_error is not None)
        if isinstance(due, SnapshotDue):
            if self._opens_with_gap():
                return None
            self._snapshot = None
        return due

    def _opens_with_gap(self) -> bool:
        """Whether the next piece is a gap that names no range. Only the first piece of a stream can be such a gap."""
        if self._staged:
            return not self._staged[0].last
        backlog = self.source.backlog
        return backlog is not None and backlog.begins_without_range

    def _pass_on(self, filters: Filters | None) -> Output | None:
        """Pass the oldest waiting piece through the filters; count and return what passes."""
        piece = self._staged[0]
        if filters is None or isinstance(piece, Gap):
            self._staged.popleft()
            self._hand_over(piece)
            return piece
        passed = filters.feed(piece)
        if passed is None:
            return None
        self._staged.popleft()
        return self._hand_over_passed(passed)

    def _hand_over(self, piece: Piece) -> None:
        """Count a whole piece as handed over: as delivered events, or as a gap."""
        if type(piece) is Chunk:
            self.delivered = piece.last
            counts = self.counts
            counts.delivered_events += piece.kept or piece.last - piece.first + 1
            counts.delivered_bytes += len(piece.frame) - piece.start
            return
        assert isinstance(piece, Gap)
        reason = GapReason.Name(piece.reason).removeprefix("GAP_REASON_")
        self._counts_of_session.count(GAP_FRAMES, reason)
        if piece.last:
            if not piece.runs:  # after a gap with `runs`, the next chunk has the rest of the range and sets `delivered`
                self.delivered = piece.last
                self._skipped_events = 0
            lost = piece.count or piece.last - piece.first + 1
            self.counts.lost_events[reason] += lost
            self._counts_of_session.count(LOST, reason, by=lost)

    def _hand_over_passed(self, passed: Passed) -> Chunk | Progress | None:
        """Count the events that the filters let pass, and return their chunk.

        When no event passed, return a Progress if enough events were dropped since the last position, else None.
        """
        self.delivered = passed.last
        self.counts.filtered_events += passed.events - passed.passed
        if passed.kept is None:
            self._skipped_events += passed.events
            return self._progress(PROGRESS_EVENTS)
        self._skipped_events = 0
        self.counts.delivered_events += passed.passed
        self.counts.delivered_bytes += passed.kept.batch_bytes
        return passed.kept

    def _progress(self, at_least: int) -> Progress | None:
        if self._skipped_events and self._skipped_events >= at_least:
            self._skipped_events = 0
            return Progress(self.delivered)
        return None

    # The next methods wake a reader, or wait for something to read.

    def wake(self) -> None:
        """Call `on_work`, because `take` perhaps returns something now."""
        if self.on_work is not None:
            self.on_work()

    async def wait(self) -> None:
        """Wait until `take` perhaps returns something.

        Only internal readers wait in this way, because they have no Outlet and no filters.
        """
        due_s = self.source.due_in_s()
        if self._controls or self.end_error is not None or (due_s is None and not self.is_caught_up):
            return
        # This future is completed by `wake`.
        woken = asyncio.get_running_loop().create_future()
        self.on_work = lambda: None if woken.done() else woken.set_result(None)
        self.is_idle, self.is_timed = due_s is None, due_s is not None
        try:
            await asyncio.wait((woken,), timeout=due_s)
        finally:
            self.is_idle = self.is_timed = False
            self.on_work = None
