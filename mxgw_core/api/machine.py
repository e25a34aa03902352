"""What only the operating system knows or can do for a process: facts, requests to stop, and the rules of its shell."""

from mxgw_worker.platform import StopKind, StopRequest, control_group, on_stop, quoted, resident_bytes

__all__ = ["StopKind", "StopRequest", "control_group", "on_stop", "quoted", "resident_bytes"]
