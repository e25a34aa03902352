"""For tests of workers and backends: a backend that does what it is told, and the gateway's end of a real worker."""

from mxgw_worker.testing.driver import WorkerDriver, WorkerGone, running_worker
from mxgw_worker.testing.scripted import BrowsableScriptedBackend, ScriptedBackend

__all__ = ["BrowsableScriptedBackend", "ScriptedBackend", "WorkerDriver", "WorkerGone", "running_worker"]
