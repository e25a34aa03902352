"""Alarms of MXAccess sites: the alarm manager is a COM object of its own, which has to be asked."""

from mxgw_worker.backends.mxaccess.alarms.source import ConsumerAlarms

__all__ = ["ConsumerAlarms"]
