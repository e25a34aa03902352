"""The interface to a directory of operators, independent of the kind of server. `ldap` implements it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Person:
    """A person in the directory.

    `name` is the name in the spelling of the directory. It is the same for every spelling that the person can type at a
    login. `dn` is the distinguished name (DN) of the person's entry, and `groups` has the DNs of the person's groups.
    Whether groups that contain these groups are included depends on the settings.
    """

    name: str
    dn: str
    groups: Sequence[str]


class Directory(Protocol):
    """Looks up operators and their groups. The methods block, up to a time limit; any thread can call them."""

    def authenticate(self, user: str, password: str) -> Person | None:
        """Return the person with this name and password; None when the name or the password is wrong.

        Raises:
            DependencyUnavailable: no server answered.
        """

    def resolve(self, user: str) -> Person | None:
        """Return the person with this name and the groups of this moment; None when the directory has no such person.

        No password of the person is needed.

        Raises:
            DependencyUnavailable: no server answered, or the settings name no account that may look people up.
        """

    def close(self) -> None:
        """Cancel all lookups and logins in progress."""
