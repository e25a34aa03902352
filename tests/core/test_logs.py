"""The gateway's log: one line per record, and no credentials in it even when somebody logs them."""

from __future__ import annotations

import logging
import sys

import pytest

from mxgw_acl.keyformat import KeyText, new_key_id, new_secret
from mxgw_acl.tokens import Tokens
from mxgw_core.logs import PlainFormatter

KEY = KeyText("plant1", new_key_id(), new_secret())
TOKEN = Tokens(b"t" * 32, 900).issue("anna", ["viewer"], ["line4"]).token


def line_of(message: str, *arguments: object, error: Exception | None = None) -> str:
    caught = (type(error), error, None) if error is not None else None
    record = logging.LogRecord("some.library", logging.DEBUG, "file.py", 1, message, arguments, caught)
    return PlainFormatter().format(record)


@pytest.mark.parametrize("secret", [KEY.text(), TOKEN], ids=["key", "token"])
@pytest.mark.parametrize("shape", ["%s", "('authorization', 'Bearer %s')", "authorization: bearer %s, te: trailers"])
def test_a_credential_that_somebody_logs_does_not_get_into_the_log(secret: str, shape: str) -> None:
    line = line_of(shape, secret)

    assert secret not in line
    assert KEY.secret not in line
    assert TOKEN[20:60] not in line
    assert "***" in line


def test_an_error_that_quotes_a_credential_is_shown_without_it() -> None:
    line = line_of("failed", error=ValueError(f"bad metadata: Bearer {KEY.text()}"))

    assert KEY.secret not in line
    assert "bad metadata: Bearer ***" in line


def test_what_looks_like_none_stays_as_it_is() -> None:
    text = f"plugin acl of mxgw_acl: key {KEY.key_id} from mxgw_test_plugin_5 is the bearer of /var/lib/mxgw/var/acl"

    assert text in line_of(text)


def test_text_of_a_peer_cannot_begin_a_line() -> None:
    line = line_of("name %s", "a\n2026-01-01T00:00:00.000Z INFO forged\x1b[2J")

    assert "\n" not in line
    assert "\x1b" not in line


def test_the_time_is_utc() -> None:
    record = logging.LogRecord("a", logging.INFO, "f", 1, "text", (), None)
    record.created, record.msecs = 0.0, 7.0

    assert PlainFormatter().format(record) == "1970-01-01T00:00:00.007Z INFO a: text"


def test_a_log_line_is_one_line_with_its_time_in_utc() -> None:
    record = logging.LogRecord("mxgw_core.rpc", logging.WARNING, "x.py", 1, "peer said %s", ("a\n\x1b[2Jb",), None)
    record.created, record.msecs = 1_515_000_000.005, 5
    line = PlainFormatter().format(record)

    assert line == "2018-01-03T17:20:00.005Z WARNING mxgw_core.rpc: peer said a��[2Jb"


def test_a_traceback_in_the_log_follows_indented() -> None:
    try:
        int("first\x1b[2J\nsecond")
    except ValueError:
        record = logging.LogRecord("m", logging.ERROR, "x.py", 1, "failed", (), sys.exc_info())
    lines = PlainFormatter().format(record).splitlines()

    assert lines[0].endswith("ERROR m: failed")
    assert all(line.startswith("    ") and line.isprintable() for line in lines[1:])
