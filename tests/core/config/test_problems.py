"""What is wrong is said with file, line, key, reason and the nearest valid key, all at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Site

Refused = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\n[limits]\nsesions = 5", "settings.toml:3: limits.sesions: unknown key; did you mean 'sessions'?"),
        ("[limitz]", "settings.toml:1: limitz: unknown key; did you mean 'limits'?"),
        ("[limitz]\nx = 1", "settings.toml:1: limitz: unknown key; did you mean 'limits'?"),
        ("[Limits]\nsessions = 5", "settings.toml:1: Limits: unknown key; did you mean 'limits'?"),
        ("[limits]\nSESSIONS = 5", "settings.toml:2: limits.SESSIONS: unknown key; did you mean 'sessions'?"),
        ("[gateway]\nsessions = 5", "settings.toml:2: gateway.sessions: unknown key; it belongs to [limits]"),
        ("[tls]\nfoo = 5", "settings.toml:2: tls.foo: unknown key; valid are: certificate, client_ca, private_key"),
        ("limits = 5", "settings.toml:1: limits: must be a table, with keys such as command_timeout_s, "
         "concurrent_calls, connection_streams"),
        ("[limits]\nsessions = 0", "settings.toml:2: limits.sessions: must be greater than 0 (is 0)"),
        ("[limits]\nsessions = 10001",
         "settings.toml:2: limits.sessions: must be less than or equal to 10000 (is 10001)"),
        ("[limits]\nsessions = '5'", 'settings.toml:2: limits.sessions: must be a valid integer (is "5")'),
        ("[limits]\nsessions = true", "settings.toml:2: limits.sessions: must be a valid integer (is true)"),
        ("[limits]\nlease_s = inf", "settings.toml:2: limits.lease_s: must be a finite number (is Infinity)"),
        ("[limits.sessions]\nx = 1", "settings.toml:1: limits.sessions: must be a valid integer"),
        ("[gateway]\nreflection = 1", "settings.toml:2: gateway.reflection: must be a valid boolean (is 1)"),
        ("[gateway]\nlisten = '127.0.0.1:1'", "settings.toml:2: gateway.listen: must be a list"),
        ("[gateway]\nlisten = []", "settings.toml:2: gateway.listen: must have at least 1 item(s)"),
        ("[gateway]\nlisten = ['foo']", "settings.toml:2: gateway.listen: must be host:port, [ipv6]:port or "
         'unix:/path, with a port from 0 to 65535 (is "foo")'),
        ("[gateway]\ndata_dir = ''", "settings.toml:2: gateway.data_dir: is empty: name a path, or leave the "
         'setting out (is "")'),
        ("[gateway]\nlog_level = 'debug'", "settings.toml:2: gateway.log_level: must be 'DEBUG', 'INFO', 'WARNING' or "
         "'ERROR' (is \"debug\")"),
        ("[limits]\nlease_s = 9\nmaximum_lease_s = 8",
         "settings.toml:1: limits: lease_s must not exceed maximum_lease_s"),
        ("[limits]\nsessions = 8\nsessions_per_owner = 9",
         "settings.toml:1: limits: sessions_per_owner is 9, more than sessions, 8: lower it, or raise sessions"),
        ("[tls]\nclient_ca = 'x'", "settings.toml:1: tls: client_ca needs certificate and private_key"),
        ("[plugins]\nrequired = ['acl']", "settings.toml:1: plugins: required plugin 'acl' is not in enabled"),
        ("[plugins]\nenabld = []", "settings.toml:2: plugins.enabld: unknown key; did you mean 'enabled'? (a plugin's "
         "settings would be a table, [plugins.enabld])"),
        ("[backends]\ndefalt = 'sim'", "settings.toml:2: backends.defalt: unknown key; did you mean 'default'? "
         "(a backend would be a table, [backends.defalt])"),
        ("[backends]\ndefault = 'sin'", "settings.toml:2: backends.default: 'sin' is not configured: "
         "add [backends.sin], or name one of: sim"),
        ("[backends.default]\nkind = 'sim'", "settings.toml:1: backends.default: must be a valid string"),
        ("[backends.sim]\nkind = 5", "settings.toml:2: backends.sim.kind: must be a valid string (is 5)"),
        ("[backends.'a/b']\nkind = 'sim'\n[backends.sim]", "settings.toml:1: backends.a/b: a name must be 1 to 64 "
         "letters, digits, '-' or '_'"),
        ("[plugins.x]\ndynaconf_merge = true", "settings.toml:2: plugins.x.dynaconf_merge: unknown key"),
        ("dynaconf_include = ['other.toml']", "settings.toml:1: dynaconf_include: unknown key"),
        ("[limits]\nsessions = ", "settings.toml:2: TOML syntax: Invalid value (at end of document)"),
        ("[limits]\nx 'a'\n", "settings.toml:2: TOML syntax: Expected '=' after a key in a key/value pair"),
    ],
)  # fmt: skip
def test_a_problem_is_told_with_its_place(problems: Refused, text: str, line: str) -> None:
    (problem,) = problems(text)

    assert problem == line


@pytest.mark.parametrize("key", ["gateway.data_dir", "tls.certificate"])
@pytest.mark.parametrize("text", ['""', '"var"', "'var'"])
def test_quotes_around_a_path_are_no_part_of_its_name(problems: Refused, key: str, text: str) -> None:
    told = problems("", overrides={key: text})

    assert f"command line: {key}: must be the path itself, without quotes around it" in told[0]


def test_all_problems_are_told_together(site: Site, problems: Refused) -> None:
    named = site.write("[limits]\nsessions = 0\n[backends]\ndefault = 'nowhere'\n[tls]\nclient_ca = 'x'", "site.toml")
    site.write("[broken", ".secrets.toml")

    lines = problems(
        "[gateway]\nlog_level = 'loud'\nnosuch = 1",
        file=named,
        environ={"MXGW_WORKERS__ITEMS": "some"},
        overrides={"events.queue_bytes": -1},
    )

    assert [line.partition(" ")[0] for line in sorted(lines)] == sorted(
        [".secrets.toml:1:", "settings.toml:2:", "settings.toml:3:", f"{named}:2:", f"{named}:4:", f"{named}:5:",
         "environment", "command"]
    )  # fmt: skip


def test_settings_that_do_not_fit_together_are_all_told_at_the_key_that_was_changed(problems: Refused) -> None:
    lines = problems(
        "[backends]\ndefault = 'nowhere'\n[workers]\nframe_bytes = 8388608\n[limits]\nmemory_bytes = 67108864",
        environ={"MXGW_EVENTS__UNATTACHED_BYTES": "67108864", "MXGW_GATEWAY__LOG_LEVEL": "DEBUG"},
    )

    assert [line.partition(": ")[2].partition(",")[0] for line in lines] == [
        "workers.frame_bytes: limits.message_bytes is 4194304 and workers.frame_bytes is 8388608: a message could not "
        "carry it; lower workers.frame_bytes",
        "events.unattached_bytes: limits.memory_bytes is 67108864 and events.unattached_bytes is 67108864",
        "backends.default: 'nowhere' is not configured: add [backends.nowhere]",
    ]
    assert [line.partition(": ")[0] for line in lines] == [
        "settings.toml:4",
        "environment MXGW_EVENTS__UNATTACHED_BYTES",
        "settings.toml:2",
    ]


def test_a_problem_that_a_later_layer_would_hide_is_told(site: Site, problems: Refused) -> None:
    site.write("[Workers]\nitems = 1")
    named = site.write("[workers]\nitems = 2", "site.toml")

    assert problems(file=named) == ["settings.toml:1: Workers: unknown key; did you mean 'workers'?"]


def test_an_option_in_other_capitals_is_not_taken_for_the_same(site: Site, problems: Refused) -> None:
    site.write("[plugins.x]\nNodeId = 1")
    named = site.write("[plugins.x]\nnodeid = 2", "site.toml")

    assert problems(file=named) == [f"{named}:2: plugins.x.nodeid: unknown key; did you mean 'plugins.x.NodeId'?"]


def test_a_rule_between_files_is_told_at_the_later_one(site: Site, problems: Refused) -> None:
    site.write("[limits]\nmaximum_lease_s = 8")
    named = site.write("\n\n[limits]\nlease_s = 9", "site.toml")

    assert problems(file=named) == [f"{named}:3: limits: lease_s must not exceed maximum_lease_s"]


def test_a_named_file_must_exist(site: Site, problems: Refused) -> None:
    (line,) = problems(file=Path("nowhere.toml"))

    assert line.startswith("nowhere.toml: no such file")


def test_a_file_that_cannot_be_read_is_told(site: Site, problems: Refused) -> None:
    (site.directory / "folder.toml").mkdir()

    assert problems(file=Path("folder.toml")) == ["folder.toml: cannot be read: Is a directory"]


def test_a_file_that_is_no_text_is_told(site: Site, problems: Refused) -> None:
    (site.directory / "settings.toml").write_bytes(b"[limits]\n# \xff\n")

    assert problems() == ["settings.toml:2: not UTF-8 text, which TOML must be"]


@pytest.mark.skipif(os.name != "posix", reason="modes are a POSIX matter")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_secrets_that_others_may_read_are_refused(site: Site, problems: Refused, mode: int) -> None:
    path = site.write("[backends.sim]\npassword = 'hunter2'", ".secrets.toml", mode)

    assert problems() == [f".secrets.toml: other users may read it (mode {mode:04o}); run: chmod 600 {path}"]

    path.chmod(0o600)
    assert site.load().settings.backends["sim"].options() == {"password": "hunter2"}


def test_keys_are_found_in_dotted_and_quoted_spelling(problems: Refused) -> None:
    assert problems('limits."sessions" = 0\n') == ["settings.toml:1: limits.sessions: must be greater than 0 (is 0)"]
