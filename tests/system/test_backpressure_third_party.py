"""Overflow policies of others: installed from their own directory, enabled in settings.toml, broken in every way."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.accounts import Account
from support.clients import Client, client_of, read_to_the_end, refused
from support.loads import load_names, load_settings
from support.repository import ROOT
from support.strangers import clean_environ, environment_with, run

from mxgw.v1 import event_service_pb2 as es
from mxgw.v1 import session_service_pb2 as ss
from mxgw_client import GapReason, Policy, connect
from mxgw_core.plugins import PluginState
from mxgw_core.testing import running_gateway

EXAMPLE = ROOT / "examples" / "mxgw-plugin-keep-alarms"
SMALL_WINDOWS = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 16 * 1024))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the example in it."""
    return environment_with(tmp_path_factory.mktemp("stranger"), EXAMPLE)


def test_the_own_tests_of_the_example_pass_where_it_is_installed(stranger: Path) -> None:
    sources = stranger.parents[2] / "sources"
    tests = str(sources / "mxgw-plugin-keep-alarms" / "tests")
    done = run(stranger, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(sources), tests)

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d passed", done.stdout, re.MULTILINE)


@pytest.fixture
def site(stranger: Path, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Serve a gateway from the stranger's environment with a settings.toml; returns its address."""
    started: list[subprocess.Popen[bytes]] = []

    def serve(settings: str) -> str:
        (tmp_path / "settings.toml").write_text(settings)
        command = ["-m", "mxgw_cli", "serve", "--json", "--listen", f"unix:{tmp_path}/g.sock"]
        process = subprocess.Popen(
            [str(stranger), *command, "--set", f"gateway.data_dir={tmp_path}/d"],
            cwd=tmp_path,
            env=clean_environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        assert process.stdout is not None
        address: str = json.loads(process.stdout.readline())["addresses"][0]
        return address

    yield serve
    for process in started:
        process.terminate()
        process.communicate(timeout=60)


SITE = """
[plugins]
enabled = {enabled}
[plugins.backpressure]
queue_events = 300
[plugins.keep_alarms]
default = {default}
[backends.sim]
profile = "load"
rate = 5000
items = 20
"""


@pytest.mark.asyncio
async def test_enabled_in_settings_toml_it_changes_what_happens_to_a_reader_that_asks_for_nothing(
    site: Callable[[str], str],
) -> None:
    target = site(SITE.format(enabled='["backpressure", "keep_alarms"]', default="true"))
    async with connect(target) as client, client.open_session() as session:
        await session.subscribe(*load_names(20))
        async with session.events() as stream:
            await asyncio.sleep(1.5)
            async with asyncio.timeout(60):
                async for item in stream:
                    if getattr(item, "reason", None) is GapReason.CONFLATED:
                        break
            (one,) = (await session.subscribers()).subscribers

    assert stream.opened is not None
    assert (stream.opened.policy, one.policy, one.ending) == ("keep_alarms", "keep_alarms", False)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("enabled", "default", "policy"),
    [
        # The last one is asked first: here the built-in one answers for everybody who asks for nothing.
        ('["keep_alarms", "backpressure"]', "true", "disconnect"),
        ('["keep_alarms"]', "true", "keep_alarms"),
    ],
)
async def test_the_order_in_settings_toml_decides_whose_default_it_is(
    site: Callable[[str], str], enabled: str, default: str, policy: str
) -> None:
    target = site(SITE.format(enabled=enabled, default=default))
    async with (
        connect(target) as client,
        client.open_session() as session,
        session.events() as stream,
    ):
        assert stream.opened is not None
        assert stream.opened.policy == policy
    async with (
        connect(target) as client,
        client.open_session() as session,
        session.events(policy=Policy("keep_alarms", {"items": "1"})) as stream,
    ):
        assert stream.opened is not None
        assert stream.opened.policy == "keep_alarms"


# broken ones


HEADER = """
import time
from mxgw_core.api import *

class Policy:
    name = "broken"
    def on_overflow(self, lag):
        return Disconnect()

class Plugin:
    @hookimpl
    def mxgw_overflow_policy(self, request):
        return Policy() if request.name in ("", "broken") else None
"""

# What is wrong -> the code after the header, and what the log says.
AT_OVERFLOW = {
    "raises": ("def on_overflow(self, lag): raise RuntimeError('boom')\nPolicy.on_overflow = on_overflow", "raised"),
    "takes long": (
        "def on_overflow(self, lag): return sum(range(2_000_000)) and Disconnect()\nPolicy.on_overflow = on_overflow",
        "ms of the event loop",
    ),
    "wrong signature": ("def on_overflow(self): return Disconnect()\nPolicy.on_overflow = on_overflow", "raised"),
}
AT_ATTACH = {
    "no name": "Policy.name = None",
    "a name that raises": "Policy.name = property(lambda self: 1 // 0)",
}
AT_LOAD = {
    "missing dependency": ("import module_that_nobody_has", "needs the module 'module_that_nobody_has'"),
    "syntax error": ("def (", "raised SyntaxError"),
    "wrong hook signature": (
        "class Plugin:\n    @hookimpl\n    def mxgw_overflow_policy(self, policy_request): ...",
        "mxgw_overflow_policy",
    ),
    "constructor raises": ("class Plugin:\n    def __init__(self): raise OSError('no licence')", "no licence"),
}


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Install a distribution `acme-broken` whose plugin `broken` is what the code makes of it."""

    def install(code: str) -> None:
        module = f"acme_broken_{abs(hash(code))}"
        metadata = tmp_path / "acme_broken-2.1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-broken\nVersion: 2.1\n")
        (metadata / "entry_points.txt").write_text(f"[mxgw.plugins]\nbroken = {module}:Plugin\n")
        (tmp_path / f"{module}.py").write_text(HEADER + textwrap.dedent(code))
        monkeypatch.syspath_prepend(str(tmp_path))

    return install


LOAD = load_settings(
    100,
    5_000,
    **{
        "plugins.enabled": ["backpressure", "broken"],
        "plugins.backpressure.queue_events": 1_500,
        "events.overflow_drain_s": 20.0,
    },
)


async def session_is_well(client: Client, session_id: str) -> None:
    """The session serves, and an eye on it sees every event."""
    healthy = client.stream(session_id, policy=es.OverflowPolicyChoice(name="disconnect"))
    account = Account()
    begin = (await healthy.read()).opened
    account.at = begin.from_sequence
    async with asyncio.timeout(60):
        while account.at < begin.head_sequence + 1_000:
            account.frame(await healthy.read())
    healthy.cancel()

    assert account.lost == {}


@pytest.mark.asyncio
@pytest.mark.parametrize("what", AT_OVERFLOW)
async def test_a_policy_that_breaks_at_an_overflow_costs_its_reader_the_stream_and_nobody_anything_else(
    what: str, broken: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    code, says = AT_OVERFLOW[what]
    broken(code)
    with caplog.at_level(logging.WARNING, "mxgw_core.events"):
        async with (
            running_gateway(LOAD) as gateway,
            client_of(gateway.target) as client,
            client_of(gateway.target, options=SMALL_WINDOWS) as other,
        ):
            session_id = (await client.open()).session_id
            stopped = other.stream(session_id)
            await stopped.read()
            await client.subscribe(session_id, load_names(100))
            request = ss.ListSubscribersRequest(session_id=session_id)
            until = time.monotonic() + 60
            while not (table := await client.sessions.ListSubscribers(request)).subscribers[0].ending:
                assert time.monotonic() < until
            frames, sequences, end = await read_to_the_end(stopped)
            await session_is_well(client, session_id)

    assert end.reason == "SUBSCRIBER_OVERFLOW"
    assert sequences == list(range(1, int(end.metadata["lost_from"])))
    assert not any(frame.HasField("gap") for frame in frames)
    errors = {c.labels["plugin"]: c.value for c in table.counters if c.name == "mxgw_policy_hook_errors_total"}
    assert errors == {"acme-broken 2.1": 1}
    (record,) = [r for r in caplog.records if "overflow policy" in r.getMessage()]
    assert "acme-broken 2.1" in record.getMessage()
    assert says in record.getMessage()


@pytest.mark.asyncio
@pytest.mark.parametrize("what", AT_ATTACH)
async def test_what_is_no_policy_is_replaced_as_the_stream_opens(
    what: str, broken: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    broken(AT_ATTACH[what])
    async with running_gateway(LOAD) as gateway, client_of(gateway.target) as client:
        session_id = (await client.open()).session_id
        stream = client.stream(session_id)
        opened = (await stream.read()).opened
        stream.cancel()

    assert opened.policy == "disconnect"
    assert "acme-broken 2.1" in caplog.text


@pytest.mark.asyncio
@pytest.mark.parametrize("what", AT_LOAD)
async def test_a_plugin_that_cannot_be_loaded_is_left_out_and_the_gateway_serves(
    what: str, broken: Callable[[str], None]
) -> None:
    code, says = AT_LOAD[what]
    broken(code)
    async with running_gateway(LOAD) as gateway, client_of(gateway.target) as client:
        session_id = (await client.open()).session_id
        stream = client.stream(session_id)
        opened = (await stream.read()).opened
        stream.cancel()
        refusal = await refused(client.stream(session_id, policy=es.OverflowPolicyChoice(name="broken")))
    (record,) = [record for record in gateway.plugins.records if record.name == "broken"]

    assert record.state is PluginState.FAILED
    assert says in record.detail
    assert opened.policy == "disconnect"
    assert "no plugin of this gateway brings the overflow policy 'broken'" in refusal.text


@pytest.mark.asyncio
async def test_a_hook_that_raises_falls_to_the_next_plugin_unless_its_policy_was_asked_for(
    broken: Callable[[str], None],
) -> None:
    broken("class Plugin:\n    @hookimpl\n    def mxgw_overflow_policy(self, request): raise OSError('no licence')")
    async with running_gateway(LOAD) as gateway, client_of(gateway.target) as client:
        session_id = (await client.open()).session_id
        stream = client.stream(session_id)
        opened = (await stream.read()).opened
        stream.cancel()
        refusal = await refused(client.stream(session_id, policy=es.OverflowPolicyChoice(name="broken")))

    assert opened.policy == "disconnect"
    assert "plugin broken failed" in refusal.text
    assert "licence" not in refusal.text
