"""`mxgw write`: writes values from the command line to tags, and prints the result of each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rich.text import Text

import mxgw_client
from mxgw.convert import PyValue
from mxgw_cli.gateway import connected, session_of
from mxgw_cli.options import GatewayTarget
from mxgw_cli.render import failure_text, status_document, value_text, write_json
from mxgw_cli.shell import SilentFailure, console
from mxgw_client import DataType
from mxgw_core.printable import printable

_TYPES = {
    "boolean": DataType.BOOLEAN,
    "integer": DataType.INTEGER,
    "float": DataType.FLOAT,
    "double": DataType.DOUBLE,
    "string": DataType.STRING,
    "time": DataType.TIME,
    "elapsed_time": DataType.ELAPSED_TIME,
}
_TRUE, _FALSE = ("true", "on", "yes", "1"), ("false", "off", "no", "0")
# How long the command waits for the completion of a write: a little longer than the worker waits.
COMPLETION_MARGIN_S = 35.0


@dataclass(frozen=True, slots=True)
class WriteReport:
    """The result of one write.

    `outcome` is a text for people. `value` is the value that was sent or, when nothing was sent, the text from the
    command line.
    """

    tag: str
    value: object
    ok: bool
    outcome: str
    reason: str = ""
    hresult: int = 0
    statuses: tuple[mxgw_client.Status, ...] = ()

    def document(self) -> dict[str, object]:
        """Return the report for JSON."""
        return {
            "tag": self.tag,
            "value": self.value,
            "ok": self.ok,
            "outcome": self.outcome,
            "reason": self.reason,
            "hresult": self.hresult,
            "statuses": [status_document(status) for status in self.statuses],
        }


async def write_tags(
    where: GatewayTarget,
    pairs: Sequence[tuple[str, str]],
    *,
    type_name: str,
    user_id: int,
    backend: str,
    session_id: str,
    as_json: bool,
) -> None:
    """Write the values one after the other, and print a report for each.

    Raises:
        SilentFailure: a write failed, or its outcome is unknown.
    """
    async with (
        connected(where) as gateway,
        session_of(gateway, command="write", backend=backend, session_id=session_id) as session,
    ):
        # In the session of another client, existing advised items are used for the writes. A new item for the same tag
        # would have to wait for its first value.
        held = await _held_items(session) if session_id else {}
        reports = await _write_all(session, pairs, type_name, user_id, where.timeout_s, held)
    if as_json:
        write_json([report.document() for report in reports])
    else:
        out = console()
        for report in reports:
            out.print(report_line(report))
    if not all(report.ok for report in reports):
        raise SilentFailure


def report_line(report: WriteReport) -> Text:
    """Return a report as a line of text."""
    line = Text(f"{printable(report.tag, 1024)} = {value_text(report.value, 200)}  ")
    return line.append(printable(report.outcome, 600), style="green" if report.ok else "bold red")


async def _held_items(session: mxgw_client.Session) -> dict[str, mxgw_client.Item]:
    """Return the advised items of a session. Key: reference. Value: item."""
    state = await session.state()
    advised = (mxgw_client.AdviseKind.PLAIN, mxgw_client.AdviseKind.SUPERVISORY)
    return {held.item.reference: held.item for held in state.items if held.advise in advised and not held.buffered}


async def _write_all(
    session: mxgw_client.Session,
    pairs: Sequence[tuple[str, str]],
    type_name: str,
    user_id: int,
    wait_s: float,
    held: Mapping[str, mxgw_client.Item],
) -> list[WriteReport]:
    tags = list(dict.fromkeys(tag for tag, _ in pairs))
    missing = [tag for tag in tags if tag not in held]
    subscribed = {o.reference: o for o in await session.subscribe_bulk(missing, supervisory=user_id == 0)}
    items = [outcome.item for outcome in subscribed.values() if outcome.item is not None]
    try:
        readings = {r.reference: r for r in await session.read_bulk(tags, wait_s=wait_s)}
        reports = []
        for tag, text in pairs:
            item, reading = held.get(tag) or subscribed[tag].item, readings[tag]
            if item is None:
                reports.append(_refused(tag, text, failure_text(subscribed[tag]), subscribed[tag]))
            elif not reading.ok:
                why = f"not written, no first value: {failure_text(reading)}"
                reports.append(_refused(tag, text, why, reading))
            else:
                reports.append(await _write_one(session, item, text, type_name, user_id, reading))
        return reports
    finally:
        if items:
            await session.unsubscribe_bulk(items)


def _refused(tag: str, text: str, why: str, outcome: mxgw_client.ItemOutcome) -> WriteReport:
    return WriteReport(tag, text, False, why, outcome.reason, outcome.hresult, outcome.statuses)


async def _write_one(
    session: mxgw_client.Session,
    item: mxgw_client.Item,
    text: str,
    type_name: str,
    user_id: int,
    reading: mxgw_client.Reading,
) -> WriteReport:
    try:
        value, data_type = parsed(text, type_name, reading.value)
    except ValueError as error:
        return WriteReport(item.reference, text, False, f"not written: {error}", "BAD_VALUE")
    write = mxgw_client.BulkWrite(item, value, user_id=user_id, data_type=data_type)
    outcome = (await session.write_bulk([write], wait=True, timeout_s=COMPLETION_MARGIN_S))[0]
    if outcome.ok and outcome.completed:
        pending = any(status.category is mxgw_client.StatusCategory.PENDING for status in outcome.statuses)
        return WriteReport(
            item.reference,
            value,
            True,
            "accepted, still pending" if pending else "written",
            statuses=outcome.statuses,
        )
    failure = failure_text(outcome) or "no completion came"
    if outcome.reason == "WRITE_COMPLETION_MISSING" or (outcome.ok and not outcome.completed):
        failure += "; the outcome is unknown: read the tag before you write again"
    return WriteReport(
        item.reference, value, False, f"failed: {failure}", outcome.reason, outcome.hresult, outcome.statuses
    )


def parsed(text: str, type_name: str, current: object) -> tuple[PyValue, DataType | None]:
    """Return the value that `text` means, and the data type to send with it.

    A data type of None means that the type follows from the Python type of the value.

    With `type_name` "auto" the value gets the type of `current`, the tag's current value. When the tag has no value,
    the type is guessed from the text.

    Raises:
        ValueError: the text is not a value of this type.
    """
    if type_name == "auto":
        return _like(text, current)
    data_type = _TYPES[type_name]
    value = _json_array(text)
    if value is not None:
        return [_scalar(_json_text(element), data_type) for element in value], data_type
    return _scalar(text, data_type), data_type


def _like(text: str, current: object) -> tuple[PyValue, DataType | None]:
    match current:
        case bool():
            return _scalar(text, DataType.BOOLEAN), None
        case int():
            return _scalar(text, DataType.INTEGER), None
        case float():
            return _scalar(text, DataType.DOUBLE), None
        case str():
            return text, None
        case datetime():
            return _scalar(text, DataType.TIME), None
        case timedelta():
            return _scalar(text, DataType.ELAPSED_TIME), None
        case list():
            elements = _json_array(text)
            if elements is None:
                raise ValueError("the tag is an array: give a JSON list, for example '[1, 2, 3]'")
            sample = current[0] if current else None
            return [_like(_json_text(element), sample)[0] for element in elements], None
        case _:
            return _guessed(text), None


def _guessed(text: str) -> PyValue:
    array = _json_array(text)
    if array is not None:
        return [_guessed(_json_text(element)) for element in array]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _scalar(text: str, data_type: DataType) -> PyValue:
    match data_type:
        case DataType.BOOLEAN:
            if text.lower() in _TRUE:
                return True
            if text.lower() in _FALSE:
                return False
            raise ValueError(f"{text!r} is no boolean: true or false")
        case DataType.INTEGER:
            try:
                return int(text, 0)
            except ValueError:
                raise ValueError(f"{text!r} is no integer") from None
        case DataType.FLOAT | DataType.DOUBLE:
            try:
                return float(text)
            except ValueError:
                raise ValueError(f"{text!r} is no number") from None
        case DataType.TIME:
            return _time(text)
        case DataType.ELAPSED_TIME:
            try:
                return timedelta(seconds=float(text))
            except (ValueError, OverflowError):
                raise ValueError(f"{text!r} is no number of seconds") from None
        case _:
            return text


def _time(text: str) -> datetime:
    if text == "now":
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time: now, or ISO 8601 as in 2026-01-31T08:00:00Z") from None
    # A time without a zone is taken as UTC, as everywhere in mxgw.
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _json_array(text: str) -> list[object] | None:
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, list) else None


def _json_text(element: object) -> str:
    return element if isinstance(element, str) else json.dumps(element)
