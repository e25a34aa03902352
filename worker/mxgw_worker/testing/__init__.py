"""For tests of workers and backends: a scripted backend, and the gateway's side of a real worker process."""

from mxgw_worker.testing.driver import WorkerDriver, WorkerGone, running_worker
from mxgw_worker.testing.scripted import BrowsableScriptedBackend, ScriptedBackend

__all__ = ["BrowsableScriptedBackend", "ScriptedBackend", "WorkerDriver", "WorkerGone", "running_worker"]
