"""The settings of `[plugins.metrics]`."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, field_validator

from mxgw_core.api.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the address that `text` names as `host:port` or `[ipv6]:port`.

        Raises:
            ValueError: the text has neither form.
        """
        host, colon, port = text.rpartition(":")
        is_number = port.isascii() and port.isdigit() and int(port) <= 65535
        if not colon or not host or not is_number or (":" in host and not (host[0] == "[" and host[-1] == "]")):
            raise ValueError(f"{text!r} is no address: write host:port or [ipv6]:port")
        return cls(host.strip("[]"), int(port))

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class MetricsSettings(BaseModel):
    """The address on which metrics are served, and whether other machines are served too."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    listen: str = Field("127.0.0.1:9464", description="Address of the endpoint; metrics are at `/metrics`.")
    allow_remote: bool = Field(
        False,
        description="Serve other machines too, in plaintext and without authentication: for networks that are "
        "secured by other means.",
    )
    loop_probe_interval_s: float = Field(
        0.1, ge=0.01, le=60, description="How often the delay of the event loop is measured."
    )

    @field_validator("listen")
    @classmethod
    def _is_an_address(cls, listen: str) -> str:
        Address.parse(listen)
        return listen

    @property
    def address(self) -> Address:
        """The address of the endpoint."""
        return Address.parse(self.listen)

    def check(self) -> None:
        """Check that the settings do not serve other machines by mistake.

        Raises:
            SettingsError: other machines can reach the address, and `allow_remote` is false.
        """
        if not self.address.is_local and not self.allow_remote:
            raise SettingsError(
                f"plugins.metrics.listen: {self.listen} can be reached from other machines, and metrics are served in "
                "plaintext, without authentication: listen on 127.0.0.1 or [::1], or set "
                "plugins.metrics.allow_remote = true on a network that is secured otherwise"
            )
