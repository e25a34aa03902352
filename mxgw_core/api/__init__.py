"""Everything a plugin may import: hooks, value types, protocols, errors. The rest of mxgw_core is private.

Every name below can be imported from here. Read them in the module of their subject:

    hookspecs           every hook: when it is called, and what its answer means
    settings            `[plugins.<name>]` as a model of the plugin's own
    gateway             the running gateway: sessions, streams, operators, feeds
    calls               gRPC services of a plugin's own, and the calls that they serve
    access              who callers are, and what they may do; operators; the audit log
    rate_limits         failed attempts, and any other rate
    globs               patterns in settings
    events              overflow policies, limits of subscribers, filters, pace, history
    feeds               numbered streams of a plugin's own
    workers             worker processes, and those that outlived their gateway
    observation         what the gateway is doing now
    internal_sessions   MXAccess without a client
    metrics             numbers for `mxgw_metrics`
    maintenance         what `mxgw backup` and `mxgw doctor` ask of a plugin
    slices              long work in the event loop
    types               identities, peers, positions, sessions
    errors              refusals; imported from `mxgw_core.api.errors`
    cli                 commands of a plugin's own; imported from `mxgw_core.api.cli`
"""

from typing import TYPE_CHECKING

from mxgw_core.api.access import (
    ADMINISTRATOR,
    AccessRequest,
    Allow,
    AuditEntry,
    AuthenticationRequest,
    BrowseGuard,
    CommandGuard,
    Decision,
    Deny,
    ItemAccess,
    Moment,
    Operator,
    OperatorCredentials,
    SessionPredicate,
    as_operator,
    used_handles,
)
from mxgw_core.api.calls import Call, GrpcService, OpenStream, ResponseStream, correlation_id
from mxgw_core.api.events import (
    Action,
    Block,
    BufferLimit,
    Conflate,
    Disconnect,
    DropNewest,
    DropOldest,
    EventFilter,
    FailSession,
    History,
    HistoryPage,
    Lag,
    OverflowPolicy,
    PacedPolicy,
    PolicyRequest,
    QueueLimits,
    Resync,
    Retention,
    Select,
    StandingFilter,
    StreamPace,
    SubscriberLimits,
    Tolerate,
)
from mxgw_core.api.feeds import Feed, FeedDescription, FeedFilter, FeedRequest, FeedSnapshot
from mxgw_core.api.former import missing as _missing
from mxgw_core.api.gateway import Gateway
from mxgw_core.api.globs import LONGEST_PATTERN, Globs, check_glob
from mxgw_core.api.hookspecs import Hooks, hookimpl
from mxgw_core.api.internal_sessions import AlarmAcknowledged, AlarmReport, InternalSession
from mxgw_core.api.maintenance import BackupEntry, BackupKind, Finding
from mxgw_core.api.metrics import Distribution, Metric, MetricBuckets, MetricKind, MetricSample, counter, gauge
from mxgw_core.api.observation import CommandInFlight, Observation, PluginStatus, ShownSetting
from mxgw_core.api.rate_limits import LONGEST_NAME, Attempt, Attempts, TokenBucket, folded_name
from mxgw_core.api.settings import SettingsSection, left_behind
from mxgw_core.api.slices import NAMES_AT_ONCE, in_slices, turn
from mxgw_core.api.types import (
    ANONYMOUS,
    INTERNAL,
    CloseReason,
    EndedSession,
    Identity,
    ItemRecord,
    Peer,
    Position,
    SessionInfo,
    SessionState,
    own_session,
    peer_address,
)
from mxgw_core.api.workers import (
    Orphan,
    OrphanVerdict,
    WorkerExit,
    WorkerIdentity,
    WorkerProof,
    WorkerRefusal,
    WorkerSpawn,
    same_data_dir,
)

__all__ = [
    "ADMINISTRATOR",
    "ANONYMOUS",
    "INTERNAL",
    "LONGEST_NAME",
    "LONGEST_PATTERN",
    "NAMES_AT_ONCE",
    "AccessRequest",
    "Action",
    "AlarmAcknowledged",
    "AlarmReport",
    "Allow",
    "Attempt",
    "Attempts",
    "AuditEntry",
    "AuthenticationRequest",
    "BackupEntry",
    "BackupKind",
    "Block",
    "BrowseGuard",
    "BufferLimit",
    "Call",
    "CloseReason",
    "CommandGuard",
    "CommandInFlight",
    "Conflate",
    "Decision",
    "Deny",
    "Disconnect",
    "Distribution",
    "DropNewest",
    "DropOldest",
    "EndedSession",
    "EventFilter",
    "FailSession",
    "Feed",
    "FeedDescription",
    "FeedFilter",
    "FeedRequest",
    "FeedSnapshot",
    "Finding",
    "Gateway",
    "Globs",
    "GrpcService",
    "History",
    "HistoryPage",
    "Hooks",
    "Identity",
    "InternalSession",
    "ItemAccess",
    "ItemRecord",
    "Lag",
    "Metric",
    "MetricBuckets",
    "MetricKind",
    "MetricSample",
    "Moment",
    "Observation",
    "OpenStream",
    "Operator",
    "OperatorCredentials",
    "Orphan",
    "OrphanVerdict",
    "OverflowPolicy",
    "PacedPolicy",
    "Peer",
    "PluginStatus",
    "PolicyRequest",
    "Position",
    "QueueLimits",
    "ResponseStream",
    "Resync",
    "Retention",
    "Select",
    "SessionInfo",
    "SessionPredicate",
    "SessionState",
    "SettingsSection",
    "ShownSetting",
    "StandingFilter",
    "StreamPace",
    "SubscriberLimits",
    "TokenBucket",
    "Tolerate",
    "WorkerExit",
    "WorkerIdentity",
    "WorkerProof",
    "WorkerRefusal",
    "WorkerSpawn",
    "as_operator",
    "check_glob",
    "correlation_id",
    "counter",
    "folded_name",
    "gauge",
    "hookimpl",
    "in_slices",
    "left_behind",
    "own_session",
    "peer_address",
    "same_data_dir",
    "turn",
    "used_handles",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of this module

    def __getattr__(name: str) -> object:
        raise _missing(name)
