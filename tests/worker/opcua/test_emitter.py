"""What the emitter says twice and what it does not."""

from __future__ import annotations

from asyncua import ua

from mxgw_worker.backends.opcua.emitter import Emitter
from mxgw_worker.backends.opcua.items import Item

from .harness import Sink


def _emitter() -> tuple[Emitter, Sink]:
    emitter, sink = Emitter(buffer_limit_events=10), Sink()
    emitter.open(sink)
    return emitter, sink


def test_an_outage_is_told_once_per_item_until_it_has_a_value_again() -> None:
    emitter, sink = _emitter()
    item = Item(1, 1, "a", "", advised=True)
    emitter.lose(item)
    emitter.lose(item)
    assert [change.quality for change in sink.changes()] == [24]
    notification = ua.MonitoredItemNotification(ClientHandle=5, Value=ua.DataValue(ua.Variant(1, ua.VariantType.Int32)))
    emitter.notify([notification], {5: item})
    emitter.lose(item)

    assert [change.quality for change in sink.changes()] == [24, 192, 24]


def test_gathered_values_leave_before_a_gap_and_before_an_outage() -> None:
    emitter, sink = _emitter()
    item = Item(1, 1, "a", "", buffered=True, advised=True)
    value = ua.DataValue(ua.Variant(1.5, ua.VariantType.Double))
    emitter.notify([ua.MonitoredItemNotification(ClientHandle=5, Value=value)], {5: item})
    emitter.gap(8, "a gap")
    emitter.notify([ua.MonitoredItemNotification(ClientHandle=5, Value=value)], {5: item})
    emitter.lose(item)

    assert [type(entry).__name__ for entry in sink.log] == ["Buffered", "Gap", "Buffered", "Buffered"]
    assert [event.qualities for event in sink.buffered()] == [(192,), (192,), (24,)]


def test_a_closed_emitter_is_silent() -> None:
    emitter, sink = _emitter()
    item = Item(1, 1, "a", "", advised=True)
    emitter.close()
    emitter.lose(item)
    emitter.fail(item, ua.StatusCodes.BadNodeIdUnknown)
    emitter.gap(8, "a gap")
    emitter.health(3, "lost")
    emitter.write_complete(item, ())

    assert sink.log == []


def test_nothing_is_said_of_an_item_that_is_removed() -> None:
    emitter, sink = _emitter()
    value = ua.DataValue(ua.Variant(1.5, ua.VariantType.Double))
    for buffered in (False, True):
        item = Item(1, 1, "a", "", buffered=buffered, removed=True)
        emitter.notify([ua.MonitoredItemNotification(ClientHandle=5, Value=value)], {5: item})
        emitter.repeat(item)
        emitter.fail(item, 0x80340000)
        emitter.lose(item)
        emitter.flush_all()

    assert sink.log == []
