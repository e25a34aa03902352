"""Opens the secure channel, and renews its keys in time.

The library keeps the keys of before a renewal for too short a time: it counts their life by the server's clock, which
can be wrong by hours, and when messages are encrypted it drops them when their life ends, although answers under them
can still be on their way. Then the next answer breaks the connection. Here the life is counted by this computer's
clock, with a time of grace. And the server is asked something at once after each renewal, because it uses the new keys
only after the first message under them.

Source: OPC 10000-4, 5.5.2.1 (OpenSecureChannel): renewal after 75 % of the life, messages under expired keys.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from asyncua import Client, ua
from asyncua.common.utils import create_nonce

_SERVER_STATE = ua.NodeId(ua.ObjectIds.Server_ServerStatus_State, 0)
# How long messages under the keys before are taken after the end of these keys.
_GRACE_S = 30.0
# The time that a server may need for a renewal, as long as a short life leaves it.
_RENEWAL_S = 10.0


async def open_channel(client: Client, lifetime_s: float, *, renew: bool = False) -> float:
    """Open the secure channel, or renew its keys. Return how many seconds the keys live: the server decides.

    Raises:
        ua.UaError, OSError, TimeoutError: the server refuses, or does not answer.
    """
    parameters = ua.OpenSecureChannelParameters()
    parameters.ClientProtocolVersion = 0
    parameters.RequestType = ua.SecurityTokenRequestType.Renew if renew else ua.SecurityTokenRequestType.Issue
    parameters.SecurityMode = client.security_policy.Mode
    parameters.RequestedLifetime = round(lifetime_s * 1000)
    parameters.ClientNonce = create_nonce(client.security_policy.secure_channel_nonce_length)
    result = await client.uaclient.open_secure_channel(parameters)
    token = result.SecurityToken
    life_s = token.RevisedLifetime / 1000 if token.RevisedLifetime > 0 else lifetime_s
    # The library keeps this object, and looks here for the end of the keys.
    token.CreatedAt = datetime.now(UTC)
    token.RevisedLifetime = round((life_s + _GRACE_S) * 1000)
    if renew:
        client.uaclient.revolve_security_token()
        await client.uaclient.session.read_attributes([_SERVER_STATE], ua.AttributeIds.Value)
    elif client.security_policy.Mode != ua.MessageSecurityMode.None_:
        # The first keys are made before the token is changed here.
        client.security_policy.symmetric_cryptography.key_expiration += _GRACE_S
    return life_s


async def keep_channel(client: Client, lifetime_s: float, life_s: float) -> None:
    """Renew the keys until cancelled. `life_s` is what `open_channel` returned.

    Raises:
        ua.UaError, OSError, TimeoutError: the server refuses, or does not answer.
    """
    while True:
        await asyncio.sleep(renewal_after_s(life_s))
        life_s = await open_channel(client, lifetime_s, renew=True)


def renewal_after_s(life_s: float) -> float:
    """Return after how many seconds keys that live `life_s` are renewed."""
    return min(0.75 * life_s, max(life_s - _RENEWAL_S, life_s / 3))
