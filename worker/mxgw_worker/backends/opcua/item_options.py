"""What a monitored item is asked for when its item has options: a deadband, a sampling interval.

Source: OPC 10000-4, 7.22.2 (DataChangeFilter) and 5.13.1.2 (sampling interval).
"""

from __future__ import annotations

from asyncua import ua

from mxgw.convert import duration_to_seconds
from mxgw.v1.commands_pb2 import ItemOptions


def sampling_interval_ms(options: ItemOptions | None, default_ms: float) -> float:
    """Return the sampling interval to ask for."""
    if options is None or not options.HasField("sampling_interval"):
        return default_ms
    return duration_to_seconds(options.sampling_interval) * 1000


def data_change_filter(options: ItemOptions | None, trigger: ua.DataChangeTrigger | None) -> ua.DataChangeFilter | None:
    """Return the filter to ask for; None for that of OPC UA itself: a change of status or value.

    A server looks at the deadband only when a change of the value triggers a report.
    """
    deadband = None if options is None else options.WhichOneof("deadband")
    if options is None or deadband is None:
        return None if trigger is None else ua.DataChangeFilter(Trigger=trigger)
    absolute = deadband == "absolute_deadband"
    return ua.DataChangeFilter(
        Trigger=ua.DataChangeTrigger.StatusValue if trigger is None else trigger,
        DeadbandType=ua.DeadbandType.Absolute if absolute else ua.DeadbandType.Percent,
        DeadbandValue=options.absolute_deadband if absolute else options.percent_deadband,
    )
