"""The object `Sim`, whose attributes make the simulator misbehave on request. It exists only with the option
`controls`.

It is for demonstrations, and for tests of everything above the backend. `Sim` stays reachable while the platform is
down.
"""

from __future__ import annotations

import logging
import os
import time

from mxgw.v1.events_pb2 import GAP_REASON_SOURCE_OVERFLOW, GAP_REASON_SOURCE_RECONNECTED
from mxgw_worker.backends.sim.alarms import AlarmManager
from mxgw_worker.backends.sim.coerce import Value
from mxgw_worker.backends.sim.emitter import Emitter
from mxgw_worker.backends.sim.galaxy import SimObject
from mxgw_worker.backends.sim.status import DataType, Security

log = logging.getLogger(__name__)

# The exit code of a worker that a test makes crash. Source: sysexits.h, EX_SOFTWARE.
CRASH_EXIT_CODE = 70
_FREE = Security.FREE_ACCESS


def add_controls(emitter: Emitter, alarms: AlarmManager) -> None:
    """Add the object `Sim`, whose attributes make the simulator misbehave, to the simulated galaxy."""
    sim = emitter.galaxy.add(SimObject("Sim", "", "Switches of the simulator itself"))

    def platform(down: Value) -> None:
        if down:
            emitter.platform_down()
        else:
            emitter.platform_up()

    def drop_completions(count: Value) -> None:
        emitter.drop_completions = int(_number(count))

    def delay_completions(seconds: Value) -> None:
        emitter.completion_delay_s = _number(seconds)

    def crash(yes: Value) -> None:
        if yes:
            log.critical("crashing because Sim.Crash was written")
            logging.shutdown()
            os._exit(CRASH_EXIT_CODE)

    def hang(seconds: Value) -> None:
        until = time.perf_counter() + _number(seconds) if _number(seconds) >= 0 else float("inf")
        while (left := until - time.perf_counter()) > 0:
            time.sleep(min(left, 1.0))

    def reconnected(count: Value) -> None:
        missed = int(_number(count))
        emitter.sink.source_gap(GAP_REASON_SOURCE_RECONNECTED, "Sim.Reconnected was written", missed)

    def overflowed(count: Value) -> None:
        emitter.sink.source_gap(GAP_REASON_SOURCE_OVERFLOW, "Sim.Overflowed was written", int(_number(count)))

    def fail(yes: Value) -> None:
        if yes:
            emitter.sink.failed("Sim.Fail was written")

    def alarm_manager(down: Value) -> None:
        alarms.is_down = bool(down)

    delay_s = emitter.completion_delay_s
    integer, double, boolean = DataType.INTEGER, DataType.DOUBLE, DataType.BOOLEAN
    for name, data_type, initial, low, written, description in (
        ("PlatformDown", boolean, False, None, platform, "True takes the platform down, false brings it back"),
        ("AlarmManagerDown", boolean, False, None, alarm_manager, "True lets the alarm manager fail; false ends that"),
        ("DropCompletions", integer, 0, 0.0, drop_completions, "So many write completions from now on go missing"),
        ("CompletionDelay", double, delay_s, 0.0, delay_completions, "Seconds until a write or operation completes"),
        ("Crash", boolean, False, None, crash, "True ends the worker process at once, as a crash would"),
        ("Hang", double, 0.0, None, hang, "Seconds for which the worker process stands still; negative is for ever"),
        ("Reconnected", integer, 0, 0.0, reconnected, "Report a gap: source reconnected, so many events missed"),
        ("Overflowed", integer, 0, 0.0, overflowed, "Report a gap: source queue overflowed, so many events missed"),
        ("Fail", boolean, False, None, fail, "True makes the backend declare itself beyond repair"),
    ):
        control = sim.add_writeable(name, data_type, initial, description, security=_FREE, low=low)
        control.written = written
        control.high = 3_600.0 if name == "CompletionDelay" else None
    for attribute in sim.attributes():
        attribute.immune = True


def _number(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
