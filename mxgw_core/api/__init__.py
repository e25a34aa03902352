"""Everything that a plugin is allowed to import from mxgw: hooks, value types, protocols, errors.

All other modules of `mxgw_core` can change in any release. Import the names in `__all__` from `mxgw_core.api`; only
errors, command line helpers and private files are imported from the modules `mxgw_core.api.errors`,
`mxgw_core.api.cli` and `mxgw_core.api.files`. The names are defined and explained in these modules:

    hookspecs           all hooks: when each hook is called, and what its answer means
    settings            the settings of a plugin, `[plugins.<name>]`
    gateway             the running gateway: sessions, streams, operators, feeds
    calls               gRPC services that a plugin adds, and the calls that they serve
    access              who callers are, what they are allowed to do; operators; the audit log
    rate_limits         limits for failed attempts and for other rates
    globs               patterns in settings
    items               the references of items
    events              overflow policies, limits of subscribers, filters, pace, history
    feeds               numbered streams that a plugin adds
    following           reading all events of any session
    workers             worker processes and orphans
    observation         what the gateway is doing now
    internal_sessions   sessions that a plugin opens, without a client
    metrics             metrics for the hook `mxgw_metrics`
    maintenance         what a plugin adds to `mxgw backup` and `mxgw doctor`
    machine             facts about this process, and requests to stop it
    slices              long work in the event loop, done in short pieces
    types               identities, peers, positions, sessions
    versions            the version of this API, which a plugin names as `requires_api`
    errors              the errors that refuse a call
    cli                 helpers for the commands that a plugin adds
    files               private files
"""

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
    SelectEvents,
    StandingFilter,
    StreamPace,
    SubscriberLimits,
    Tolerate,
)
from mxgw_core.api.feeds import Feed, FeedDescription, FeedFilter, FeedRequest, FeedSnapshot
from mxgw_core.api.following import Followed, FollowedBatch, FollowedGap, FollowedItems, Follower
from mxgw_core.api.gateway import Gateway
from mxgw_core.api.globs import LONGEST_MIDDLE, LONGEST_PATTERN, Globs, check_glob
from mxgw_core.api.hookspecs import Hooks, hookimpl
from mxgw_core.api.internal_sessions import AlarmAcknowledged, AlarmReport, InternalSession
from mxgw_core.api.items import full_reference, named_items
from mxgw_core.api.machine import StopKind, StopRequest, control_group, on_stop, quoted, resident_bytes
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
from mxgw_core.api.versions import API_VERSION
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
    "API_VERSION",
    "INTERNAL",
    "LONGEST_MIDDLE",
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
    "Followed",
    "FollowedBatch",
    "FollowedGap",
    "FollowedItems",
    "Follower",
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
    "SelectEvents",
    "SessionInfo",
    "SessionPredicate",
    "SessionState",
    "SettingsSection",
    "ShownSetting",
    "StandingFilter",
    "StopKind",
    "StopRequest",
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
    "control_group",
    "correlation_id",
    "counter",
    "folded_name",
    "full_reference",
    "gauge",
    "hookimpl",
    "in_slices",
    "left_behind",
    "named_items",
    "on_stop",
    "own_session",
    "peer_address",
    "quoted",
    "resident_bytes",
    "same_data_dir",
    "turn",
    "used_handles",
]
