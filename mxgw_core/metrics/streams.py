"""Metrics of events: how many were received, delivered and lost, and how far subscribers are behind.

Some labels have values that come from plugins, such as names of policies. The number of such values is limited here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from mxgw.v1.events_pb2 import GapReason
from mxgw_core.api.metrics import Metric, MetricKind, MetricSample, counter, gauge
from mxgw_core.events import counts as f
from mxgw_core.events.following import Following
from mxgw_core.sessions.memory import GatewayMemory
from mxgw_core.sessions.registry import SessionRegistry

# How many combinations of label values a metric can have: far more than a site needs, and not too many for a store of
# metrics.
MOST_SAMPLES = 100
OTHER = "other"


class LabelLimit:
    """Limits how many combinations of label values a metric can have. When there are `most` combinations, the label
    values of each further combination are replaced by "other".
    """

    def __init__(self, most: int = MOST_SAMPLES) -> None:
        self._most = most
        self._known: dict[str, set[tuple[str, ...]]] = {}

    def folded(self, metric: str, labels: tuple[str, ...]) -> tuple[str, ...]:
        """Return the label values to use for a sample: `labels`, or "other" for each label if there are too many
        combinations.
        """
        known = self._known.setdefault(metric, set())
        if labels not in known:
            if len(known) >= self._most:
                return (OTHER,) * len(labels)
            known.add(labels)
        return labels

    def samples(self, metric: str, values: Mapping[tuple[str, ...], float]) -> list[MetricSample]:
        """Return the samples of a metric, sorted by their labels. Values of labels that become "other" are added up."""
        sums: dict[tuple[str, ...], float] = {}
        for labels, value in values.items():
            labels = self.folded(metric, labels)
            sums[labels] = sums.get(labels, 0) + value
        return [MetricSample(sums[labels], labels) for labels in sorted(sums)]


_TEXTS = {
    f.OVERFLOW: "What overflow policies decided about subscribers beyond their limits; tolerated ones do not count.",
    f.LOST: "Events in gaps, once for each subscriber that got the gap, by the gap's reason.",
    f.GAP_FRAMES: "Gaps sent to subscribers, by reason.",
    f.DISCONNECTS: "Streams that the gateway ended, by the reason they ended with.",
    f.RESUMES: "Streams that resumed after a position, by whether they missed nothing.",
    f.POLICY_ERRORS: "Overflow policies that failed, by the distribution that brought them.",
}
_GAP_REASONS: Mapping[tuple[str, ...], int] = {(name.removeprefix("GAP_REASON_"),): 0 for name in GapReason.keys()[1:]}
# Key: a metric. Value: label values that have a sample with 0 from the start, so that an alert on an increase also
# notices the first occurrence.
_ZEROES: Mapping[str, Mapping[tuple[str, ...], int]] = {
    f.LOST: _GAP_REASONS,
    f.GAP_FRAMES: _GAP_REASONS,
    f.RESUMES: {("true",): 0, ("false",): 0},
    f.DISCONNECTS: {("SUBSCRIBER_OVERFLOW",): 0, ("WORKER_EXITED",): 0, ("WORKER_SILENT",): 0},
    f.OVERFLOW: {("disconnect", "Disconnect"): 0},
    f.POLICY_ERRORS: {("mxgw",): 0},
}


def stream_metrics(registry: SessionRegistry, limit: LabelLimit) -> list[Metric]:
    """Return the metrics of events and subscribers, summed over all sessions."""
    totals = registry.totals.streams()
    for session in registry.live():
        totals.add(session.distributor.totals())
    given = totals.given
    return [
        counter("mxgw_events_received_total", "Events taken from workers.", totals.received_events),
        counter("mxgw_events_received_bytes_total", "Bytes of events taken from workers.", totals.received_bytes),
        counter(
            "mxgw_events_delivered_total",
            "Events handed to the transports of subscribers, once for each.",
            given.delivered_events,
        ),
        counter(
            "mxgw_events_delivered_bytes_total",
            "Bytes of events handed to the transports of subscribers.",
            given.delivered_bytes,
        ),
        counter(
            "mxgw_events_filtered_total",
            "Events that were not for a subscriber, once for each.",
            given.filtered_events,
        ),
        *(
            Metric(
                name,
                MetricKind.COUNTER,
                text,
                f.LABELS[name],
                limit.samples(name, {**_ZEROES[name], **totals.by_labels(name)}),
            )
            for name, text in _TEXTS.items()
        ),
        Metric(
            "mxgw_resume_replayed_events",
            MetricKind.HISTOGRAM,
            "Events that lay ready in the log for a stream that resumed.",
            samples=(MetricSample(totals.replayed.buckets()),),
        ),
        counter(
            "mxgw_pump_stall_seconds_total",
            "How long the overflow policy block held the events of sessions.",
            totals.counts[f.STALL,] / 1000,
        ),
        *_logs(registry),
        *_memory(registry.memory),
        *_lags(registry, limit),
        *_followers(registry.following, limit),
    ]


def _logs(registry: SessionRegistry) -> list[Metric]:
    distributors = [session.distributor for session in registry.live()]
    horizons = [d.horizon_s for d in distributors if d.horizon_s is not None]
    return [
        gauge(
            "mxgw_ring_events", "Events that the logs of all sessions hold.", sum(d.log.events for d in distributors)
        ),
        gauge("mxgw_ring_bytes", "Bytes that the logs of all sessions hold.", sum(d.log.bytes for d in distributors)),
        gauge(
            "mxgw_replay_horizon_seconds",
            "How far back the log with the shortest reach goes at its present rate; absent while nothing is known.",
            min(horizons, default=None),
        ),
    ]


def _memory(memory: GatewayMemory) -> list[Metric]:
    use = memory.use().by_kind()
    return [
        Metric(
            "mxgw_memory_bytes",
            MetricKind.GAUGE,
            "Memory that the events of all sessions and feeds take, and large requests, by what for.",
            ("kind",),
            [MetricSample(size, (kind,)) for kind, size in use.items()],
        ),
        gauge("mxgw_memory_limit_bytes", "What they may take together (limits.memory_bytes).", memory.limit_bytes),
        counter(
            "mxgw_memory_relieved_bytes_total",
            "Memory given up because sessions took more than limits.memory_bytes; gaps tell clients.",
            memory.relieved_bytes,
        ),
    ]


def _lags(registry: SessionRegistry, limit: LabelLimit) -> list[Metric]:
    """Return the metrics of lag, with the overflow policy as a label, because some policies deliver late on purpose."""
    count: dict[tuple[str, ...], float] = defaultdict(int)
    events: dict[tuple[str, ...], float] = defaultdict(int)
    seconds: dict[tuple[str, ...], float] = defaultdict(float)
    held: dict[tuple[str, ...], float] = defaultdict(int)
    for session in registry.live():
        for subscriber in session.distributor.subscribers.values():
            policy = limit.folded("mxgw_subscribers", (subscriber.policy_name,))
            count[policy] += 1
            unread = subscriber.unread
            events[policy] = max(events[policy], unread.events)
            seconds[policy] = max(seconds[policy], unread.seconds)
            held[policy] += subscriber.backlog_bytes
    return [
        Metric(name, MetricKind.GAUGE, text, ("policy",), [MetricSample(values[p], p) for p in sorted(values)])
        for name, text, values in (
            ("mxgw_subscribers", "Subscribers by overflow policy.", count),
            ("mxgw_subscriber_lag_events", "Events that the subscriber furthest behind has not read.", events),
            ("mxgw_subscriber_lag_seconds", "Age of the oldest event that some subscriber has not read.", seconds),
            ("mxgw_subscriber_queue_bytes", "Memory held for subscribers alone, after their policies acted.", held),
        )
    ]


def _followers(following: Following, limit: LabelLimit) -> list[Metric]:
    """Return the metrics of plugins that follow sessions, with the name that each follower has as a label."""
    count: dict[tuple[str, ...], float] = defaultdict(int)
    events: dict[tuple[str, ...], float] = defaultdict(int)
    size: dict[tuple[str, ...], float] = defaultdict(int)
    lost: dict[tuple[str, ...], float] = defaultdict(int)
    for follower in following.followers:
        name = limit.folded("mxgw_followers", (follower.name,))
        lag_events, lag_bytes = follower.lag
        count[name] += 1
        events[name] = max(events[name], lag_events)
        size[name] = max(size[name], lag_bytes)
    for follower_name, lost_events in following.lost_events.items():
        lost[limit.folded("mxgw_followers", (follower_name,))] += lost_events
    return [
        *(
            Metric(name, kind, text, ("follower",), [MetricSample(values[f], f) for f in sorted(values)])
            for name, kind, text, values in (
                ("mxgw_followers", MetricKind.GAUGE, "Sessions that plugins follow, by follower.", count),
                (
                    "mxgw_follower_lag_events",
                    MetricKind.GAUGE,
                    "Events of a log that a follower has not acknowledged, in the session where they are most.",
                    events,
                ),
                ("mxgw_follower_lag_bytes", MetricKind.GAUGE, "The bytes of such events, where they are most.", size),
                (
                    "mxgw_follower_lost_events_total",
                    MetricKind.COUNTER,
                    "Events that the log released before a follower had read them; gaps tell the follower.",
                    lost,
                ),
            )
        ),
        gauge(
            "mxgw_follower_held_bytes",
            "Memory of all logs that is held until followers acknowledge it; events.follow_total_bytes limits it.",
            following.held_bytes,
        ),
    ]
