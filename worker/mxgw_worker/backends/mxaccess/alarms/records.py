"""Reads the XML of the alarm manager into records: names of elements and their texts.

The texts of a plant are foreign, so nothing but elements, attributes and text is read: no document type, no entities of
a document's own, and not more of anything than an alarm manager can need.
"""

from __future__ import annotations

import re
from typing import TypeAlias
from xml.parsers import expat

# Names in capital letters.
Record: TypeAlias = dict[str, str]

ROOT, RECORD = "ALARM_RECORDS", "ALARM"
# Room for 30,000 records of 1,000 characters.
MOST_CHARACTERS = 32 * 1024 * 1024
MOST_RECORDS = 200_000
MOST_FIELDS = 200
# What is longer is cut: the texts of an alarm are for people.
MOST_TEXT = 4096
_DEEPEST = 16
# What XML cannot hold, but a text of a plant can.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class UnreadableXml(Exception):
    """The text is not what an alarm manager sends. The text of the exception says what is wrong with it."""


def parse_records(xml: str) -> list[Record]:
    """Return the records, in their order. An empty text has none.

    Raises:
        UnreadableXml: the text is too long, is no XML, has a document type, or is about something else.
    """
    if not xml.strip():
        return []
    if len(xml) > MOST_CHARACTERS:
        raise UnreadableXml(f"it has {len(xml)} characters, more than {MOST_CHARACTERS}")
    reader = _Reader()
    # Whatever encoding the text declares, it is not encoded any more.
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse_document_type
    parser.EntityDeclHandler = _refuse_document_type
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(_NOT_XML.sub("\ufffd", xml.strip()).encode(), True)
    except expat.ExpatError as error:
        raise UnreadableXml(f"it is no XML ({error})") from None
    return reader.records


class _Reader:
    def __init__(self) -> None:
        self.records: list[Record] = []
        self._path: list[str] = []
        self._field: list[str] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.upper()
        self._path.append(name)
        match len(self._path):
            case 1:
                if name != ROOT:
                    raise UnreadableXml(f"it is a document {name[:64]!r}, not {ROOT!r}")
            case 2 if name == RECORD:
                if len(self.records) >= MOST_RECORDS:
                    raise UnreadableXml(f"it has more than {MOST_RECORDS} records")
                self.records.append({})
                for attribute, text in attributes.items():
                    self._keep(attribute.upper(), text)
            case 3:
                self._field = []
            case depth if depth > _DEEPEST:
                raise UnreadableXml(f"its elements are nested more than {_DEEPEST} deep")

    def text(self, text: str) -> None:
        if len(self._path) == 3:
            self._field.append(text)

    def end(self, _name: str) -> None:
        if len(self._path) == 3 and self._path[1] == RECORD:
            self._keep(self._path[2], "".join(self._field))
        self._path.pop()

    def _keep(self, name: str, text: str) -> None:
        record = self.records[-1]
        if len(record) >= MOST_FIELDS:
            raise UnreadableXml(f"a record has more than {MOST_FIELDS} fields")
        record.setdefault(name, text.strip()[:MOST_TEXT])


def _refuse_document_type(*_arguments: object) -> None:
    raise UnreadableXml("it has a document type, which no list of alarms needs")
