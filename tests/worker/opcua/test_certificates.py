"""Which server certificates are accepted, and that each refusal says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from mxgw_worker.backends.base import BackendUnavailable
from mxgw_worker.backends.opcua.certificates import chain_of, check_pair, validity
from mxgw_worker.backends.opcua.trust import ERRORS, TrustList, check_names, check_quality, check_trusted

from .certificates import Identity, local_names, make_identity, make_revocation_list

NOTHING: frozenset[str] = frozenset()


def der(identity: Identity) -> bytes:
    return identity.issued.public_bytes(Encoding.DER)


def trust(folder: Path, *identities: Identity) -> TrustList:
    place = folder / "trusted"
    place.mkdir(exist_ok=True)
    for identity in identities:
        (place / identity.certificate.name).write_bytes(der(identity))
    return TrustList.read(place)


def refused(chain: Sequence[Identity], trusted: TrustList, tolerated: frozenset[str] = NOTHING) -> str:
    with pytest.raises(BackendUnavailable) as caught:
        check_trusted([identity.issued for identity in chain], trusted, tolerated)
    return str(caught.value)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return make_identity(tmp_path_factory.mktemp("root"), "root", ca=True)


@pytest.fixture(scope="module")
def middle(tmp_path_factory: pytest.TempPathFactory, root: Identity) -> Identity:
    return make_identity(tmp_path_factory.mktemp("middle"), "middle", issuer=root, ca=True, path_length=0)


@pytest.fixture(scope="module")
def leaf(tmp_path_factory: pytest.TempPathFactory, middle: Identity) -> Identity:
    return make_identity(tmp_path_factory.mktemp("leaf"), "leaf", issuer=middle)


def test_a_server_is_trusted_by_its_own_certificate_or_by_a_chain_of_authorities(
    tmp_path: Path, root: Identity, middle: Identity, leaf: Identity
) -> None:
    for trusted, chain in (
        ([leaf], [leaf]),
        ([middle], [leaf]),
        ([root, middle], [leaf]),
        ([root], [leaf, middle]),
        ([root], [leaf, middle, root]),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        check_trusted([identity.issued for identity in chain], trust(folder, *trusted), NOTHING)


def test_a_server_is_not_trusted_without_a_chain_to_a_trusted_certificate(
    tmp_path: Path, root: Identity, middle: Identity, leaf: Identity
) -> None:
    stranger = make_identity(tmp_path, "stranger")
    by_stranger = make_identity(tmp_path, "by-stranger", issuer=stranger)
    too_deep = make_identity(tmp_path, "too-deep", issuer=middle, ca=True)
    below = make_identity(tmp_path, "below", issuer=too_deep)

    assert "compare the fingerprint" in refused([leaf], trust(tmp_path, root))
    trusted = trust(tmp_path, root, stranger)
    # A certificate that is trusted for itself and is no CA vouches for no other.
    assert "nor issued by a CA there" in refused([by_stranger, stranger], trusted)
    # The CA in the middle may issue certificates of applications only.
    assert "nor issued by a CA there" in refused([below, too_deep, middle], trusted)


def test_what_an_authority_has_revoked_is_refused(
    tmp_path: Path, root: Identity, middle: Identity, leaf: Identity
) -> None:
    for folder, authority, revoked in ((tmp_path / "1", middle, leaf), (tmp_path / "2", root, middle)):
        folder.mkdir()
        trusted = trust(folder, root, middle, leaf)
        (folder / "trusted" / "crl").mkdir()
        make_revocation_list(folder / "trusted" / "crl", authority, age_days=9)
        check_trusted([leaf.issued], TrustList.read(trusted.place), NOTHING)
        make_revocation_list(folder / "trusted" / "crl", authority, revoked)
        trusted = TrustList.read(trusted.place)
        if revoked is middle:
            (trusted.place / leaf.certificate.name).unlink()
            (trusted.place / middle.certificate.name).unlink()
            trusted = TrustList.read(trusted.place)
        text = refused([leaf, middle], trusted)

        assert "was revoked by CN=" in text
        assert "tolerated_certificate_errors = 'revocation'" in text
        check_trusted([leaf.issued, middle.issued], trusted, frozenset({"revocation"}))


def test_a_revocation_list_that_has_ended_or_is_anothers_does_not_count_as_current(
    tmp_path: Path, root: Identity, middle: Identity, leaf: Identity
) -> None:
    trusted = trust(tmp_path, middle)
    # A list in the name of the CA, which another key has signed.
    forger = make_identity(tmp_path, "middle", ca=True)
    make_revocation_list(trusted.place, forger, leaf)
    check_trusted([leaf.issued], TrustList.read(trusted.place), NOTHING)

    make_revocation_list(trusted.place, middle, age_days=40, days=-5)
    text = refused([leaf], TrustList.read(trusted.place))

    assert "may be revoked: the list of CN=middle" in text
    assert "put the current list there" in text


def test_a_certificate_of_another_host_or_application_is_refused(tmp_path: Path) -> None:
    names = [
        x509.UniformResourceIdentifier("urn:line:server"),
        x509.DNSName("Line1.plant.example"),
        *local_names("urn:other")[2:],
    ]
    certificate = make_identity(tmp_path, "named", names=names).issued
    for host in ("line1.plant.example", "LINE1.plant.example.", "127.0.0.1"):
        check_names(certificate, host, "urn:line:server", NOTHING)
    for host, uri, tolerated, told in (
        ("line2.plant.example", "urn:line:server", "host_name", "is for the host Line1.plant.example, 127.0.0.1 and"),
        ("::1", "urn:line:server", "host_name", "and not for ::1; use that name in 'url'"),
        ("127.0.0.1", "urn:line:Server", "application_uri", "the server calls itself urn:line:Server"),
        ("127.0.0.1", "", "application_uri", "the server calls itself nothing"),
    ):
        with pytest.raises(BackendUnavailable) as caught:
            check_names(certificate, host, uri, NOTHING)

        assert told in str(caught.value)
        assert f"tolerated_certificate_errors = '{tolerated}'" in str(caught.value)
        check_names(certificate, host, uri, frozenset({tolerated}))
    nameless = make_identity(tmp_path, "nameless", names=[x509.UniformResourceIdentifier("urn:a\nb")]).issued
    with pytest.raises(BackendUnavailable, match=r"host nobody \(it names none\)"):
        check_names(nameless, "127.0.0.1", "urn:a\nb", NOTHING)
    with pytest.raises(BackendUnavailable, match=r"for the application urn:a\?b, but"):
        check_names(nameless, "127.0.0.1", "urn:x", frozenset({"host_name"}))


def usage(*, sign: bool, encipher: bool) -> x509.KeyUsage:
    return x509.KeyUsage(sign, False, encipher, False, False, False, False, False, False)


def test_time_use_and_key_of_a_certificate_are_checked(tmp_path: Path) -> None:
    def made(name: str, **changes: object) -> x509.Certificate:
        return make_identity(tmp_path, name, **changes).issued  # type: ignore[arg-type]

    check_quality(made("good", usage=usage(sign=True, encipher=True)), NOTHING)
    for certificate, tolerated, told in (
        (made("ended", days=-1), "validity", "it ended on"),
        (made("early", starts_in_days=2), "validity", "it begins on"),
        (made("client", purposes=[ExtendedKeyUsageOID.CLIENT_AUTH]), "key_usage", "may not be used as a server's"),
        (made("unsigned", usage=usage(sign=False, encipher=True)), "key_usage", "may not be used as a server's"),
        (made("plain", usage=usage(sign=True, encipher=False)), "key_usage", "may not be used as a server's"),
        (made("short", key_bits=1024), "key_length", "1024 bits, and the security policies need 2048 to 4096"),
    ):
        with pytest.raises(BackendUnavailable) as caught:
            check_quality(certificate, NOTHING)

        assert told in str(caught.value)
        assert f"tolerated_certificate_errors = '{tolerated}'" in str(caught.value)
        assert tolerated in ERRORS
        check_quality(certificate, frozenset({tolerated}))

    assert "ended" in validity(made("ended too", days=-1))
    assert validity(made("now")) == ""


def test_an_authority_that_has_ended_vouches_for_nobody(tmp_path: Path) -> None:
    ended = make_identity(tmp_path, "ended", ca=True, days=-1)
    leaf = make_identity(tmp_path, "leaf", issuer=ended)

    assert "was issued by the CA CN=ended, which is not valid today" in refused([leaf], trust(tmp_path, ended))
    check_trusted([leaf.issued], trust(tmp_path, ended), frozenset({"validity"}))


def test_what_a_server_sends_is_read_as_a_chain_and_never_trusted_to_be_one(leaf: Identity, middle: Identity) -> None:
    assert chain_of(der(leaf)) == [leaf.issued]
    assert chain_of(der(leaf) + der(middle)) == [leaf.issued, middle.issued]
    with pytest.raises(BackendUnavailable, match="sends no certificate"):
        chain_of(b"")
    for broken in (b"0", b"\x30\x84\xff\xff\xff\xff", b"\x31\x00", der(leaf)[:-1], der(leaf) * 10, b"\x30\x00"):
        with pytest.raises(BackendUnavailable, match="cannot be read"):
            chain_of(broken)


def test_files_that_cannot_be_read_are_named(tmp_path: Path, leaf: Identity, middle: Identity) -> None:
    with pytest.raises(BackendUnavailable, match=r"private key .*leaf.pem does not belong to .*middle.der"):
        check_pair(middle.certificate, leaf.private_key, "", "private_key")
    check_pair(leaf.certificate, leaf.private_key, "", "private_key")
    trusted = trust(tmp_path, leaf)
    (trusted.place / "broken.crl").write_bytes(b"no list")
    with pytest.raises(BackendUnavailable, match=r"broken.crl holds no revocation list"):
        TrustList.read(trusted.place)
    (trusted.place / "broken.crl").rename(trusted.place / "broken.der")
    with pytest.raises(BackendUnavailable, match=r"broken.der holds no certificate"):
        TrustList.read(trusted.place)
