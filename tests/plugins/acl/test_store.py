"""The key database: hashes only, private files, two secrets at most, and clear words when it cannot be used."""

from __future__ import annotations

import math
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.keys import opened_store
from support.privacy import CURE, is_private, open_to_others

from mxgw_acl.audit_log import AuditRecord
from mxgw_acl.authentication import Authentication
from mxgw_acl.authorization import Authorization
from mxgw_acl.keyformat import KeyText, new_key_id, new_secret
from mxgw_acl.keyring import Keyring
from mxgw_acl.keys import Constraints, Key, Scope
from mxgw_acl.patterns import ItemPatterns
from mxgw_acl.rules import RULES
from mxgw_acl.store import KeyNotFound, KeyStore, KeyUnchangeable, KeyWishes, Use
from mxgw_acl.tokens import Tokens
from mxgw_core.api import AccessRequest, Attempts, AuthenticationRequest, Moment, Peer
from mxgw_core.api.errors import AccessRevoked, DependencyUnavailable, GatewayError, SettingsError


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[KeyStore]:
    store = KeyStore(tmp_path / "acl", now=clock)
    yield store
    store.close()


WISHES = KeyWishes("test", frozenset({Scope.READ}))


def test_directory_database_and_pepper_are_private_from_the_start(store: KeyStore) -> None:
    store.create(WISHES, "test")
    directory = store.path.parent

    assert is_private(directory)
    assert {path.name for path in directory.iterdir()} >= {"keys.sqlite3", "pepper"}
    assert all(map(is_private, directory.iterdir()))


def test_no_secret_is_in_any_file(store: KeyStore) -> None:
    _, text = store.create(WISHES, "test")
    _, rotated = store.rotate(text.key_id, 60)
    content = b"".join(path.read_bytes() for path in store.path.parent.iterdir())

    assert text.key_id.encode() in content
    for secret in (text.secret, rotated.secret):
        assert secret.encode() not in content


def test_a_hash_is_worth_nothing_without_the_pepper_and_for_no_other_key(tmp_path: Path, store: KeyStore) -> None:
    with opened_store(tmp_path / "other") as other:
        assert store.digest("a", "secret") != other.digest("a", "secret")

    assert store.digest("a", "secret") != store.digest("b", "secret")


def test_everything_about_a_key_survives_on_disk(tmp_path: Path, store: KeyStore) -> None:
    wishes = KeyWishes(
        "hmi",
        frozenset({Scope.READ, Scope.SECURED_WRITE}),
        Constraints(
            ItemPatterns(("Tank_*",), ("Area1",)), ItemPatterns(("*.SP",)), ("10.0.0.0/8", "2001:db8::/32"), 1, 0, 2
        ),
        2_000_000.0,
        ("hmi.plant", "other"),
    )
    made, _ = store.create(wishes, "prod")
    with opened_store(tmp_path / "acl") as again:
        assert again.key(made.id) == made

    assert (made.name, made.scopes, made.constraints, made.expires_at) == (
        wishes.name,
        wishes.scopes,
        wishes.constraints,
        wishes.expires_at,
    )
    assert made.certificate_names == wishes.certificate_names
    assert made.environment == "prod"


def test_two_secrets_live_while_a_key_is_rotated_and_never_three(store: KeyStore, clock: Clock) -> None:
    ring = Keyring(store, now=clock)
    key, first = store.create(WISHES, "test")
    clock.now += 1
    _, second = store.rotate(key.id, 60)
    ring._take(store.keys())

    assert ring.verify(first).identity == ring.verify(second).identity
    assert ring.verify(first).identity is not None

    clock.now += 1
    _, third = store.rotate(key.id, 60)
    ring._take(store.keys())

    assert ring.verify(first).identity is None
    assert ring.verify(second).identity is not None
    assert ring.verify(third).identity is not None
    assert len(store.key(key.id).hashes) == 2

    clock.now += 60

    assert ring.verify(second).reason == "secret replaced"
    assert ring.verify(third).identity is not None


def test_a_revoked_key_is_gone_for_good_with_its_secrets(store: KeyStore, clock: Clock) -> None:
    key, text = store.create(WISHES, "test")
    revoked = store.revoke(key.id, closes_sessions=False)
    clock.now += 5

    assert (revoked.why_dead(clock.now), revoked.closes_sessions, revoked.hashes) == ("revoked", False, ())
    assert store.revoke(key.id).revoked_at == revoked.revoked_at
    with pytest.raises(KeyUnchangeable, match="is revoked"):
        store.rotate(key.id, 0)

    ring = Keyring(store, now=clock)
    ring.refresh()

    assert ring.verify(text).reason == "key revoked"


def test_an_unknown_key_is_told_with_what_would_help(store: KeyStore) -> None:
    with pytest.raises(KeyNotFound, match="mxgw keys list"):
        store.key("nothing")
    with pytest.raises(KeyNotFound):
        store.revoke("nothing")
    with pytest.raises(KeyNotFound):
        store.rotate("nothing", 0)


def test_last_uses_are_kept_and_those_of_unknown_keys_are_not(store: KeyStore) -> None:
    key, _ = store.create(WISHES, "test")
    store.note_uses({key.id: Use(5.0, "10.0.0.1:1"), "gone": Use(5.0, "")})
    store.note_uses({key.id: Use(6.0, "10.0.0.2:1")})

    assert store.uses() == {key.id: Use(6.0, "10.0.0.2:1")}


def test_what_another_process_changes_is_seen_and_what_is_unchanged_stays_the_same_object(
    tmp_path: Path, store: KeyStore
) -> None:
    key, text = store.create(WISHES, "test")
    ring = Keyring(store)
    ring.refresh()
    identity = ring.verify(text).identity
    with opened_store(tmp_path / "acl") as other:
        _, new = other.create(WISHES, "test")
        ring.refresh()

        assert ring.verify(new).identity is not None
        assert ring.verify(text).identity is identity

        other.revoke(key.id)
        ring.refresh()

        assert ring.why_dead(key.id) == "revoked"


def test_a_key_of_another_environment_is_not_this_one(store: KeyStore) -> None:
    from dataclasses import replace

    _, text = store.create(WISHES, "test")
    ring = Keyring(store)
    ring.refresh()

    assert ring.verify(replace(text, environment="prod")).identity is None


def test_nobody_is_verified_while_the_database_cannot_be_read(
    store: KeyStore, caplog: pytest.LogCaptureFixture
) -> None:
    ring = Keyring(store)
    ring.refresh()
    store.close()
    for _ in range(3):
        with pytest.raises(DependencyUnavailable, match="cannot verify keys"):
            ring.refresh()

    assert caplog.text.count("key database cannot be read") == 1


def test_constraints_that_are_not_understood_are_no_freedom(tmp_path: Path, store: KeyStore) -> None:
    store.create(WISHES, "test")
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE keys SET constraints = '{}'")
    connection.close()
    with pytest.raises(DependencyUnavailable):
        Keyring(store).refresh()


# what cannot be used


def _open(directory: Path) -> None:
    KeyStore(directory).close()


def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    open_to_others(tmp_path)
    with pytest.raises(SettingsError, match=CURE):
        _open(tmp_path)


@pytest.mark.parametrize("name", ["keys.sqlite3", "pepper"])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, name: str) -> None:
    _open(tmp_path / "acl")
    open_to_others(tmp_path / "acl" / name)
    with pytest.raises(SettingsError, match=CURE):
        _open(tmp_path / "acl")


def test_keys_without_their_pepper_are_told_and_no_new_pepper_takes_its_place(tmp_path: Path) -> None:
    with opened_store(tmp_path / "acl") as store:
        store.create(WISHES, "test")
    (tmp_path / "acl" / "pepper").unlink()
    with pytest.raises(SettingsError, match="restore it from a backup"):
        _open(tmp_path / "acl")

    assert not (tmp_path / "acl" / "pepper").exists()


def test_a_pepper_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    _open(tmp_path / "acl")
    (tmp_path / "acl" / "pepper").write_bytes(b"short")
    with pytest.raises(SettingsError, match="5 bytes instead of 32"):
        _open(tmp_path / "acl")


def test_a_database_that_is_none_is_refused(tmp_path: Path) -> None:
    _open(tmp_path / "acl")
    (tmp_path / "acl" / "keys.sqlite3").write_bytes(b"not a database at all" * 100)
    with pytest.raises(SettingsError, match="cannot be used"):
        _open(tmp_path / "acl")


def test_a_database_of_a_newer_mxgw_is_refused(tmp_path: Path) -> None:
    with opened_store(tmp_path / "acl") as store:
        store._connection.execute("PRAGMA user_version = 99")
    with pytest.raises(SettingsError, match="a newer one wrote it"):
        _open(tmp_path / "acl")


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("")
    with pytest.raises(SettingsError, match=r"plugins\.acl\.directory"):
        _open(tmp_path / "acl")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(SettingsError, match="belongs to user 12345"):
        _open(tmp_path)


def test_a_key_shows_no_hash_in_its_repr(store: KeyStore) -> None:
    key, _ = store.create(WISHES, "test")

    assert isinstance(key, Key)
    assert "SecretHash" not in repr(key)


def test_a_key_is_compared_as_often_whatever_is_wrong_with_it(
    store: KeyStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hmac

    compared: list[int] = []

    def counting(one: bytes, other: bytes) -> bool:
        compared[-1] += 1
        return compare(one, other)

    compare = hmac.compare_digest
    _, good = store.create(WISHES, "test")
    dead, revoked = store.create(WISHES, "test")
    store.rotate(good.key_id, 60)
    store.revoke(dead.id)
    keyring = Keyring(store, now=clock)
    keyring.refresh()
    monkeypatch.setattr(hmac, "compare_digest", counting)
    wrong = KeyText("test", good.key_id, new_secret())
    unknown = KeyText("test", new_key_id(), new_secret())
    for text in (good, revoked, wrong, unknown):
        compared.append(0)
        keyring.verify(text)

    assert compared == [2, 2, 2, 2]


def test_a_certificate_stands_for_a_living_key_only(store: KeyStore, clock: Clock) -> None:
    wishes = KeyWishes("hmi", frozenset({Scope.READ}), expires_at=clock.now + 10, certificate_names=("hmi4",))
    key, _ = store.create(wishes, "test")
    keyring = Keyring(store, now=clock)
    keyring.refresh()

    assert keyring.by_certificate(("other", "hmi4")).identity is not None
    assert keyring.by_certificate(("other",)).identity is None

    clock.now += 11

    assert keyring.by_certificate(("hmi4",)).identity is None

    clock.now -= 11
    with opened_store(store.path.parent) as other:
        other.revoke(key.id)
    keyring.refresh()

    assert keyring.by_certificate(("hmi4",)).identity is None


# callers


def callers_of(store: KeyStore, burst: int) -> tuple[Authentication, list[AuditRecord]]:
    audit: list[AuditRecord] = []
    return Authentication(Keyring(store), Tokens(b"t" * 32, 900), Attempts(1, burst), audit.append), audit


def attempt(callers: Authentication, address: str, credentials: str) -> str:
    """Return the reason of the refusal."""
    metadata = {"authorization": f"Bearer {credentials}"}
    with pytest.raises(GatewayError) as caught:
        callers.identify(AuthenticationRequest("/mxgw.v1.GatewayService/Ping", Peer(address, False), metadata))
    return caught.value.reason


def test_failures_count_for_the_key_id_whoever_tries_it(store: KeyStore) -> None:
    _, text = store.create(WISHES, "test")
    wrong = KeyText("test", text.key_id, new_secret()).text()
    callers, audit = callers_of(store, 3)
    reasons = [attempt(callers, f"10.0.0.{host}:1", wrong) for host in range(5)]

    assert reasons == ["UNAUTHENTICATED"] * 3 + ["TOO_MANY_ATTEMPTS"] * 2
    assert [record.actor for record in audit] == [f"claimed:{text.key_id}"] * 3
    # The key itself is as good as before, wherever it is used.
    metadata = {"authorization": f"Bearer {text.text()}"}
    request = AuthenticationRequest("/mxgw.v1.GatewayService/Ping", Peer("10.0.0.9:1", False), metadata)

    assert callers.identify(request).id == text.key_id


def test_failures_count_for_the_peer_whatever_it_tries_and_an_ipv6_network_is_one(store: KeyStore) -> None:
    def unknown() -> str:
        return KeyText("test", new_key_id(), new_secret()).text()

    callers, _ = callers_of(store, 3)
    one_host = [attempt(callers, f"10.0.0.1:{port}", unknown()) for port in range(4)]
    one_network = [attempt(callers, f"[2001:db8::{host:x}]:1", unknown()) for host in range(1, 5)]

    assert one_host == one_network == ["UNAUTHENTICATED"] * 3 + ["TOO_MANY_ATTEMPTS"]
    assert attempt(callers, "10.0.0.2:1", unknown()) == "UNAUTHENTICATED"
    assert attempt(callers, "[2001:db8:0:1::1]:1", unknown()) == "UNAUTHENTICATED"


def test_a_key_that_died_after_it_was_accepted_gets_no_further(store: KeyStore, clock: Clock) -> None:
    _, text = store.create(WISHES, "test")
    keyring = Keyring(store, now=clock)
    keyring.refresh()
    identity = keyring.verify(text).identity
    no_gateway: Any = None
    authorization = Authorization(keyring, Tokens(b"t" * 32, 900), no_gateway)

    assert identity is not None
    assert isinstance(identity.claims, Key)

    method = "/mxgw.v1.GatewayService/GetGatewayInfo"
    request = AccessRequest(method, identity, Peer("10.0.0.1:1", is_local=False), moment=Moment.ATTACH)
    authorization.check_key(request, identity.claims, RULES[method])
    with opened_store(store.path.parent) as other:
        other.revoke(text.key_id)
    keyring.refresh()
    with pytest.raises(AccessRevoked, match="revoked"):
        authorization.check_key(request, identity.claims, RULES[method])


@pytest.mark.parametrize("limits", [{"maximum_events_per_s": n} for n in (math.nan, math.inf, -1.0, 0.0, 1e300)])
def test_a_stored_limit_that_limits_nothing_makes_its_key_unusable_and_no_other(
    tmp_path: Path, limits: dict[str, float]
) -> None:
    store = KeyStore(tmp_path)
    broken, text = store.create(KeyWishes("broken", frozenset(), Constraints(**limits)), "test")
    _, whole = store.create(KeyWishes("whole", frozenset()), "test")
    keyring = Keyring(store)
    keyring.refresh()

    assert keyring.verify(text).reason == "key unusable"
    assert keyring.verify(whole).identity is not None
    assert store.revoke(broken.id).why_dead(0.0) == "revoked"

    store.close()
