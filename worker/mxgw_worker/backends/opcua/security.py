"""Sets up the security of a connection: the policy, both certificates, and the login with a certificate.

This is done before every connect and not once, because certificates are renewed while the backend runs: the server's
own, those in the directory of trusted certificates, and the client's with its key.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asyncua import Client, ua
from asyncua.crypto import security_policies
from asyncua.crypto.uacrypto import CertProperties
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mxgw_worker.backends.base import BackendUnavailable

from . import certificates, trust
from .options import OpcUaOptions
from .session import Session

log = logging.getLogger(__name__)


async def secure(client: Client, options: OpcUaOptions) -> None:
    """Read the certificates and keys of the options, check the server's certificate, and set up `client` with them.

    Raises:
        BackendUnavailable: a file cannot be used, the server does not offer the security policy, or its certificate is
            not accepted; the text says what to do.
        ua.UaError, OSError, TimeoutError: the server does not answer.
    """
    if options.user_certificate:
        await _load_login(client, options)
    if options.security_policy == "None":
        return
    own = certificates.load(Path(options.certificate))
    certificates.check_pair(
        Path(options.certificate), Path(options.private_key), options.private_key_password, "private_key"
    )
    if why := certificates.validity(own):
        # The server decides; many do not look.
        log.warning("the certificate %s %s; renew it", options.certificate, why)
    client.application_uri = options.application_uri or certificates.application_uri(own)
    policy = getattr(security_policies, f"SecurityPolicy{options.security_policy}")
    server = await _server_certificate(client, options, policy.URI)
    key, form = certificates.private_key(Path(options.private_key))
    await client.set_security(
        policy,
        CertProperties(own.public_bytes(Encoding.DER), "der"),
        CertProperties(key, form, options.private_key_password or None),
        None,
        CertProperties(server.public_bytes(Encoding.DER), "der"),
        ua.MessageSecurityMode[options.mode],
    )


def refusal(error: ua.UaStatusCodeError, options: OpcUaOptions) -> str:
    """Return what to do when the server refuses the client's certificate; "" when the error is about something else."""
    name = str(ua.StatusCode(error.code).name)
    own = options.certificate or "it"
    match name:
        case "BadCertificateTimeInvalid" | "BadCertificateIssuerTimeInvalid":
            cure = f"compare the time of the server's clock with that of {own}, and renew the certificate if it ended"
        case "BadCertificateUriInvalid":
            cure = f"'application_uri' must be a URI that {own} names, or not be set"
        case "BadCertificateUseNotAllowed":
            cure = f"make {own} anew with the key usages of OPC UA: signature, encipherment, client authentication"
        case "BadCertificatePolicyCheckFailed":
            cure = f"make {own} anew with an RSA key of 2048 to 4096 bits and SHA-256"
        case "BadCertificateRevoked" | "BadCertificateIssuerRevoked":
            cure = f"{own} was revoked; make a new one"
        case "BadCertificateRevocationUnknown" | "BadCertificateIssuerRevocationUnknown":
            cure = f"give the server the current revocation list of the CA of {own}"
        case "BadCertificateChainIncomplete":
            cure = f"give the server the certificates of all CAs above {own}"
        case "BadSecurityChecksFailed":
            # Servers may say this instead of the cause. Source: OPC 10000-4, 6.1.3.
            cure = f"put {own} into the server's trusted certificates, and see that its time and 'application_uri' fit"
            if options.server_certificate:
                cure += f"; or the server has another certificate than {options.server_certificate} by now"
        case _ if name.startswith("BadCertificate"):
            cure = f"put {own} into the server's trusted certificates"
        case _:
            return ""
    return f"opcua: {options.url} refuses the client's certificate ({name}); {cure}"


async def _load_login(client: Client, options: OpcUaOptions) -> None:
    certificate, key = Path(options.user_certificate), Path(options.user_private_key)
    certificates.check_pair(certificate, key, options.user_private_key_password, "user_private_key")
    await client.load_client_certificate(certificates.der(certificate), "der")
    content, form = certificates.private_key(key)
    await client.load_private_key(content, options.user_private_key_password or None, form)


async def _server_certificate(client: Client, options: OpcUaOptions, policy_uri: str) -> x509.Certificate:
    """Return the server's certificate after all checks that are possible before the secure channel is open."""
    tolerated = options.tolerated
    client.certificate_validator = None
    if options.server_certificate:
        # This certificate was given for this one server, so its names are not compared.
        pinned = certificates.load(Path(options.server_certificate))
        trust.check_quality(pinned, tolerated)
        return pinned
    endpoint = await _endpoint(options, policy_uri)
    chain = certificates.chain_of(endpoint.ServerCertificate or b"")
    if options.trust_any_server_certificate:
        return chain[0]
    trusted = trust.TrustList.read(Path(options.trusted_certificates))
    trust.check_trusted(chain, trusted, tolerated)
    trust.check_quality(chain[0], tolerated)
    host = client.server_url.hostname or ""
    trust.check_names(chain[0], host, _uri_of(endpoint.Server), tolerated)

    async def same_application(certificate: x509.Certificate, server: Any) -> None:
        # The list of endpoints came without any protection; what the server says in the session counts.
        trust.check_application_uri(certificate, _uri_of(server), tolerated)

    client.certificate_validator = same_application
    return chain[0]


async def _endpoint(options: OpcUaOptions, policy_uri: str) -> Any:
    """Return the server's endpoint with the wanted security, over a connection of its own."""
    client = Client(options.url, timeout=options.request_timeout_s)
    client.uaclient.session = session = Session(client.uaclient)
    try:
        await client.connect_socket()
        await session.hello(client.server_url.geturl())
        await client.open_secure_channel()
        endpoints = await client.get_endpoints()
        await client.close_secure_channel()
    finally:
        client.disconnect_socket()
    mode = ua.MessageSecurityMode[options.mode]
    for endpoint in endpoints:
        if endpoint.SecurityPolicyUri == policy_uri and endpoint.SecurityMode == mode:
            return endpoint
    raise BackendUnavailable(
        f"opcua: {options.url} does not offer {options.security_policy}/{options.mode}; "
        f"it offers {_offers(endpoints)}; change security_policy and security_mode"
    )


def _offers(endpoints: Sequence[Any]) -> str:
    offers = {
        f"{str(e.SecurityPolicyUri).rpartition('#')[2]}/{ua.MessageSecurityMode(e.SecurityMode).name}"
        for e in endpoints
    }
    return ", ".join(sorted(offers)) or "nothing"


def _uri_of(server: Any) -> str:
    return str(server.ApplicationUri or "") if server is not None else ""
