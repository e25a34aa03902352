"""The steps of the survey that write, to attributes of the scratch object and to nothing else."""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime

from mxgw.convert import PyValue, from_value
from mxgw_worker.backends.mxaccess.survey.client import Called, Client, Item, NotSeen, status_text
from mxgw_worker.backends.mxaccess.survey.reading import BUFFERED_INTERVAL_MS, Facts, events_of, type_of
from mxgw_worker.backends.mxaccess.survey.recording import (
    BUFFERED,
    DATA_CHANGE,
    PENDING,
    WRITE_COMPLETE,
    Seen,
    time_text,
)
from mxgw_worker.backends.mxaccess.survey.zones import offset_s, zone_of

_TIMED_WRITES = 20
_BUFFERED_WRITES = 5
_MOMENT = datetime(2024, 2, 29, 12, 30, 15, 250_000, UTC)
# 2023-11-14 22:13:20.250 UTC, in nanoseconds since 1970.
_PAST_NS = 1_700_000_000_250_000_000
_VALUES: dict[str, tuple[PyValue, PyValue]] = {
    "Flag": (True, False),
    "Count": (4711, -7),
    "Ratio": (1.5, -0.25),
    "Amount": (2.25, -1e100),
    "Text": ("mxgw grüß Ж", ""),
    "Moment": (_MOMENT, datetime(2023, 1, 1, tzinfo=UTC)),
}
_ELEMENTS: dict[str, PyValue] = {
    "Flags": True,
    "Counts": 11,
    "Ratios": 0.5,
    "Amounts": 0.125,
    "Texts": "mxgw",
    "Moments": _MOMENT,
}
# A name for people, and what is written to Count, an Integer.
_CONVERSIONS: dict[str, PyValue] = {
    "the text 12": "12",
    "the text twelve": "twelve",
    "2.5": 2.5,
    "3.5": 3.5,
    "true": True,
    "3e9": 3e9,
    "an array": [1, 2],
}
_SPANS: dict[str, PyValue] = {"the text 00:01:30": "00:01:30", "90.0": 90.0, "90": 90}


async def early_write(client: Client, facts: Facts) -> str:
    """Write before the item is advised, and again directly after its advise."""
    called, item = await client.add(f"{client.request.scratch}.Count")
    if called.hresult is not None:
        raise NotSeen(f"AddItem {called.outcome}")
    before = await client.write(item, 1)
    start = client.count()
    advised = await client.advise(item)
    after = await client.write(item, 2)
    first = await client.value(item)
    completed = await client.completion(item, start) if after.hresult is None else None
    facts["before_advise"], facts["advise"], facts["directly_after"] = before.facts(), advised.facts(), after.facts()
    facts["events"] = events_of(client, item, with_value=True)
    await client.remove(item)
    if first is None:
        raise NotSeen(f"{item.reference} has reported nothing for {client.request.patience_s:g} s")
    outcome = f", and completes with {status_text(completed)}" if completed is not None else ""
    return f"before Advise, Write {before.outcome}; directly after it, Write {after.outcome}{outcome}"


async def writes(client: Client, facts: Facts) -> str:
    """Write each type twice, and look at the completion, and at what is then reported."""
    answers = []
    for name, values in _VALUES.items():
        answers.append(f"{name}: {await _written(client, name, values, facts)}")
    for name, element in _ELEMENTS.items():
        answers.append(f"{name}[]: {await _written(client, f'{name}[]', element, facts)}")
    return "; ".join(answers)


async def _written(client: Client, name: str, values: PyValue | tuple[PyValue, PyValue], facts: Facts) -> str:
    facts[name] = tried = []
    try:
        item, first = await client.advised(f"{client.request.scratch}.{name}")
    except NotSeen as why:
        return str(why)
    if not isinstance(values, tuple):
        # As many elements as there are: a write of fewer would shorten the array.
        present = from_value(first.value)
        values = ([values] * (len(present) if isinstance(present, list) else 1),) * 2
    outcome = ""
    for value in values[: 1 if name.endswith("[]") else 2]:
        start = client.count()
        called, completed = await _completed(client, item, value)
        reported = await client.event(item, DATA_CHANGE, start) if called.hresult is None else None
        entry: Facts = {"written": repr(value)[:200], "call": called.facts(), "events": _since(client, item, start)}
        tried.append(entry)
        entry["is_reported_as_written"] = reported is not None and from_value(reported.value) == value
        if called.hresult is not None or completed is None:
            outcome = f"Write {called.outcome}" + ("" if called.hresult is not None else ", no completion")
            break
        outcome = status_text(completed) + (
            "" if entry["is_reported_as_written"] else ", AND ANOTHER VALUE THAN WRITTEN IS REPORTED"
        )
    await client.remove(item)
    return outcome


async def _completed(
    client: Client, item: Item, value: PyValue, time_ns: int | None = None
) -> tuple[Called, Seen | None]:
    start = client.count()
    called = await client.write(item, value, time_ns)
    return called, await client.completion(item, start) if called.hresult is None else None


def _since(client: Client, item: Item, start: int) -> list[dict[str, object]]:
    events = client.of(item, start)[:5]
    return [seen.facts(events[0].at, with_value=True) for seen in events]


async def conversions(client: Client, facts: Facts) -> str:
    """Write values of other types to an Integer."""
    item, _ = await client.advised(f"{client.request.scratch}.Count")
    answers: list[str] = []
    for what, value in _CONVERSIONS.items():
        # Another value before each, so that what is written is a change.
        start = client.count()
        await _completed(client, item, 1000 + len(answers))
        await client.event(item, DATA_CHANGE, start)
        start = client.count()
        called, completed = await _completed(client, item, value)
        if called.hresult is not None or completed is None:
            facts[what] = called.facts()
            answers.append(f"{what}: Write {called.outcome}")
            continue
        success = completed.statuses[0][0] if completed.statuses else 0
        reported = await client.event(item, DATA_CHANGE, start) if success else None
        facts[what] = {"completion": completed.facts(completed.at, with_value=False)}
        if reported is not None:
            facts[what]["becomes"] = repr(from_value(reported.value))
        answers.append(
            f"{what}: {status_text(completed)}" if reported is None else f"{what} becomes {facts[what]['becomes']}"
        )
    await client.remove(item)
    return "; ".join(answers)


async def completion_times(client: Client, facts: Facts) -> str:
    """Time writes one after the other, and look at two of one item that are in flight together."""
    item, _ = await client.advised(f"{client.request.scratch}.Count")
    calls, completions, changes = [], [], []
    for number in range(_TIMED_WRITES):
        start, began = client.count(), time.perf_counter()
        called, completed = await _completed(client, item, 100 + number)
        if called.hresult is not None:
            raise NotSeen(f"Write {called.outcome}")
        if completed is None:
            raise NotSeen(f"write {number + 1} has not completed within {client.request.patience_s:g} s")
        changed = await client.event(item, DATA_CHANGE, start)
        calls.append(called.seconds)
        completions.append(completed.at - began)
        if changed is not None:
            changes.append(changed.at - completed.at)
    facts["write_calls_ms"] = _summary(calls)
    facts["write_to_completion_ms"] = _summary(completions)
    facts["completion_to_data_change_ms"] = _summary(changes)
    start = client.count()
    facts["two_in_flight"] = {"calls": [(await client.write(item, value)).facts() for value in (-1, -2)]}
    await client.completion(item, start)
    await client.quiet()
    number = sum(seen.kind == WRITE_COMPLETE for seen in client.of(item, start))
    facts["two_in_flight"]["events"] = _since(client, item, start)
    await client.remove(item)
    order = "before" if changes and statistics.median(changes) > 0 else "after"
    return (
        f"{facts['write_to_completion_ms']['median']} ms from Write to OnWriteComplete (median of {_TIMED_WRITES},"
        f" longest {facts['write_to_completion_ms']['longest']}), {order} the data change; two writes in flight:"
        f" {number} completions"
    )


def _summary(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    return {
        "median": round(statistics.median(seconds) * 1000, 2),
        "shortest": round(min(seconds) * 1000, 2),
        "longest": round(max(seconds) * 1000, 2),
    }


async def times(client: Client, facts: Facts) -> str:
    """Compare the time of a value that was just written with the clock, and see how the time of Write2 is taken."""
    item, first = await client.advised(f"{client.request.scratch}.Count")
    start = client.count()
    called, _ = await _completed(client, item, 31 if from_value(first.value) != 31 else 32)
    seen = await client.event(item, DATA_CHANGE, start) if called.hresult is None else None
    if seen is None:
        raise NotSeen(f"no data change after a Write that {called.outcome}")
    ahead_s = offset_s()
    zone = zone_of(seen.times_ns[0], seen.clock_ns, ahead_s)
    facts |= {"local_time_is_ahead_of_utc_by_s": ahead_s, "zone_of_times": zone, "clock_utc": time_text(seen.clock_ns)}
    facts["event"] = seen.facts(seen.at, with_value=True)
    answer = f"as {type_of(seen, 'time')}, in the zone: {zone}"
    if client.com.version >= 4:
        start = client.count()
        called, completed = await _completed(client, item, 33, _PAST_NS)
        again = await client.event(item, DATA_CHANGE, start) if completed is not None else None
        facts["write2"] = {"given": time_text(_PAST_NS), "call": called.facts()}
        answer += f"; Write2 {called.outcome}"
        if again is not None:
            facts["write2"]["event"] = again.facts(again.at, with_value=True)
            answer += f", its time of {time_text(_PAST_NS)} is reported as {time_text(again.times_ns[0])}"
    await client.remove(item)
    return answer


async def elapsed(client: Client, facts: Facts) -> str:
    """See in which type an elapsed time comes, and in which it can be written."""
    item, first = await client.advised(f"{client.request.scratch}.Span")
    facts["first"] = first.facts(item.began, with_value=True)
    answers = [f"comes as {first.value_type}"]
    for what, value in _SPANS.items():
        start = client.count()
        called, completed = await _completed(client, item, value)
        facts[what] = {"call": called.facts(), "events": _since(client, item, start)}
        outcome = status_text(completed) if completed is not None else f"Write {called.outcome}"
        answers.append(f"{what}: {outcome}")
    await client.remove(item)
    return "; ".join(answers)


async def suspend(client: Client, facts: Facts) -> str:
    """Suspend an item, change it, and activate it again."""
    com = client.com
    item, _ = await client.advised(f"{client.request.scratch}.Count")
    other, _ = await client.advised(f"{client.request.scratch}.Count")
    answers = []
    for method, function in (("Suspend", com.suspend), ("Activate", com.activate), ("Activate", com.activate)):
        start = client.count()
        called = await client.call(method, function, client.server, item.handle)
        if called.hresult is not None:
            facts[method] = called.facts()
            raise NotSeen(f"{method} {called.outcome}")
        done = await client.operation(item, start) if called.result[1] == PENDING else None
        if method == "Suspend":
            await _completed(client, other, 51)
        elif done is not None:
            await client.event(item, DATA_CHANGE, start)  # the change that was kept back
        await client.quiet()
        changes = sum(seen.kind == DATA_CHANGE for seen in client.of(item, start))
        facts[method if method not in facts else f"{method} again"] = {
            "call": called.facts(),
            "events": _since(client, item, start),
        }
        answers.append(
            f"{method} returns category {called.result[1]}, "
            + ("no OperationComplete" if done is None else f"OperationComplete with {status_text(done)}")
            + f", data changes meanwhile: {changes}"
        )
    for each in (item, other):
        await client.remove(each)
    return "; ".join(answers)


async def buffered(client: Client, facts: Facts) -> str:
    """Change a buffered item a few times."""
    com = client.com
    called, item = await client.add(f"{client.request.scratch}.Count", "AddBufferedItem")
    facts["added"] = called.facts()
    if called.hresult is not None:
        raise NotSeen(f"AddBufferedItem {called.outcome}")
    interval = await client.call(
        "SetBufferedUpdateInterval", com.set_buffered_update_interval, client.server, BUFFERED_INTERVAL_MS
    )
    facts["interval"] = interval.facts()
    writer, _ = await client.advised(f"{client.request.scratch}.Count")
    facts["advised"] = (await client.advise(item)).facts()
    first = await client.event(item, BUFFERED)
    start = client.count()
    for number in range(_BUFFERED_WRITES):
        await _completed(client, writer, 200 + number)
    await client.event(item, BUFFERED, start)
    await client.quiet()
    events = [seen for seen in client.of(item) if seen.kind == BUFFERED]
    facts["events"] = events_of(client, item, with_value=True)
    for each in (item, writer):
        await client.remove(each)
    if first is None or not events:
        raise NotSeen("no OnBufferedDataChange has come")
    last = events[-1]
    return (
        f"{len(events)} events with {', '.join(str(len(seen.qualities)) for seen in events[:10])} values; data type"
        f" {last.data_type}, values as {last.value_type}, qualities as {type_of(last, 'quality')}, times as"
        f" {type_of(last, 'time')}"
    )


async def taking_down(client: Client, facts: Facts) -> str:
    """Un-advise an item that changes, and remove one whose write is in flight."""
    com = client.com
    item, _ = await client.advised(f"{client.request.scratch}.Count")
    writer, _ = await client.advised(f"{client.request.scratch}.Count")
    start = client.count()
    facts["un_advised"] = (await client.call("UnAdvise", com.un_advise, client.server, item.handle)).facts()
    await _completed(client, writer, 71)
    await client.quiet()
    late = len(client.of(item, start))
    facts["written_then"] = (written := await client.write(item, 72)).facts()
    facts["removed"] = (await client.call("RemoveItem", com.remove_item, client.server, item.handle)).facts()
    start = client.count()
    facts["in_flight"] = [(await client.write(writer, 73)).facts()]
    facts["in_flight"] += [called.facts() for called in await client.remove(writer)]
    await client.quiet()
    facts["events_of_the_removed_item"] = _since(client, writer, start)
    return (
        f"events after UnAdvise: {late}; a Write then {written.outcome}; events of an item that is removed with a write"
        f" in flight: {len(client.of(writer, start))}"
    )
