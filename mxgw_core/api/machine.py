"""Facts about this process that only the operating system knows."""

from mxgw_worker.platform import control_group, resident_bytes

__all__ = ["control_group", "resident_bytes"]
