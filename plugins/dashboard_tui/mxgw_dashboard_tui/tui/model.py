"""Makes views of the gateway from the gateway reports. Each report results in one immutable view.

A gateway report is the message `WatchGatewayResponse`: the state of the whole gateway at one moment."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from mxgw.convert import duration_to_seconds, timestamp_to_ns
from mxgw.dashboard.v1 import dashboard_service_pb2 as pb
from mxgw_dashboard_tui.tui.gateway_alarms import Alarm, alarms_of

_M = TypeVar("_M", bound=Message)

# How many points the plots can show: ten minutes at one gateway report a second.
_POINTS = 600
_SESSION_POINTS = 60
_JOURNAL = 1000
_MINUTE_S = 60.0


class Link(enum.Enum):
    """The state of the connection to the gateway."""

    CONNECTING = "connecting"
    LOGIN = "login needed"
    LIVE = "live"
    CUT = "cut"
    DENIED = "denied"
    REPLAY = "replay"
    ENDED = "end of the recording"


@dataclass(frozen=True, slots=True)
class SessionView:
    """One session in a view.

    `rate` is in events per second. It is None until two gateway reports about the session have arrived. `rates` has the
    latest rates, oldest first.
    """

    row: pb.SessionRow
    rate: float | None
    rates: Sequence[float]
    detached_s: float | None


@dataclass(frozen=True, slots=True)
class Point:
    """The figures of the whole gateway in one gateway report, for the plots.

    `lost_events` and `gap_frames` are totals since the dashboard began to watch this run of the gateway.
    """

    at_s: float
    events_per_s: float
    lag_events: int
    lost_events: int
    gap_frames: int
    cpu_percent: float
    rss_bytes: int
    loop_delay_s: float


@dataclass(frozen=True, slots=True)
class View:
    """Everything that the screens show at one moment.

    `snapshot` is the gateway report from which the view was made. `received_at` is the time of its arrival by the
    monotonic clock of this machine. `behind_s` says by how many seconds the report arrived later than usual.
    """

    snapshot: pb.WatchGatewayResponse
    received_at: float
    behind_s: float
    sessions: Sequence[SessionView]
    points: Sequence[Point]
    # How many older points were dropped before the first of `points`.
    points_gone: int
    journal: Sequence[pb.JournalEntry]
    alarms: Sequence[Alarm]
    lost_per_min: int
    gaps_per_min: int

    @property
    def now_ns(self) -> int:
        """The time of the gateway's clock at which the gateway report was made, in nanoseconds since 1970."""
        return timestamp_to_ns(self.snapshot.as_of)

    @property
    def is_administrator(self) -> bool:
        return self.snapshot.role == pb.ROLE_ADMINISTRATOR

    def session(self, session_id: str) -> SessionView | None:
        """Return a live session by its id; None when there is no such session."""
        return next((view for view in self.sessions if view.row.session.session_id == session_id), None)


def own(message: _M) -> _M:
    """Return a copy of a protobuf message that is a field of another message.

    A reference to the field itself would keep the whole outer message in memory.
    """
    return type(message).FromString(message.SerializeToString())


@dataclass(slots=True)
class _Track:
    """What the last gateway report said about one session. The next report is compared with these values."""

    epoch: bytes = b""
    head: int = 0
    at_ns: int = 0
    lost: int = 0
    gaps: int = 0
    rate: float | None = None
    rates: deque[float] | None = None


class Model:
    """Makes views from gateway reports. `clock` returns monotonic seconds, `wall` seconds since 1970."""

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._clock = clock
        self._wall = wall
        self._tracks: dict[str, _Track] = {}
        self._points: deque[Point] = deque(maxlen=_POINTS)
        self._point_count = 0
        self._journal: deque[pb.JournalEntry] = deque(maxlen=_JOURNAL)
        self._instance = ""
        self._lost = self._gaps = 0
        self._cpu_s: float | None = None
        self._last_ns = 0
        self._least_skew_s: float | None = None
        self.view: View | None = None

    def take(self, snapshot: pb.WatchGatewayResponse) -> View:
        """Return the view of a new gateway report, and remember the values with which the next report is compared."""
        if snapshot.instance_id != self._instance:
            self._begin(snapshot.instance_id)
        known = self._journal[-1].number if self._journal else 0
        self._journal.extend(own(entry) for entry in snapshot.journal if entry.number > known)
        now_ns = timestamp_to_ns(snapshot.as_of)
        sessions = [self._session(row, now_ns) for row in snapshot.sessions]
        live = {row.session.session_id for row in snapshot.sessions}
        self._tracks = {key: track for key, track in self._tracks.items() if key in live}
        self._points.append(self._point(snapshot, sessions, now_ns))
        self._point_count += 1
        self._last_ns = now_ns
        lost, gaps = self._last_minute()
        self.view = View(
            snapshot=snapshot,
            received_at=self._clock(),
            behind_s=self._behind(now_ns),
            sessions=sessions,
            points=tuple(self._points),
            points_gone=self._point_count - len(self._points),
            journal=tuple(self._journal),
            alarms=alarms_of(snapshot, lost),
            lost_per_min=lost,
            gaps_per_min=gaps,
        )
        return self.view

    def _begin(self, instance: str) -> None:
        """Forget everything, because the values of a new run of the gateway cannot be compared with earlier values."""
        self._instance = instance
        self._tracks.clear()
        self._points.clear()
        self._point_count = 0
        self._journal.clear()
        self._cpu_s, self._least_skew_s = None, None
        self._lost = self._gaps = self._last_ns = 0

    def _behind(self, now_ns: int) -> float:
        """Return by how many seconds this gateway report took longer to arrive than the fastest report so far.

        Only this difference is known. The total time of a report from the gateway to this machine is unknown, because
        the clocks of the two machines can differ.
        """
        skew_s = self._wall() - now_ns / 1e9
        self._least_skew_s = skew_s if self._least_skew_s is None else min(self._least_skew_s, skew_s)
        return skew_s - self._least_skew_s

    def _session(self, row: pb.SessionRow, now_ns: int) -> SessionView:
        session = row.session
        track = self._tracks.get(session.session_id)
        if track is None or track.epoch != session.epoch:
            # Events that were lost before the dashboard knew this session must not count as losses of the last minute.
            track = _Track(session.epoch, session.head_sequence, now_ns, row.lost_events, row.gap_frames)
            track.rates = deque(maxlen=_SESSION_POINTS)
            self._tracks[session.session_id] = track
        elif now_ns > track.at_ns and session.head_sequence >= track.head:
            assert track.rates is not None
            track.rate = (session.head_sequence - track.head) / ((now_ns - track.at_ns) / 1e9)
            track.rates.append(track.rate)
            self._lost += max(0, row.lost_events - track.lost)
            self._gaps += max(0, row.gap_frames - track.gaps)
            track.head, track.at_ns = session.head_sequence, now_ns
            track.lost, track.gaps = row.lost_events, row.gap_frames
        detached_s = duration_to_seconds(row.detached) if row.HasField("detached") else None
        return SessionView(row, track.rate, tuple(track.rates or ()), detached_s)

    def _point(self, snapshot: pb.WatchGatewayResponse, sessions: Sequence[SessionView], now_ns: int) -> Point:
        process = snapshot.process
        cpu_s = duration_to_seconds(process.cpu_time)
        passed_s = (now_ns - self._last_ns) / 1e9
        cpu = (cpu_s - self._cpu_s) / passed_s * 100 if self._cpu_s is not None and passed_s > 0 else 0.0
        self._cpu_s = cpu_s
        return Point(
            at_s=now_ns / 1e9,
            events_per_s=sum(view.rate or 0.0 for view in sessions),
            lag_events=max((view.row.lag_events for view in sessions), default=0),
            lost_events=self._lost,
            gap_frames=self._gaps,
            cpu_percent=max(0.0, cpu),
            rss_bytes=process.rss_bytes,
            loop_delay_s=duration_to_seconds(process.loop_delay),
        )

    def _last_minute(self) -> tuple[int, int]:
        newest = self._points[-1]
        oldest = next((point for point in self._points if point.at_s >= newest.at_s - _MINUTE_S), newest)
        return newest.lost_events - oldest.lost_events, newest.gap_frames - oldest.gap_frames
