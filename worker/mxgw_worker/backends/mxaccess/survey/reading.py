"""The steps of the survey that only read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mxgw_worker.backends.mxaccess.survey.client import Called, Client, Item, NotSeen, is_failure, status_text
from mxgw_worker.backends.mxaccess.survey.recording import BUFFERED, DATA_CHANGE, Seen
from mxgw_worker.backends.mxaccess.survey.zones import offset_s, zone_of

Facts = dict[str, Any]

# No Galaxy has an object of this name.
NOBODY = "MxgwDoctorAsksForNobody"
_MOST_EVENTS = 20
# So many attributes of the scratch object are looked at, beyond those that it is made for.
_MOST_ATTRIBUTES = 100
BUFFERED_INTERVAL_MS = 250
ATTRIBUTES = ("Flag", "Count", "Ratio", "Amount", "Text", "Moment", "Span")
ARRAYS = ("Flags", "Counts", "Ratios", "Amounts", "Texts", "Moments")


async def start(client: Client, facts: Facts) -> str:
    """Make the object and register."""
    created = await client.start()
    facts["created"] = created.facts()
    facts["object"] = await client.description()
    registered = await client.register()
    facts["registered"] = registered.facts()
    if registered.hresult is not None:
        raise NotSeen(f"Register {registered.outcome}")
    second = await client.call("Register", client.com.register, "mxgw doctor, second")
    facts["registered_again"] = second.facts()
    if second.hresult is None:
        facts["unregistered"] = (await client.call("Unregister", client.com.unregister, second.result)).facts()
    wrong = facts["object"].get("methods_at_other_places")
    return (
        f"interface version {facts['object']['version']}; the object is made in {created.seconds:.2f} s, and Register"
        f" returns {client.server} in {registered.seconds:.2f} s"
        + (f"; METHODS AT OTHER PLACES than expected: {', '.join(wrong)}" if wrong else "")
    )


async def wrong_names(client: Client, facts: Facts) -> str:
    """Add and advise what does not exist."""
    answers = []
    facts["items"] = items = []
    for reference in (f"{NOBODY}.Nothing", NOBODY):
        called, item = await client.add(reference)
        entry: Facts = {"reference": reference, "calls": [called.facts()], "events": []}
        items.append(entry)
        if called.hresult is not None:
            answers.append(f"AddItem {called.outcome}")
            continue
        advised = await client.advise(item)
        entry["calls"].append(advised.facts())
        seen = await client.value(item) if advised.hresult is None else None
        entry["events"] = events_of(client, item, with_value=True)
        entry["calls"] += [one.facts() for one in await client.remove(item)]
        if advised.hresult is not None:
            answers.append(f"Advise {advised.outcome}")
        elif seen is None:
            answers.append(f"nothing comes for {client.request.patience_s:g} s")
        else:
            answers.append(f"after {seen.at - item.began:.2f} s a data change with {status_text(seen)}")
    return f"object that does not exist: {answers[0]}. Without an attribute: {answers[1]}"


async def handles(client: Client, facts: Facts) -> str:
    """Add, remove and add again; call with a handle that is not one."""
    items = [await _added(client, facts) for _ in range(3)]
    com = client.com
    facts["removed"] = (await client.call("RemoveItem", com.remove_item, client.server, items[1].handle)).facts()
    again = await _added(client, facts)
    wrong = max(item.handle for item in items) + 1000
    failures = [
        await client.call("Advise", com.advise, client.server, wrong),
        await client.call("RemoveItem", com.remove_item, client.server, wrong),
        await client.call("AddItem", com.add_item, client.server + 1000, f"{NOBODY}.Nothing"),
    ]
    facts["wrong_handles"] = [called.facts() for called in failures]
    for item in (items[0], items[2], again):
        await client.call("RemoveItem", com.remove_item, client.server, item.handle)
    reused = "is given out again" if again.handle == items[1].handle else f"is not reused at once, {again.handle} comes"
    return (
        f"handles {', '.join(str(item.handle) for item in items)}; the one that was removed {reused}."
        f" A wrong item handle: {failures[0].outcome}; a wrong server handle: {failures[2].outcome}"
    )


async def _added(client: Client, facts: Facts) -> Item:
    called, item = await client.add(f"{NOBODY}.Nothing")
    facts.setdefault("added", []).append(called.facts())
    if called.hresult is not None:
        raise NotSeen(f"AddItem {called.outcome}")
    return item


async def tags(client: Client, facts: Facts) -> str:
    """Look at the first events of the tags that the user named. No value is kept."""
    answers = []
    for reference in client.request.tags:
        entry = facts[reference] = {}
        try:
            answers.append(f"{reference}: {await _first_values(client, reference, entry)}")
        except NotSeen as why:
            answers.append(str(why))
    return ". ".join(answers)


async def _first_values(client: Client, reference: str, facts: Facts, *, with_value: bool = False) -> str:
    item, first = await client.advised(reference)
    await client.quiet()
    events = client.of(item)
    before = [seen for seen in events if seen.at < first.at]
    changes = [seen for seen in events if seen.at > first.at and not is_failure(seen)]
    facts["first_value_after_s"] = round(first.at - item.began, 4)
    facts["events_before_it"] = len(before)
    facts["changes_after_it"] = {"number": len(changes), "within_s": client.request.quiet_s}
    facts["events"] = [seen.facts(item.began, with_value=with_value) for seen in events[:_MOST_EVENTS]]
    if changes:
        last = changes[-1]
        facts["zone_of_times"] = zone_of(last.times_ns[0], last.clock_ns, offset_s())
    await client.remove(item)
    return (
        f"first value after {first.at - item.began:.2f} s as {first.value_type}, time as {type_of(first, 'time')},"
        f" after {len(before)} others"
        + (f" ({status_text(before[0])})" if before else "")
        + (f"; zone of the times: {facts['zone_of_times']}" if changes else "")
    )


async def attributes(client: Client, facts: Facts) -> str:
    """Ask the scratch object for the names of its attributes."""
    item, first = await client.advised(f"{client.request.scratch}._Attributes")
    names = list(first.value.array.strings.elements)
    facts["after_s"] = round(first.at - item.began, 4)
    facts["event"] = first.facts(item.began, with_value=False)
    facts["number"] = len(names)
    facts["names"] = names
    await client.remove(item)
    arrays = sum(name.endswith("[]") for name in names)
    return f"{len(names)} names as {first.value_type} after {first.at - item.began:.2f} s, {arrays} of them with []"


async def types(client: Client, facts: Facts) -> str:
    """Look at the type of each attribute of the scratch object: its VARTYPE, and its data type where it can be told."""
    scratch = client.request.scratch
    wanted = [*ATTRIBUTES, *(f"{name}[]" for name in ARRAYS)]
    others = [name for name in await _names(client) if name.removesuffix("[]") not in (*ATTRIBUTES, *ARRAYS)]
    names = [*wanted, *others[:_MOST_ATTRIBUTES]]
    items = []
    for name in names:
        called, item = await client.add(f"{scratch}.{name}")
        if called.hresult is None and (await client.advise(item)).hresult is None:
            items.append((name, item))
    for name, item in items:
        seen = await client.value(item)
        facts[name] = "nothing came" if seen is None else seen.facts(item.began, with_value=True)
        await client.remove(item)
    there = [name for name in wanted if _has_value(facts.get(name))]
    if not there:
        raise NotSeen(f"{scratch} has none of the attributes {', '.join(wanted)}")
    if client.com.version >= 5:
        await _find_data_types(client, there, facts)
    return ", ".join(f"{name} {facts[name]['value_type']}" for name in there)


def _has_value(entry: object) -> bool:
    return isinstance(entry, dict) and all(status["success"] for status in entry.get("statuses", ()))


async def _names(client: Client) -> Sequence[str]:
    try:
        item, first = await client.advised(f"{client.request.scratch}._Attributes")
    except NotSeen:
        return ()
    await client.remove(item)
    return list(first.value.array.strings.elements)


async def _find_data_types(client: Client, names: Sequence[str], facts: Facts) -> None:
    """Add the number of the data type of each attribute, which only the events of buffered items have."""
    com = client.com
    await client.call(
        "SetBufferedUpdateInterval", com.set_buffered_update_interval, client.server, BUFFERED_INTERVAL_MS
    )
    items = []
    for name in names:
        called, item = await client.add(f"{client.request.scratch}.{name}", "AddBufferedItem")
        if called.hresult is None:
            items.append((name, item))
            called = await client.advise(item)
        if called.hresult is not None:
            facts[name]["data_type"] = f"{called.method} {called.outcome}"
    for name, item in items:
        seen = await client.event(item, BUFFERED)
        facts[name].setdefault("data_type", "nothing came" if seen is None else seen.data_type)
        await client.remove(item)


async def references(client: Client, facts: Facts) -> str:
    """Advise references in all forms."""
    scratch = client.request.scratch
    answers = []
    forms = {
        "an array without []": f"{scratch}.Counts",
        "its element 0": f"{scratch}.Counts[0]",
        "its element 1": f"{scratch}.Counts[1]",
        "an element beyond its end": f"{scratch}.Counts[30000]",
        "no array with []": f"{scratch}.Count[]",
        "an attribute that does not exist": f"{scratch}.{NOBODY}",
        "the name in other case": f"{scratch.swapcase()}.cOUNT",
    }
    for what, reference in forms.items():
        called, item = await client.add(reference)
        answers.append(f"{what}: {await _answer_of(client, called, item, facts, what)}")
    if client.com.version >= 3:
        called, item = await client.add("Count", "AddItem2", scratch)
        answers.append(f"AddItem2 with a context: {await _answer_of(client, called, item, facts, 'with a context')}")
    return "; ".join(answers)


async def _answer_of(client: Client, called: Called, item: Item, facts: Facts, what: str) -> str:
    entry: Facts = {"reference": item.reference, "calls": [called.facts()]}
    facts[what] = entry
    if called.hresult is not None:
        return f"{called.method} {called.outcome}"
    advised = await client.advise(item)
    entry["calls"].append(advised.facts())
    seen = await client.value(item)
    entry["events"] = events_of(client, item, with_value=True)
    await client.remove(item)
    if seen is None:
        return "nothing comes"
    return status_text(seen) if is_failure(seen) else f"a value as {seen.value_type}"


def events_of(client: Client, item: Item, *, with_value: bool) -> list[dict[str, object]]:
    """Return the first events of an item for the file."""
    return [seen.facts(item.began, with_value=with_value) for seen in client.of(item)[:_MOST_EVENTS]]


def type_of(seen: Seen, argument: str) -> str:
    """Return the VARTYPE of an argument of an event, where it is known."""
    types_of_arguments = seen.facts(0.0, with_value=False).get("types")
    return str(types_of_arguments.get(argument, "unknown")) if isinstance(types_of_arguments, dict) else "unknown"


async def supervisory(client: Client, facts: Facts) -> str:
    """Advise the scratch object's attribute as a supervisory client does, without writing."""
    called, item = await client.add(f"{client.request.scratch}.Count")
    if called.hresult is not None:
        raise NotSeen(f"AddItem {called.outcome}")
    advised = await client.advise(item, supervisory=True)
    seen = await client.value(item) if advised.hresult is None else None
    facts["advised"] = advised.facts()
    facts["events"] = events_of(client, item, with_value=True)
    await client.remove(item)
    return f"AdviseSupervisory {advised.outcome}" + (", and a value comes" if seen and seen.kind == DATA_CHANGE else "")
