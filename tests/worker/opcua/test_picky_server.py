"""Servers with limits, wrong clocks and wrong certificates.

Limits are obeyed when they are declared, learnt when not, and a short list never stands for a full one.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asyncua import Client, ua
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from mxgw.convert import is_ok, to_value
from mxgw.v1.events_pb2 import SOURCE_HEALTH_GOOD
from mxgw_worker.backends.base import BackendUnavailable, MxError
from mxgw_worker.backends.opcua import OpcUaBackend
from mxgw_worker.backends.opcua.channel import open_channel, renewal_after_s
from mxgw_worker.backends.opcua.limits import Limits
from mxgw_worker.backends.opcua.options import OpcUaOptions
from mxgw_worker.backends.opcua.security import secure as secure_client

from .certificates import local_names, make_identity
from .harness import Sink, running_backend
from .picky_server import NS, VARIABLES, PickyServer, names, picky_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

KINDS = ("read", "write", "browse", "translate", "monitor")
_codes = ua.StatusCodes


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[PickyServer]:
    async with picky_server() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def picky(server: PickyServer) -> AsyncIterator[PickyServer]:
    """The server, generous and with nothing counted."""
    await server.reset()
    yield server


async def use_everything(backend: OpcUaBackend, sink: Sink) -> None:
    """Advise, write and browse, with many operations of every kind."""
    handle = await backend.register("limits")
    by_id = [await backend.add_item(handle, f"{NS}V{number}") for number in range(VARIABLES)]
    by_path = [await backend.add_item(handle, f"/0:Objects/2:Plant/2:V{number}") for number in range(VARIABLES)]
    for item in (*by_id, *by_path):
        await backend.advise(handle, item)
    for item in (*by_id, *by_path):
        assert (await sink.first(item)).quality == 192
    for item in by_id:
        await backend.write(handle, item, to_value(7.5), 0)
    for item in by_id:
        assert is_ok((await sink.written(item)).statuses)
    found = {node.name: node for node in await backend.browse("/0:Objects/2:Plant")}

    assert len(found) == VARIABLES + 9
    assert [found[f"O{number}"].has_children for number in range(8)] == [True] * 8
    assert not found["V1"].has_children
    assert found["V1"].writeable


@pytest.mark.parametrize("most", [1, 5])
async def test_what_a_server_declares_is_obeyed_from_the_first_request(picky: PickyServer, most: int) -> None:
    await picky.declare(**dict.fromkeys(KINDS, most))
    picky.rules.most = dict.fromkeys(KINDS, most)
    async with running_backend(picky.url) as (backend, sink):
        await use_everything(backend, sink)

    assert picky.refused == 0
    assert {kind: max(picky.sizes[kind]) for kind in KINDS} == dict.fromkeys(KINDS, most)


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("most", [1, 5])
async def test_what_a_server_does_not_declare_is_learnt_and_remembered(
    picky: PickyServer, most: int, one_by_one: bool
) -> None:
    picky.rules.most = dict.fromkeys(KINDS, most)
    picky.rules.one_by_one = one_by_one
    async with running_backend(picky.url) as (backend, sink):
        await use_everything(backend, sink)
        refused = picky.refused
        await backend.browse("/0:Objects/2:Plant")
        handle = await backend.register("again")
        again = [await backend.add_item(handle, f"{NS}V{number}") for number in range(VARIABLES)]
        for item in again:
            await backend.advise(handle, item)
        for item in again:
            assert (await sink.first(item)).quality == 192

    assert 0 < refused < 60
    assert picky.refused == refused


async def test_a_server_that_refuses_even_one_operation_is_asked_few_times_and_told_of(picky: PickyServer) -> None:
    async with running_backend(picky.url) as (backend, sink):
        handle = await backend.register("none")
        items = [await backend.add_item(handle, f"{NS}V{number}") for number in range(VARIABLES)]
        picky.rules.most = {"monitor": 0, "browse": 0}
        for item in items:
            await backend.advise(handle, item)
        for item in items:
            change = await sink.first(item)
            assert change.statuses[0].success == 0
            assert change.statuses[1].raw_detail % 2**32 == _codes.BadTooManyOperations
        with pytest.raises(MxError, match="BadTooManyOperations"):
            await backend.browse("")

        assert len(picky.sizes["monitor"]) < 10

        # It was not about the number of operations, so later requests are large again.
        picky.rules.most.clear()
        picky.sizes.clear()
        other = await backend.register("more")
        more = [await backend.add_item(other, f"{NS}V{number}") for number in range(VARIABLES)]
        for item in more:
            await backend.advise(other, item)
        for item in more:
            assert (await sink.first(item)).quality == 192

        assert max(picky.sizes["monitor"]) == VARIABLES


async def test_a_list_in_pages_comes_whole_and_in_order(picky: PickyServer) -> None:
    picky.rules.page, picky.rules.points, picky.rules.wide = 7, 1, 100
    async with running_backend(picky.url) as (backend, _):
        whole = await backend.browse(f"{NS}Wide")
        plant = await backend.browse(f"{NS}Plant")

    assert names(whole) == [f"W{number}" for number in range(100)]
    assert len(plant) == VARIABLES + 9
    # One object has its first child and a continuation point, and the server has none for the others.
    assert [node.has_children for node in plant if node.name.startswith("O")] == [True] * 8


async def test_a_list_whose_pages_broke_off_is_read_again(picky: PickyServer) -> None:
    picky.rules.page, picky.rules.wide, picky.rules.points_used_by_others = 40, 100, 2
    async with running_backend(picky.url) as (backend, _):
        assert len(await backend.browse(f"{NS}Wide")) == 100
    assert picky.rules.points_used_by_others == 0


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"points": 0}, "BadNoContinuationPoints"),
        ({"bad_page": _codes.BadContinuationPointInvalid}, "BadContinuationPointInvalid"),
        ({"bad_page": _codes.BadOutOfMemory}, "BadOutOfMemory"),
        ({"bad_page": _codes.UncertainNotAllNodesAvailable}, "UncertainNotAllNodesAvailable"),
        ({"endless": True}, "BadResponseTooLarge"),
    ],
)
async def test_a_list_that_is_never_complete_is_an_error(
    picky: PickyServer, rules: dict[str, int], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mxgw_worker.backends.opcua.browsing._PAUSES_S", (0.0, 0.01))
    picky.rules.page, picky.rules.wide = 40, 100
    for name, value in rules.items():
        setattr(picky.rules, name, value)
    async with running_backend(picky.url) as (backend, _):
        with pytest.raises(MxError, match=told):
            await backend.browse(f"{NS}Wide")


async def test_declared_continuation_points_are_not_exceeded_by_paths_without_indexes(picky: PickyServer) -> None:
    await picky.declare(points=1)
    picky.rules.page, picky.rules.points = 1, 1
    async with running_backend(picky.url) as (backend, sink):
        handle = await backend.register("paths")
        items = [await backend.add_item(handle, f"Plant/O{number}/O{number}.B") for number in range(8)]
        for item in items:
            await backend.advise(handle, item)
        for item in items:
            assert (await sink.first(item)).quality == 192


async def test_limits_of_items_and_subscriptions_are_told_and_tried_again(picky: PickyServer) -> None:
    picky.rules.items = 2
    async with running_backend(picky.url, {"retry_failed_s": 0.3}) as (backend, sink):
        handle = await backend.register("items")
        items = [await backend.add_item(handle, f"{NS}V{number}") for number in range(4)]
        for item in items:
            await backend.advise(handle, item)
        changes = [await sink.first(item) for item in items]

        assert [change.quality for change in changes[:2]] == [192, 192]
        for change in changes[2:]:
            assert (change.statuses[0].success, change.statuses[0].raw_category) == (0, 5)
            assert change.statuses[1].raw_detail % 2**32 == _codes.BadTooManyMonitoredItems

        picky.rules.items = 100
        await sink.until(lambda: all(sink.changes(item)[-1].quality == 192 for item in items))

        picky.rules.subscriptions = 1
        other = await backend.register("subscriptions")
        more = await backend.add_item(other, f"{NS}V0")
        await backend.advise(other, more)
        refused = (await sink.first(more)).statuses
        assert (refused[0].success, refused[0].raw_detail) == (0, 26)
        assert refused[1].raw_detail % 2**32 == _codes.BadTooManySubscriptions

        picky.rules.subscriptions = 2
        await sink.until(lambda: sink.changes(more)[-1].quality == 192)


async def test_a_server_without_a_free_session_says_so_and_lets_the_next_one_in(picky: PickyServer) -> None:
    picky.rules.sessions = 1
    async with running_backend(picky.url):
        with pytest.raises(BackendUnavailable, match=r"no room for a further session \(BadTooManySessions\)"):
            await OpcUaBackend({"url": picky.url}).start(Sink())
    async with running_backend(picky.url) as (backend, _):
        assert await backend.register("next") == 1


async def test_a_session_that_was_not_activated_in_time_is_ended(picky: PickyServer) -> None:
    picky.rules.activation_s = 0.5
    for attempt in (1, 2):
        with pytest.raises(BackendUnavailable, match="connect_timeout_s"):
            await OpcUaBackend({"url": picky.url, "connect_timeout_s": 0.3}).start(Sink())
        await picky.until(lambda attempt=attempt: picky.closings == attempt)

    async with running_backend(picky.url, {"connect_timeout_s": 30}) as (backend, _):
        assert await backend.register("patient") == 1


async def test_a_subscription_whose_confirmation_came_too_late_is_deleted(picky: PickyServer) -> None:
    picky.rules.subscription_s = 0.6
    options = {"request_timeout_s": 0.4, "keep_alive_s": 0.2, "subscription_lifetime_s": 30}
    async with running_backend(picky.url, options) as (backend, sink):
        handle = await backend.register("late")
        item = await backend.add_item(handle, f"{NS}V1")
        await backend.advise(handle, item)
        await picky.until(lambda: picky.subscriptions == 1)
        picky.rules.subscription_s = 0.0
        await sink.first(item)

        assert picky.subscriptions == 2

        await picky.until(lambda: picky.subscriptions == 1)


async def test_values_larger_than_a_variable_may_be_are_not_sent() -> None:
    limits = Limits(1, 1, 1, 1, 1, array_length=3, string_bytes=4, byte_string_bytes=2)

    assert limits.takes(ua.Variant([1, 2, 3]))
    assert limits.takes(ua.Variant("äö"))
    assert limits.takes(ua.Variant(b"ab"))
    assert limits.takes(ua.Variant([[1], [2], [3]]))
    assert not limits.takes(ua.Variant([1, 2, 3, 4]))
    assert not limits.takes(ua.Variant([[1, 2], [3, 4]]))
    assert not limits.takes(ua.Variant("äöü"))
    assert not limits.takes(ua.Variant(["a", "abcde"]))
    assert not limits.takes(ua.Variant(b"abc"))
    assert Limits(1, 1, 1, 1, 1).takes(ua.Variant("a" * 1000))


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    (folder / "trusted").mkdir()
    make_identity(folder, "client")
    authority = make_identity(folder, "authority", ca=True)
    shutil.copy(authority.certificate, folder / "trusted")
    for name, changes in OFFERED.items():
        made = {"names": local_names("urn:picky"), "issuer": authority, **changes}
        make_identity(folder, name, **made)  # type: ignore[arg-type]
    return folder


OFFERED: dict[str, dict[str, object]] = {
    "good": {},
    "ended": {"days": -1},
    "early": {"starts_in_days": 2},
    "stranger": {"issuer": None},
    "elsewhere": {"names": [x509.UniformResourceIdentifier("urn:picky"), x509.DNSName("line2")]},
    "another": {"names": local_names("urn:another")},
    "client only": {"purposes": [ExtendedKeyUsageOID.CLIENT_AUTH]},
    "short": {"key_bits": 1024},
}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ended", "is not valid today: it ended on"),
        ("early", "is not valid today: it begins on"),
        ("stranger", "nor issued by a CA there; compare the fingerprint"),
        ("elsewhere", "is for the host line2 and not for 127.0.0.1"),
        ("another", "is for the application urn:another, but the server calls itself urn:picky"),
        ("client only", "may not be used as a server's"),
        ("short", "has a key of 1024 bits"),
        ("", "sends no certificate"),
        ("broken", "sends a certificate that cannot be read"),
    ],
)
async def test_a_certificate_that_a_server_offers_is_checked_before_anything_is_sent(
    picky: PickyServer, pki: Path, name: str, told: str
) -> None:
    contents = {"": b"", "broken": b"0\x82"}
    picky.rules.offered = contents[name] if name in contents else (pki / f"{name}.der").read_bytes()
    with pytest.raises(BackendUnavailable, match=re.escape(told)):
        await OpcUaBackend(secure(picky, pki)).start(Sink())

    assert picky.activations == 0


async def test_a_trusted_certificate_is_taken_for_the_channel(picky: PickyServer, pki: Path) -> None:
    for name, tolerated in (("good", ""), ("elsewhere", "host_name"), ("another", "application_uri, validity")):
        picky.rules.offered = (pki / f"{name}.der").read_bytes()
        client = Client(picky.url)
        await secure_client(client, OpcUaOptions.parse(secure(picky, pki, tolerated_certificate_errors=tolerated)))

        assert client.security_policy.peer_certificate == picky.rules.offered


def secure(picky: PickyServer, pki: Path, **changes: object) -> dict[str, object]:
    return {
        "url": picky.url,
        "security_policy": "Basic256Sha256",
        "certificate": str(pki / "client.der"),
        "private_key": str(pki / "client.pem"),
        "trusted_certificates": str(pki / "trusted"),
        **changes,
    }


async def test_a_renewed_certificate_of_the_server_is_checked_anew(
    picky: PickyServer, pki: Path, tmp_path: Path
) -> None:
    trusted = shutil.copytree(pki / "trusted", tmp_path / "trusted")
    client = Client(picky.url)
    options = OpcUaOptions.parse(secure(picky, pki, trusted_certificates=str(trusted)))
    picky.rules.offered = (pki / "good.der").read_bytes()
    await secure_client(client, options)
    picky.rules.offered = (pki / "stranger.der").read_bytes()
    with pytest.raises(BackendUnavailable, match="compare the fingerprint"):
        await secure_client(client, options)
    shutil.copy(pki / "stranger.der", trusted)
    await secure_client(client, options)

    assert client.security_policy.peer_certificate == picky.rules.offered


async def test_keys_are_renewed_in_time_and_the_server_uses_the_new_ones_at_once(picky: PickyServer) -> None:
    async with running_backend(picky.url, {"channel_lifetime_s": 1, "probe_interval_s": 600}) as (backend, sink):
        handle = await backend.register("channel")
        item = await backend.add_item(handle, f"{NS}V0")
        await backend.advise(handle, item)
        await sink.first(item)
        (theirs,) = [client._connection for client in picky.processors if client.session in picky.sessions]
        first = theirs.security_token.TokenId
        # Nothing else is sent: no probe is due, and the subscription is silent.
        await picky.until(lambda: theirs.security_token.TokenId == first + 2)

        assert theirs.next_security_token.TokenId in (0, first + 2)
        assert sink.healths() == [SOURCE_HEALTH_GOOD]


async def test_a_server_with_a_wrong_clock_may_answer_under_the_keys_before(picky: PickyServer) -> None:
    async with running_backend(picky.url, {"channel_lifetime_s": 600, "probe_interval_s": 600}) as (backend, _):
        client = backend._connection._client
        assert client is not None
        (theirs,) = [client._connection for client in picky.processors if client.session in picky.sessions]
        make, encode = theirs.open, theirs.message_to_binary

        def in_1970(*arguments: Any) -> Any:
            answer = make(*arguments)
            answer.SecurityToken.CreatedAt = datetime(1970, 1, 1, tzinfo=UTC)
            return answer

        def under_the_keys_before(*arguments: Any, **named: Any) -> Any:
            now, theirs.security_token = theirs.security_token, theirs.prev_security_token
            try:
                return encode(*arguments, **named)
            finally:
                theirs.security_token = now

        theirs.open = in_1970
        for _ in range(2):
            assert await open_channel(client, 600.0, renew=True) == 600.0
        theirs.message_to_binary = under_the_keys_before

        assert await backend.browse("") != []


async def test_keys_that_live_shortly_are_renewed_early() -> None:
    assert renewal_after_s(3600) == 2700
    assert renewal_after_s(60) == 45
    assert renewal_after_s(20) == 10
    assert renewal_after_s(10) == pytest.approx(10 / 3)
    assert renewal_after_s(1) == pytest.approx(1 / 3)


@pytest.mark.soak
async def test_fifty_thousand_children_are_listed_part_by_part(picky: PickyServer) -> None:
    picky.rules.wide, picky.rules.page = 50_000, 1000
    async with running_backend(picky.url, {"connect_timeout_s": 60, "request_timeout_s": 60}) as (backend, sink):
        nodes = await backend.browse(f"{NS}Wide")

        assert names(nodes) == [f"W{number}" for number in range(50_000)]
        # One page of 1000 with the parent, 49 further ones, and 50 requests about their children.
        assert len(picky.sizes["browse"]) == 100
        assert max(picky.sizes["read"]) == 1000
        assert sink.healths() == [SOURCE_HEALTH_GOOD]
