"""Operators against a real directory server: logins, groups, and every way in which a directory can fail."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.certificates import Authority
from support.desks import HERE, Desk, running_desk
from support.slapd import PASSWORDS, READER_DN, READER_PASSWORD, Slapd, running_slapd

from mxgw_acl.ldap.connections import Budget, Connector, WrongCredentials, _context
from mxgw_acl.operators import Operators
from mxgw_acl.settings import AclSettings, LdapSettings
from mxgw_acl.tokens import Tokens
from mxgw_core.api import OperatorCredentials, folded_name
from mxgw_core.api.errors import AccessDenied, DependencyUnavailable, SettingsError


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    with running_slapd(tmp_path_factory.mktemp("slapd")) as server:
        yield server


@contextmanager
def desk_of(slapd: Slapd, *, acl: dict[str, Any] | None = None, **ldap: Any) -> Iterator[Desk]:
    settings = {
        "ldap": {
            "servers": [slapd.tls],
            "ca_file": slapd.authority.root,
            "service_dn": READER_DN,
            "service_password": READER_PASSWORD,
            "user_base": "ou=people,dc=plant",
            "group_base": "ou=groups,dc=plant",
            "connect_timeout_s": 1,
            "receive_timeout_s": 1,
            "login_timeout_s": 4,
            **ldap,
        },
        "operators": {"administrators": ["gateway-admins"], "viewers": ["gateway-viewers", "operations"]},
        "group_to_session_tag": {"line4": "line4", "cn=operations, ou=groups,dc=plant": ["line5", "line6"]},
        **(acl or {}),
    }
    with running_desk(settings, PASSWORDS) as desk:
        yield desk


# roles and groups


@pytest.mark.parametrize("starts_tls", [False, True])
def test_roles_and_tags_come_from_the_groups_a_person_is_in(slapd: Slapd, starts_tls: bool) -> None:
    with desk_of(slapd, servers=[slapd.plain if starts_tls else slapd.tls]) as desk:
        anna, vera = desk.log_in("anna"), desk.log_in("vera")

        assert anna is not None
        assert vera is not None
        assert (anna.roles, anna.tags) == (("administrator",), ())
        assert (vera.roles, vera.tags) == (("viewer",), ("line4",))


def test_groups_in_groups_count_where_they_are_followed_also_in_a_circle(slapd: Slapd) -> None:
    with desk_of(slapd, groups="nested") as desk:
        vera, odd = desk.log_in("vera"), desk.log_in("o(d)d*")

        assert vera is not None
        assert odd is not None
        assert vera.tags == odd.tags == ("line4", "line5", "line6")


def test_groups_are_followed_as_deep_as_the_settings_say(slapd: Slapd) -> None:
    with desk_of(slapd, groups="nested", group_depth=1) as desk:
        vera = desk.log_in("vera")

        # Her own groups, and those above the ones her entry names; not what is above those.
        assert vera is not None
        assert vera.tags == ("line4", "line5", "line6")
    with desk_of(slapd, groups="nested", group_depth=1, user_filter="(uid={user})") as desk:
        slapd.modify(
            "dn: cn=top,ou=groups,dc=plant\nchangetype: add\nobjectClass: groupOfNames\ncn: top\n"
            "member: cn=operations,ou=groups,dc=plant\n"
        )
        desk.operators._settings.group_to_session_tag["top"] = ("everything",)
        shallow = desk.log_in("vera")

        assert shallow is not None
        assert "everything" not in shallow.tags
    with desk_of(slapd, groups="nested") as desk:
        desk.operators._settings.group_to_session_tag["top"] = ("everything",)
        deep = desk.log_in("vera")

        assert deep is not None
        assert "everything" in deep.tags


@pytest.mark.parametrize("groups", ["ad_chain", "ad_token_groups"])
def test_a_server_that_is_no_active_directory_is_not_even_asked_in_its_ways(
    slapd: Slapd, caplog: pytest.LogCaptureFixture, groups: str
) -> None:
    caplog.set_level(logging.INFO)
    with desk_of(slapd, groups=groups) as desk:
        vera = desk.log_in("vera")

        assert vera is not None
        assert {"line4", "line5", "line6"} <= set(vera.tags)

    assert "takes its place" not in caplog.text


def test_who_is_in_no_group_with_a_role_gets_in_nowhere(slapd: Slapd) -> None:
    with desk_of(slapd) as desk:
        assert desk.log_in("nora") is None
        assert desk.why == "in no group that has a role"


def test_a_direct_bind_needs_no_service_account(slapd: Slapd) -> None:
    with desk_of(
        slapd, bind="direct", user_dn="uid={user},ou=people,dc=plant", service_dn="", service_password="", user_base=""
    ) as desk:
        vera = desk.log_in("vera")

        assert vera is not None
        assert vera.tags == ("line4",)
        assert desk.log_in("vera", "wrong") is None
        assert desk.log_in("vera,ou=people,dc=plant", "wrong") is None
        with pytest.raises(DependencyUnavailable, match="service account"):
            desk.operators.renew(vera)


# what is refused


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("vera", "wrong"),
        ("vera", ""),
        ("vera", "   "),
        ("vera", "vera-password\0"),
        ("vera", "x" * 1025),
        ("nobody", "vera-password"),
        ("", "vera-password"),
        ("*", "vera-password"),
        ("v*", "vera-password"),
        ("vera)(uid=*", "vera-password"),
        ("*)(objectClass=*", "vera-password"),
        ("vera\0", "vera-password"),
        ("vera\\2a", "vera-password"),
        ("x" * 300, "vera-password"),
    ],
)
def test_a_login_that_is_not_exactly_right_is_refused(slapd: Slapd, user: str, password: str) -> None:
    with desk_of(slapd) as desk:
        assert desk.log_in(user, password) is None
        # Nobody has proved to be this person: the record must not say that the person did it.
        assert (desk.audit[-1].actor, desk.audit[-1].decision) == (f"claimed:{folded_name(user)}", "denied")
        assert desk.audit[-1].detail == f"typed: {user.strip()}"


def test_a_name_cannot_become_another_place_of_the_directory(slapd: Slapd) -> None:
    direct = {"bind": "direct", "service_dn": "", "service_password": "", "user_base": ""}
    with desk_of(slapd, user_dn="uid={user},dc=plant", **direct) as desk:
        assert desk.log_in("vera,ou=people", PASSWORDS["vera"]) is None


def test_a_filter_that_finds_two_people_lets_neither_in(slapd: Slapd) -> None:
    with desk_of(slapd, user_filter="(|(uid={user})(uid=anna))") as desk:
        assert desk.log_in("anna") is not None
        assert desk.log_in("vera") is None
        assert desk.log_in("vera", PASSWORDS["anna"]) is None


def test_no_bind_without_a_password_leaves_this_house_whoever_asks_for_it() -> None:
    settings = LdapSettings(servers=("ldap://127.0.0.1:1",), user_base="dc=plant", insecure=True)
    with pytest.raises(WrongCredentials), Connector(settings).bound("ldap://127.0.0.1:1", READER_DN, "", Budget()):
        pass


def test_tls_is_of_this_century() -> None:
    assert _context(None).minimum_version is ssl.TLSVersion.TLSv1_2
    assert _context(None).verify_mode is ssl.CERT_REQUIRED
    assert _context(None).check_hostname


def test_a_name_with_filter_characters_is_a_name(slapd: Slapd) -> None:
    with desk_of(slapd, acl={"operators": {"viewers": ["line4"]}}) as desk:
        assert desk.log_in("o(d)d*") is not None
        assert desk.log_in("o(d)d*", "wrong") is None


def test_the_password_and_the_service_password_are_in_no_record_repr_or_error(slapd: Slapd) -> None:
    with desk_of(slapd, servers=["ldaps://127.0.0.1:1"]) as desk:
        with pytest.raises(DependencyUnavailable) as refused:
            desk.log_in("vera")
        told = repr((desk.audit, desk.directory._settings, refused.value, str(refused.value)))

        assert "vera-password" not in told
        assert READER_PASSWORD not in told


# servers


def _failing(desk: Desk) -> str:
    """Return why nobody could be asked."""
    with pytest.raises(DependencyUnavailable) as refused:
        desk.log_in("vera")
    return str(refused.value)


def test_a_dead_server_is_told_and_the_next_one_asked(slapd: Slapd) -> None:
    with desk_of(slapd, servers=["ldaps://127.0.0.1:1"]) as desk:
        text = _failing(desk)

        assert "127.0.0.1:1" in text
    with desk_of(slapd, servers=["ldaps://127.0.0.1:1", slapd.tls]) as desk:
        assert desk.log_in("vera") is not None


@contextmanager
def _a_server(*, drips: bool) -> Iterator[tuple[str, list[socket.socket]]]:
    """Listen, and never answer; or answer so slowly that each byte comes in time and the whole never does.

    Yields the URL, and the connections that were made.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stopping = threading.Event()
        connections: list[socket.socket] = []

        def serve() -> None:
            listener.settimeout(0.05)
            while not stopping.is_set():
                try:
                    connection, _ = listener.accept()
                    connections.append(connection)
                except TimeoutError:
                    pass
                for connection in connections if drips else ():
                    with suppress(OSError):
                        connection.sendall(b"\x30")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"ldap://127.0.0.1:{listener.getsockname()[1]}", connections
        finally:
            stopping.set()
            thread.join()
            for connection in connections:
                connection.close()


def test_a_silent_server_costs_its_time_and_no_more(slapd: Slapd) -> None:
    with _a_server(drips=False) as (silent, connections):
        with desk_of(slapd, servers=[silent]) as desk:
            text = _failing(desk)

            assert "did not answer in time" in text
        with desk_of(slapd, servers=[silent, slapd.tls]) as desk:
            assert desk.log_in("vera") is not None

            asked = len(connections)

            assert desk.log_in("vera") is not None
            assert len(connections) == asked > 0  # the silent one is asked last for a while


def test_a_server_that_drips_is_cut_at_the_end_of_the_login_s_time(slapd: Slapd) -> None:
    with _a_server(drips=True) as (dripping, _), desk_of(slapd, servers=[dripping], login_timeout_s=1.5) as desk:
        _failing(desk)


def test_no_password_is_sent_to_a_server_whose_certificate_is_not_trusted(slapd: Slapd, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other-ca")
    for servers in ([slapd.tls], [slapd.plain]):
        with desk_of(slapd, servers=servers, ca_file=other.root) as desk:
            text = _failing(desk)

            assert "certificate is refused" in text


def test_a_certificate_for_another_name_is_refused(slapd: Slapd) -> None:
    # It is for localhost and 127.0.0.1.
    with desk_of(slapd, servers=[slapd.tls.replace("127.0.0.1", "127.0.0.2")]) as desk:
        text = _failing(desk)

        assert "127.0.0.2" in text


def test_a_server_without_starttls_gets_no_password() -> None:
    with _without_starttls() as (url, received):
        settings = AclSettings.model_validate(
            {"ldap": {"servers": [url], "bind": "direct", "user_dn": "uid={user},dc=plant", "receive_timeout_s": 1}}
        )
        desk = Desk(settings, PASSWORDS)
        try:
            with pytest.raises(DependencyUnavailable):
                desk.log_in("vera")
        finally:
            desk.operators.close()

        assert received
        assert b"vera-password" not in b"".join(received)


@contextmanager
def _without_starttls() -> Iterator[tuple[str, list[bytes]]]:
    """Answer the first request with protocolError, as a server without StartTLS does."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                received.append(connection.recv(4096))
                connection.sendall(bytes.fromhex("300c02010178070a010204000400"))
                connection.settimeout(2)
                try:
                    while more := connection.recv(4096):
                        received.append(more)
                except OSError:
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"ldap://127.0.0.1:{listener.getsockname()[1]}", received
        finally:
            thread.join()


def test_referrals_are_not_followed_and_told(slapd: Slapd) -> None:
    with desk_of(slapd, user_base="ou=people,dc=elsewhere") as desk:
        text = _failing(desk)

        assert "referrals are not followed" in text


def test_a_service_account_that_is_refused_is_told_as_that(slapd: Slapd) -> None:
    with desk_of(slapd, service_password="wrong") as desk:
        text = _failing(desk)

        assert "service account was refused" in text


# renewal


def test_a_renewed_login_has_the_groups_as_of_now(slapd: Slapd) -> None:
    nora = "uid=nora,ou=people,dc=plant"
    slapd.set_member("gateway-viewers", nora, is_in=True)
    with desk_of(slapd) as desk:
        operator = desk.log_in("nora")

        assert operator is not None
        assert operator.tags == ()

        slapd.set_member("line4", nora, is_in=True)
        renewed = desk.operators.renew(operator)

        assert renewed is not None
        assert renewed.tags == ("line4",)
        assert desk.tokens.current(operator) == renewed

        slapd.set_member("line4", nora, is_in=False)
        slapd.set_member("gateway-viewers", nora, is_in=False)

        assert desk.operators.renew(renewed) is None
        assert desk.why.startswith("gone from the directory")


def test_a_login_that_is_too_old_is_not_renewed_and_the_password_is_asked_for(slapd: Slapd) -> None:
    operators = {"administrators": ["gateway-admins"], "login_hours": 1e-9}
    with desk_of(slapd, acl={"operators": operators}) as desk:
        anna = desk.log_in("anna")

        assert anna is not None
        assert desk.operators.renew(anna) is None
        assert desk.why == "the login is too old"


def test_groups_are_remembered_for_a_while_between_logins(slapd: Slapd) -> None:
    nora = "uid=nora,ou=people,dc=plant"
    slapd.set_member("gateway-viewers", nora, is_in=True)
    with desk_of(slapd) as cached, desk_of(slapd, cache_s=0) as fresh:
        try:
            assert cached.log_in("nora") is not None
            assert fresh.log_in("nora") is not None
        finally:
            slapd.set_member("gateway-viewers", nora, is_in=False)

        assert cached.log_in("nora") is not None
        assert fresh.log_in("nora") is None


# settings


@pytest.mark.parametrize(
    ("ldap", "problem"),
    [
        ({"servers": []}, "at least 1 item"),
        ({"servers": ["http://x"], "user_base": "dc=x"}, "must be ldaps://"),
        ({"servers": ["ldap://x"]}, "needs user_base"),
        ({"servers": ["ldap://x"], "bind": "direct", "user_dn": "uid=anna"}, "user_dn with {user}"),
        ({"servers": ["ldap://x"], "user_base": "dc=x", "service_dn": "cn=x"}, "needs service_password"),
        ({"servers": ["ldap://x"], "user_base": "dc=x", "groups": "nested"}, "needs group_base"),
        ({"servers": ["ldaps://x"], "user_base": "dc=x", "insecure": True}, "leave it off"),
    ],
)
def test_settings_that_cannot_work_are_told(ldap: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        AclSettings.model_validate({"ldap": ldap})


def test_a_ca_file_that_is_none_is_told(slapd: Slapd, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(SettingsError, match="ca_file"), desk_of(slapd, ca_file=tmp_path / "ca.pem"):
        pass


def test_without_a_directory_nobody_logs_in() -> None:
    settings = AclSettings()
    operators = Operators(settings, None, Tokens(b"t" * 32, 900), lambda _: None)
    with pytest.raises(AccessDenied, match="knows no operators"):
        operators.log_in(OperatorCredentials("anna", "x", HERE))


@pytest.mark.parametrize("typed", ["vera", "VERA", " Vera ", "\uff56\uff45\uff52\uff41"])
@pytest.mark.parametrize("bind", ["search", "direct"])
def test_however_a_name_is_typed_its_record_and_token_have_the_directory_s_spelling(
    slapd: Slapd, typed: str, bind: str
) -> None:
    direct = {"bind": "direct", "user_dn": "uid={user},ou=people,dc=plant", "user_base": ""} if bind == "direct" else {}
    with desk_of(slapd, **direct) as desk:
        operator = desk.log_in(typed, PASSWORDS["vera"])

        assert operator is not None
        assert operator.name == "vera"
        assert [record.actor for record in desk.audit] == ["operator:vera"]
        assert desk.operators.renew(operator) is not None
