"""From the XML of the alarm manager to alarms: hardened, tolerant of what is missing, and with the times of steps."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest
from support.alarms import ACK_ALM, ACK_RTN, UNACK_ALM, UNACK_RTN

from mxgw.v1.alarms_pb2 import ALARM_STATE_UNSPECIFIED, Alarm
from mxgw_worker.backends.base import BackendUnavailable, MxError
from mxgw_worker.backends.mxaccess.alarms import records
from mxgw_worker.backends.mxaccess.alarms.book import AlarmBook
from mxgw_worker.backends.mxaccess.alarms.native import RecordReader, state_of
from mxgw_worker.backends.mxaccess.alarms.options import AlarmOptions
from mxgw_worker.backends.mxaccess.alarms.query import query_xml, subscription
from mxgw_worker.backends.mxaccess.alarms.records import UnreadableXml, parse_records
from mxgw_worker.backends.mxaccess.alarms.times import RecordTimes
from mxgw_worker.backends.mxaccess.dates import Dates
from mxgw_worker.backends.mxaccess.options import MxAccessOptions


def no_date(text: str) -> float:
    raise ValueError(text)


def book(**options: object) -> AlarmBook:
    parsed = AlarmOptions(**options)  # type: ignore[arg-type]
    times = RecordTimes(parsed.times, Dates(local=False), no_date)
    return AlarmBook(parsed, RecordReader(parsed, times))


def xml(*listed: dict[str, str]) -> str:
    root = ElementTree.Element("ALARM_RECORDS")
    for fields in listed:
        one = ElementTree.SubElement(root, "ALARM")
        for name, text in fields.items():
            ElementTree.SubElement(one, name).text = text
    return ElementTree.tostring(root, encoding="unicode")


def fields(state: str = "UNACK_ALM", time: str = "12:00:00.000", **more: str) -> dict[str, str]:
    return {"GUID": "A1", "TAGNAME": "T.Level", "STATE": state, "DATE": "2026/5/1", "TIME": time, **more}


def one(alarms: AlarmBook, state: str = "UNACK_ALM", time: str = "12:00:00.000", **more: str) -> Alarm:
    (alarm,) = alarms.listed(xml(fields(state, time, **more)))
    return alarm


def seconds(alarm: Alarm, field: str) -> float | None:
    """Return a time in seconds after 2026-05-01 12:00 UTC, or None."""
    if not alarm.HasField(field):  # type: ignore[arg-type]
        return None
    start = datetime(2026, 5, 1, 12, tzinfo=UTC).timestamp()
    return round(getattr(alarm, field).ToNanoseconds() / 1e9 - start, 6)


# The XML


def test_names_are_capital_and_texts_are_trimmed_whatever_the_encoding_that_is_declared() -> None:
    text = (
        '<?xml version="1.0" encoding="UTF-16"?>\n<Alarm_Records COUNT="1"><Alarm GUID="x"><State> prüf &lt; </State>'
    )

    assert parse_records(text + "</Alarm></Alarm_Records>") == [{"GUID": "x", "STATE": "prüf <"}]


@pytest.mark.parametrize("text", ["", " \r\n", "<ALARM_RECORDS/>", '<?xml version="1.0"?><ALARM_RECORDS COUNT="0"/>'])
def test_an_answer_without_alarms_has_no_records(text: str) -> None:
    assert parse_records(text) == []


def test_what_xml_cannot_hold_does_not_lose_the_other_alarms() -> None:
    text = "<ALARM_RECORDS><ALARM><A>x\x01\ud800y</A></ALARM><ALARM><A>z</A></ALARM></ALARM_RECORDS>"

    assert parse_records(text) == [{"A": "x\ufffd\ufffdy"}, {"A": "z"}]


BOMB = '<!DOCTYPE x [<!ENTITY a "ha">]><ALARM_RECORDS><ALARM><A>&a;</A></ALARM></ALARM_RECORDS>'
OUTSIDE = '<!DOCTYPE x SYSTEM "file:///etc/passwd"><ALARM_RECORDS/>'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "document type"),
        (OUTSIDE, "document type"),
        ("<ALARM_RECORDS><ALARM><A>&a;</A></ALARM></ALARM_RECORDS>", "no XML"),
        ("<ALARM_RECORDS><ALARM>", "no XML"),
        ("nonsense", "no XML"),
        ("<html/>", "'HTML'"),
        ("<ALARM_RECORDS>" + "<x>" * 20 + "</x>" * 20 + "</ALARM_RECORDS>", "nested"),
        ("<ALARM_RECORDS><ALARM>" + "".join(f"<f{n}/>" for n in range(201)) + "</ALARM></ALARM_RECORDS>", "200 fields"),
    ],
)
def test_what_no_alarm_manager_sends_is_refused(text: str, why: str) -> None:
    with pytest.raises(UnreadableXml, match=why):
        parse_records(text)


def test_an_answer_beyond_a_limit_is_refused_or_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST_CHARACTERS", 100)
    monkeypatch.setattr(records, "MOST_TEXT", 3)

    assert parse_records("<ALARM_RECORDS><ALARM><A>longer</A></ALARM></ALARM_RECORDS>") == [{"A": "lon"}]
    with pytest.raises(UnreadableXml, match="more than 100"):
        parse_records("<ALARM_RECORDS>" + " " * 100 + "</ALARM_RECORDS>")

    monkeypatch.setattr(records, "MOST_RECORDS", 2)
    with pytest.raises(UnreadableXml, match="2 records"):
        parse_records("<ALARM_RECORDS>" + "<ALARM/>" * 3 + "</ALARM_RECORDS>")


# Times


@pytest.mark.parametrize(
    ("zone", "offset", "daylight", "hour"),
    [
        ("bias", "240", "0", 17),  # UTC is local time plus the bias
        ("bias", "300", "-60", 17),
        ("east", "-240", "0", 17),
        ("bias", "", "", 13),  # no offset: the zone of the backend, here UTC
        ("bias", "x", "0", 13),
        ("bias", "99999", "0", 13),
        ("utc", "240", "0", 13),
    ],
)
def test_a_time_becomes_utc_by_the_offset_of_its_record(zone: str, offset: str, daylight: str, hour: int) -> None:
    ns = RecordTimes(zone, Dates(local=False), no_date).ns("2026/5/1", "13:26:14.709", offset, daylight)

    assert ns == int(datetime(2026, 5, 1, hour, 26, 14, tzinfo=UTC).timestamp()) * 10**9 + 709_000_000


def test_a_time_of_the_zone_local_is_that_of_this_machine() -> None:
    local = int(datetime(2026, 1, 15, 13, 26, 14).timestamp()) * 10**9  # noqa: DTZ001  the zone of this machine

    assert RecordTimes("local", Dates(local=False), no_date).ns("2026-01-15", "13:26:14", "77", "0") == local
    assert RecordTimes("bias", Dates(local=True), no_date).ns("2026-01-15", "13:26:14", "", "") == local


@pytest.mark.parametrize(
    ("text", "second"),
    [
        ("01:02:03", 3723),
        ("1:02", 3720),
        ("1:02:03 AM", 3723),
        ("1:02:03 pm", 46923),
        ("12:00:00 AM", 0),
        ("12:00:00 PM", 43200),
    ],
)
def test_times_of_day_are_read_as_people_write_them(text: str, second: int) -> None:
    midnight = int(datetime(2026, 5, 1, tzinfo=UTC).timestamp())

    assert RecordTimes("utc", Dates(local=False), no_date).ns("2026-5-1", text, "", "") == (midnight + second) * 10**9


@pytest.mark.parametrize(
    ("date", "time"),
    [("", "12:00:00"), ("2026/5/1", ""), ("2026/13/1", "12:00"), ("2026/5/1", "24:00:00"), ("2026/5/1", "13:00 PM")],
)
def test_what_is_no_time_is_none(date: str, time: str) -> None:
    assert RecordTimes("utc", Dates(local=False), no_date).ns(date, time, "", "") is None


def test_any_other_order_of_a_date_is_read_in_the_language_of_the_machine() -> None:
    asked: list[str] = []

    def date_of(text: str) -> float:
        asked.append(text)
        return 45000.0  # 2023-03-15

    times = RecordTimes("utc", Dates(local=False), date_of)

    assert times.ns("15.3.2023", "00:00:01", "", "") == (int(datetime(2023, 3, 15, tzinfo=UTC).timestamp()) + 1) * 10**9
    assert times.ns("15.3.2023", "00:00:02", "", "") is not None
    assert asked == ["15.3.2023"]


# What a record means


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("UNACK_ALM", UNACK_ALM),
        ("UNACK", UNACK_ALM),
        ("ack_alm", ACK_ALM),
        ("ACK", ACK_ALM),
        ("UNACK_RTN", UNACK_RTN),
        ("ACK-RTN", ACK_RTN),
        ("EVT_EVT", ALARM_STATE_UNSPECIFIED),
        ("", ALARM_STATE_UNSPECIFIED),
    ],
)
def test_a_state_is_known_by_its_text(text: str, state: int) -> None:
    assert state_of(text) == state


def test_a_whole_record_becomes_an_alarm() -> None:
    alarm = one(
        book(),
        "UNACK_ALM",
        PRIORITY="200",
        GROUP="North",
        PROVIDER="Galaxy",
        TYPE="Hi",
        VALUE="71.5",
        LIMIT="70",
        COMMENT="Level, %",
        OPERATOR="nobody yet",
    )

    assert (alarm.reference, alarm.alarm_id, alarm.state, alarm.native_state) == (
        "T.Level",
        "A1",
        UNACK_ALM,
        "UNACK_ALM",
    )
    assert (alarm.priority, alarm.raw_priority, alarm.area, alarm.alarm_type) == (200, 200, "North", "Hi")
    assert (alarm.value.double, alarm.limit.double) == (71.5, 70.0)
    assert (alarm.description, alarm.comment, alarm.operator) == ("Level, %", "", "")
    assert seconds(alarm, "raise_time") == 0


def test_a_record_with_a_name_and_a_state_only_is_an_alarm_too() -> None:
    (alarm,) = book().listed(xml({"TAGNAME": "T.Level", "STATE": "ACK_ALM"}))

    assert (alarm.alarm_id, alarm.state, alarm.priority, alarm.raw_priority) == ("name:T.Level", ACK_ALM, 999, 0)
    assert not any(alarm.HasField(name) for name in ("value", "limit", "raise_time", "ack_time", "clear_time"))


@pytest.mark.parametrize(
    ("text", "priority"), [("0", 1), ("1000", 999), ("-5", 1), ("high", 999), ("99999999999", 999)]
)
def test_a_priority_outside_of_its_range_is_brought_into_it(text: str, priority: int) -> None:
    assert one(book(), PRIORITY=text).priority == priority


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [("true", "boolean", True), ("1e3", "double", 1000.0), ("nan", "string", "nan"), ("1_0", "string", "1_0")],
)
def test_a_value_is_a_number_or_a_truth_where_it_is_one(text: str, kind: str, value: object) -> None:
    alarm = one(book(), VALUE=text)

    assert getattr(alarm.value, kind) == value
    assert alarm.value.WhichOneof("kind") == kind


def test_the_names_of_elements_can_be_given() -> None:
    alarms = book(elements=("state=Condition", "name=Full_Name"))
    (alarm,) = alarms.listed(xml({"CONDITION": "ACK_RTN", "FULL_NAME": "T.Level", "STATE": "UNACK", "NAME": "no"}))

    assert (alarm.state, alarm.reference) == (ACK_RTN, "T.Level")


def test_the_names_of_elements_are_shown_when_no_record_can_be_read() -> None:
    with pytest.raises(MxError, match=r"elements: ALARM_STATE, KEY; their states: EVENT\. The option alarm_elements"):
        book().listed(xml({"KEY": "x", "ALARM_STATE": "EVENT"}))


def test_a_record_that_is_no_alarm_is_left_out_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    alarms = book()
    with caplog.at_level(logging.WARNING):
        for time in ("12:00:00", "12:00:01"):
            assert len(alarms.listed(xml(fields(time=time), fields("EVT", GUID="B")))) == 1

    assert [record.message for record in caplog.records] == [
        "1 of the alarm manager's 2 records were left out, because they have no name or no state of an alarm; elements:"
        " DATE, GUID, STATE, TAGNAME, TIME; states: EVT, UNACK_ALM"
    ]


# What is remembered


def test_an_alarm_that_does_not_change_is_the_same_object() -> None:
    alarms = book()
    first = one(alarms)
    again = one(alarms)
    with_another = alarms.listed(xml(fields(), fields(GUID="B", TAGNAME="T.Other")))

    assert first is again is with_another[0]
    assert alarms.listed(xml(fields())) is alarms.listed(xml(fields()))
    assert one(alarms, time="12:00:01") is not first


def test_each_step_has_its_time_and_the_description_stays() -> None:
    alarms = book()
    one(alarms, COMMENT="Level, %")
    acknowledged = one(alarms, "ACK_ALM", "12:00:05", COMMENT="seen", OPERATOR="anna")
    ended = one(alarms, "ACK_RTN", "12:00:09", COMMENT="seen", OPERATOR="anna")

    assert [seconds(ended, name) for name in ("raise_time", "ack_time", "clear_time")] == [0, 5, 9]
    assert seconds(acknowledged, "clear_time") is None
    assert (ended.description, ended.comment, ended.operator) == ("Level, %", "seen", "anna")


def test_an_alarm_that_returned_first_ends_with_its_acknowledgement() -> None:
    alarms = book()
    one(alarms)
    one(alarms, "UNACK_RTN", "12:00:05")
    ended = one(alarms, "ACK_RTN", "12:00:09")

    assert [seconds(ended, name) for name in ("raise_time", "ack_time", "clear_time")] == [0, 9, 5]


def test_an_alarm_that_is_raised_anew_has_only_its_new_time() -> None:
    alarms = book()
    one(alarms)
    one(alarms, "UNACK_RTN", "12:00:05")
    raised = one(alarms, "UNACK_ALM", "12:00:07")

    assert [seconds(raised, name) for name in ("raise_time", "ack_time", "clear_time")] == [7, None, None]


def test_an_alarm_that_is_raised_anew_without_a_time_has_none() -> None:
    alarms = book()
    one(alarms)
    one(alarms, "UNACK_RTN", "12:00:05")

    assert seconds(one(alarms, "UNACK_ALM", ""), "raise_time") is None


def test_the_times_of_steps_that_were_not_seen_are_unknown() -> None:
    acknowledged, ended = one(book(), "ACK_ALM", "12:00:05"), one(book(), "ACK_RTN", "12:00:09")

    assert [seconds(acknowledged, name) for name in ("raise_time", "ack_time", "clear_time")] == [None, 5, None]
    assert [seconds(ended, name) for name in ("raise_time", "ack_time", "clear_time")] == [None, None, None]


def test_a_record_that_keeps_the_time_of_its_raising_says_nothing_of_later_steps() -> None:
    alarms = book()
    one(alarms)
    acknowledged = one(alarms, "ACK_ALM")

    assert [seconds(acknowledged, name) for name in ("raise_time", "ack_time")] == [0, None]


def test_of_several_records_of_one_alarm_the_newest_counts() -> None:
    (alarm,) = book().listed(xml(fields("ACK_ALM", "12:00:05"), fields("UNACK_ALM", "12:00:00")))
    (of_one_time,) = book().listed(xml(fields("UNACK_ALM"), fields("ACK_ALM")))

    assert alarm.state == of_one_time.state == ACK_ALM


def test_a_full_list_is_refused_because_alarms_may_be_missing() -> None:
    alarms = book(most=2)

    assert len(alarms.listed(xml(fields()))) == 1
    with pytest.raises(MxError, match="alarm_most"):
        alarms.listed(xml(fields(), fields(GUID="B")))


def test_in_a_history_an_alarm_goes_on_until_its_end_was_recorded() -> None:
    alarms = book(display="History", most=1)
    one(alarms)
    other = fields(GUID="B", TAGNAME="T.Other")

    assert {alarm.alarm_id for alarm in alarms.listed(xml(other))} == {"A1", "B"}
    ended = {alarm.alarm_id: alarm for alarm in alarms.listed(xml(fields("ACK_RTN", "12:00:05")))}
    assert (ended["A1"].state, ended["B"].state) == (ACK_RTN, UNACK_ALM)
    assert [alarm.alarm_id for alarm in alarms.listed(xml(other))] == ["B"]


# The query and the options


def test_the_query_is_xml_whatever_the_names_are() -> None:
    options = AlarmOptions(areas=("Area<1>", "B&C"), node="n&m", provider="Galaxy")
    root = ElementTree.fromstring(query_xml(options))

    assert root.tag == "QUERIES"
    assert root.attrib == {
        "FROM_PRIORITY": "1",
        "TO_PRIORITY": "999",
        "ALARM_STATE": "ALL",
        "DISPLAY_MODE": "Summary",
    }
    assert [[(part.tag, part.text) for part in query] for query in root.findall("QUERY")] == [
        [("NODE", "n&m"), ("PROVIDER", "Galaxy"), ("GROUP", "Area<1>")],
        [("NODE", "n&m"), ("PROVIDER", "Galaxy"), ("GROUP", "B&C")],
    ]


def test_a_subscription_names_the_machine_and_the_areas() -> None:
    assert subscription(AlarmOptions(areas=("A", "B")), "HOST") == r"\\HOST\Galaxy!A \\HOST\Galaxy!B"
    assert subscription(AlarmOptions(areas=("A",), node="other", provider="InTouch"), "H") == r"\\other\InTouch!A"


def test_the_options_of_alarms_are_read() -> None:
    alarms = MxAccessOptions.parse({"alarm_areas": ["A"], "alarm_subscribe": [1, 2], "alarm_answer_s": 2}).alarms

    assert (alarms.areas, alarms.subscribe, alarms.answer_s, alarms.node) == (("A",), (1, 2), 2, "localhost")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alarm_areas", "Area_001"),
        ("alarm_areas", ["Area 001"]),
        ("alarm_areas", [r"\Galaxy!Area_001"]),
        ("alarm_areas", [""]),
        ("alarm_areas", ["x"] * 201),
        ("alarm_consumer", 7),
        ("alarm_node", ""),
        ("alarm_provider", "a\nb"),
        ("alarm_display", "summary"),
        ("alarm_most", 0),
        ("alarm_most", True),
        ("alarm_answer_s", "4"),
        ("alarm_times", "CET"),
        ("alarm_subscribe", ["2"]),
        ("alarm_acknowledge", ["guid"]),
        ("alarm_elements", ["state"]),
        ("alarm_elements", ["colour=COLOUR"]),
    ],
)
def test_an_option_that_is_not_valid_is_named(name: str, value: object) -> None:
    with pytest.raises(BackendUnavailable, match=f"'{name}'"):
        MxAccessOptions.parse({name: value})


def test_an_unknown_option_of_alarms_gets_a_hint() -> None:
    with pytest.raises(BackendUnavailable, match="did you mean 'alarm_areas'"):
        MxAccessOptions.parse({"alarm_area": ["A"]})
