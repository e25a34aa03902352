"""Everything that a backend is allowed to import from the worker. A backend connects a worker to a source.

These names are stable, and so are those of `mxgw_worker.testing` and `mxgw.convert`: a release can add names, methods
of `EventSink` and optional protocols, but a backend that was written for an earlier release works unchanged. All other
modules of `mxgw_worker` can change in any release.
"""

from mxgw_worker.backends.base import (
    E_ACCESSDENIED,
    E_FAIL,
    E_INVALIDARG,
    E_NOTIMPL,
    S_OK,
    AlarmAck,
    AlarmListener,
    AlarmPublisher,
    AlarmSource,
    Backend,
    BackendInfo,
    BackendUnavailable,
    Browsable,
    Describable,
    EventSink,
    MxError,
    Tunable,
)
from mxgw_worker.backends.partial import PartialBackend
from mxgw_worker.backends.registry import BackendFactory, backend_factory, create_backend

__all__ = [
    "E_ACCESSDENIED",
    "E_FAIL",
    "E_INVALIDARG",
    "E_NOTIMPL",
    "S_OK",
    "AlarmAck",
    "AlarmListener",
    "AlarmPublisher",
    "AlarmSource",
    "Backend",
    "BackendFactory",
    "BackendInfo",
    "BackendUnavailable",
    "Browsable",
    "Describable",
    "EventSink",
    "MxError",
    "PartialBackend",
    "Tunable",
    "backend_factory",
    "create_backend",
]
