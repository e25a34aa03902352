"""Logins and lookups with the LDAP servers of the settings, each within the time limit of the settings."""

from __future__ import annotations

import logging
import re
import threading
import time
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TypeVar

from ldap3.utils.conv import escape_filter_chars
from ldap3.utils.dn import escape_rdn

from mxgw_acl.directory import Person
from mxgw_acl.ldap.connections import Budget, Connected, Connector, Entry, ServerFailed, WrongCredentials
from mxgw_acl.ldap.groups import groups_of
from mxgw_acl.settings import LdapSettings
from mxgw_core.api.errors import DependencyUnavailable

log = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

# For this time after a failure, a server is asked only when all other servers have failed too.
_AVOIDED_S = 30.0
# The largest number of simultaneous logins and lookups. Further ones wait; the wait is part of their time limit.
_AT_ONCE = 4
_MEMBER_OF = "memberof"
# Finds the attributes that are compared with the user's name, for example "uid" in the filter (uid={user}) or in the DN
# uid={user},ou=people. Attribute names are written as in RFC 4512, without options.
_COMPARED = re.compile(r"([A-Za-z][A-Za-z0-9-]*)={user}(?=[),+]|$)")


class LdapDirectory:
    """Implements `Directory` with LDAP. Any thread can call the methods."""

    def __init__(self, settings: LdapSettings, *, clock: Callable[[], float] = time.perf_counter) -> None:
        """Prepare connections to the servers, but do not open any.

        Raises:
            SettingsError: the CA file cannot be used.
        """
        self._settings = settings
        self._clock = clock
        self._connector = Connector(settings)
        # The names of the attributes that the user filter or the user's DN compares with the typed name.
        where = settings.user_filter if settings.user_base else settings.user_dn
        self._named_by = tuple(dict.fromkeys(_COMPARED.findall(where)))
        self._workers = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="acl-ldap")
        self._lock = threading.Lock()
        self._open: list[Budget] = []
        self._failed_at: dict[str, float] = {}
        # Remembered groups. Key: the folded DN of a person. Value: the time until which the groups are valid, and the
        # groups.
        self._groups: dict[str, tuple[float, Sequence[str]]] = {}

    def close(self) -> None:
        """Break all connections that are in use, and return without waiting for their threads."""
        with self._lock:
            budgets = list(self._open)
        self._workers.shutdown(wait=False, cancel_futures=True)
        for budget in budgets:
            budget.cut()

    def authenticate(self, user: str, password: str) -> Person | None:
        """Return the person with this name and password; None when the name or the password is wrong.

        Raises:
            DependencyUnavailable: no server answered.
        """

        def ask(url: str, budget: Budget) -> Person | None:
            if self._settings.bind == "direct":
                return self._authenticate_directly(url, user, password, budget)
            with self._as_service(url, budget) as service:
                entry = self._entry(service, user)
                if entry is None:
                    return None
                try:
                    with self._connector.bound(url, entry.dn, password, budget):
                        pass
                except WrongCredentials:
                    return None
                return self._person(service, lambda limit_s: self._as_service(url, budget, limit_s), user, entry)

        return self._ask_servers(ask)

    def resolve(self, user: str) -> Person | None:
        """Return the person with this name and the groups of this moment; None when the directory has no such person.

        Raises:
            DependencyUnavailable: no server answered, or the settings have no service account.
        """
        if self._settings.bind == "direct" and not self._settings.service_dn:
            raise DependencyUnavailable(
                "groups can be asked for anew with a service account only: set plugins.acl.ldap.service_dn, or log in "
                "again"
            )

        def ask(url: str, budget: Budget) -> Person | None:
            with self._as_service(url, budget) as service:
                entry = self._entry(service, user)
                if entry is None:
                    return None
                self._forget(entry.dn)
                return self._person(service, lambda limit_s: self._as_service(url, budget, limit_s), user, entry)

        return self._ask_servers(ask)

    # requests to one server

    def _authenticate_directly(self, url: str, user: str, password: str, budget: Budget) -> Person | None:
        dn = self._settings.user_dn.replace("{user}", escape_rdn(user))

        def again(limit_s: float) -> AbstractContextManager[Connected]:
            return self._connector.bound(url, dn, password, budget, receive_timeout_s=limit_s)

        try:
            with self._connector.bound(url, dn, password, budget) as connected:
                entry = self._entry(connected, user)
                return self._person(connected, again, user, entry) if entry is not None else None
        except WrongCredentials:
            return None

    def _as_service(self, url: str, budget: Budget, limit_s: float | None = None) -> AbstractContextManager[Connected]:
        settings = self._settings
        return self._connector.bound(
            url, settings.service_dn, settings.service_password.get_secret_value(), budget, receive_timeout_s=limit_s
        )

    def _entry(self, connected: Connected, user: str) -> Entry | None:
        """Return the user's entry; None when the directory has no such entry, or more than one."""
        settings = self._settings
        if settings.user_base:
            wanted = settings.user_filter.replace("{user}", escape_filter_chars(user))
            found = connected.search(settings.user_base, wanted, [_MEMBER_OF, *self._named_by], limit=2)
        else:
            dn = settings.user_dn.replace("{user}", escape_rdn(user))
            found = connected.search(dn, "(objectClass=*)", [_MEMBER_OF, *self._named_by], whole_tree=False)
        return found[0] if len(found) == 1 else None

    def _person(
        self,
        connected: Connected,
        reconnect: Callable[[float], AbstractContextManager[Connected]],
        user: str,
        entry: Entry,
    ) -> Person:
        folded, now = entry.dn.casefold(), self._clock()
        known = self._groups.get(folded)
        if known is not None and now < known[0]:
            return Person(self._name(entry, user), entry.dn, known[1])
        groups = groups_of(connected, reconnect, entry.dn, entry.texts(_MEMBER_OF), self._settings)
        with self._lock:
            self._groups = {dn: value for dn, value in self._groups.items() if now < value[0]}
            self._groups[folded] = now + self._settings.cache_s, groups
        return Person(self._name(entry, user), entry.dn, groups)

    def _name(self, entry: Entry, typed: str) -> str:
        """Return a name by which `resolve` finds the person.

        The name is the same for every spelling that the person can type.
        """
        for attribute in self._named_by:
            # An attribute can have several values. Sorting makes sure that each login gets the same value.
            if values := sorted(entry.texts(attribute.lower())):
                return values[0]
        return unicodedata.normalize("NFKC", typed).casefold()

    def _forget(self, dn: str) -> None:
        with self._lock:
            self._groups.pop(dn.casefold(), None)

    # choosing the server

    def _ask_servers(self, ask: Callable[[str, Budget], ResultT]) -> ResultT:
        """Call `ask` for one server after the other, and return the first answer; all within `login_timeout_s`.

        Raises:
            DependencyUnavailable: no server answered.
        """
        budget = Budget()
        with self._lock:
            self._open.append(budget)
        try:
            future = self._workers.submit(self._ask_in_turn, ask, budget)
            return future.result(self._settings.login_timeout_s)
        except TimeoutError:
            raise DependencyUnavailable(
                f"the directory did not answer within {self._settings.login_timeout_s:g} s", retry_after_s=5.0
            ) from None
        except RuntimeError as error:  # The thread pool was shut down by `close`.
            raise DependencyUnavailable("the gateway is shutting down") from error
        finally:
            budget.cut()
            with self._lock:
                self._open.remove(budget)

    def _ask_in_turn(self, ask: Callable[[str, Budget], ResultT], budget: Budget) -> ResultT:
        problems: list[str] = []
        for url in self._in_order():
            if budget.is_over:
                break
            try:
                answer = ask(url, budget)
            except ServerFailed as error:
                self._failed_at[url] = self._clock()
                problems.append(str(error))
                if not budget.is_over:
                    log.warning("directory server %s", error)
            except WrongCredentials:
                # `ask` handles the wrong password of a user, so here the password of the service account is wrong.
                problems.append(f"{url}: the service account was refused (plugins.acl.ldap.service_dn)")
                log.warning("directory server %s", problems[-1])
            else:
                self._failed_at.pop(url, None)
                return answer
        raise DependencyUnavailable(f"the directory cannot be asked: {'; '.join(problems)}"[:500], retry_after_s=5.0)

    def _in_order(self) -> Sequence[str]:
        now = self._clock()
        return sorted(self._settings.servers, key=lambda url: now - self._failed_at.get(url, -_AVOIDED_S) < _AVOIDED_S)
