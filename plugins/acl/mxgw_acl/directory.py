"""The directory of operators: what the plugin needs of it, whatever kind of server it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whom the directory knows: the DNs of all groups, also of those that groups are in.

    `name` is the directory's own spelling, the same for every way in which it can be typed.
    """

    name: str
    dn: str
    groups: Sequence[str]


class Directory(Protocol):
    """Where operators and their groups are known. Methods block, within their time limit, and may run in any thread."""

    def authenticate(self, user: str, password: str) -> Person | None:
        """Return who logs in; None when name or password are wrong.

        Raises:
            DependencyUnavailable: no server could say.
        """

    def resolve(self, user: str) -> Person | None:
        """Return somebody with the groups as of now, without a password; None when there is nobody of this name.

        Raises:
            DependencyUnavailable: no server could say, or the settings do not let it be asked.
        """

    def close(self) -> None:
        """Give up what is under way."""
