"""What the plugin needs of a directory of operators, whatever kind of server provides it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Person:
    """A person whom the directory knows. `groups` has the DNs of all groups, including groups that contain other
    groups.

    `name` is the spelling of the directory, the same for every way in which a user may type it.
    """

    name: str
    dn: str
    groups: Sequence[str]


class Directory(Protocol):
    """Knows operators and their groups. Methods block, within a time limit, and may run in any thread."""

    def authenticate(self, user: str, password: str) -> Person | None:
        """Return the person who logs in; None when name or password are wrong.

        Raises:
            DependencyUnavailable: no server answered.
        """

    def resolve(self, user: str) -> Person | None:
        """Return a person with the groups as of now, without a password; None when there is no such name.

        Raises:
            DependencyUnavailable: no server answered, or the settings have no account for this question.
        """

    def close(self) -> None:
        """Cancel all questions in progress."""
