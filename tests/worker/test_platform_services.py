"""Services of the system: accounts, access for them, and what administrators may do with the files of a service."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mxgw_worker import platform

if sys.platform == "win32":
    from mxgw_worker.platform.services import ServiceRecord, ServiceState
    from mxgw_worker.platform.windows import accounts, security, service_records

    NAME = "mxgw-of-a-test"

    @pytest.fixture
    def user() -> Iterator[str]:
        """The user of a service of mxgw that exists during the test, as far as this package knows."""
        found = accounts.account_of("", NAME).user
        service_records.remember(NAME, ServiceRecord(Path(r"C:\mxgw\settings.toml"), found))
        yield found
        service_records.forget(NAME)

    def test_the_identifier_of_a_services_account_follows_from_its_name() -> None:
        own = accounts.account_of("", "TrustedInstaller")

        assert own.name == r"NT SERVICE\TrustedInstaller"
        assert own.user == security.TRUSTED_INSTALLER
        assert not own.needs_password
        assert accounts.account_of(r"nt service\trustedinstaller", "other").user == own.user

    @pytest.mark.parametrize(
        ("written", "name", "user"),
        [
            ("LocalService", r"NT AUTHORITY\LocalService", "S-1-5-19"),
            (r"NT AUTHORITY\Network Service", r"NT AUTHORITY\NetworkService", "S-1-5-20"),
            ("localsystem", "LocalSystem", "S-1-5-18"),
        ],
    )
    def test_built_in_accounts_need_no_password(written: str, name: str, user: str) -> None:
        found = accounts.account_of(written, "mxgw")

        assert (found.name, found.user, found.needs_password) == (name, user, False)

    def test_an_account_that_does_not_exist_is_refused() -> None:
        with pytest.raises(LookupError, match="there is no account nobody-of-this-name"):
            accounts.account_of("nobody-of-this-name", "mxgw")

    def test_an_administrator_shares_files_with_a_service_of_mxgw_and_trusts_it(user: str) -> None:
        assert service_records.records()[NAME].user == user
        assert user in security.trusted()

        for is_directory in (False, True):
            access = security.private_file(is_directory=is_directory, services=[user])

            assert access.startswith(f"O:{security.ADMINISTRATORS}D:P(")
            assert f";FA;;;{user})" in access

        service_records.forget(NAME)

        assert user not in security.trusted()

    @pytest.mark.usefixtures("user")
    def test_what_is_made_where_no_service_has_access_belongs_to_the_user_alone(tmp_path: Path) -> None:
        platform.make_directory(tmp_path / "own")
        platform.make_private(tmp_path / "own")

        assert security.private_file().startswith(f"O:{platform.current_user()}D:P(")
        assert not platform.exposure(tmp_path / "own")

    def test_a_directory_is_given_to_a_service_with_everything_in_it(tmp_path: Path) -> None:
        services = platform.system_services()
        assert services is not None
        (tmp_path / "below").mkdir()
        (tmp_path / "below" / "file").touch()
        account = services.account("LocalService", NAME)
        services.share(tmp_path, account, may_write=True)

        assert services.others_who_write(tmp_path, account) == ""
        assert platform.owner_of(tmp_path / "below" / "file") == platform.current_user()
        assert "(A;OICI;0x1200a9;;;S-1-5-19)" in security.shared_file(account.user, may_write=False, is_directory=True)
        assert "(A;;FA;;;S-1-5-19)" in security.shared_file(account.user, may_write=True, is_directory=False)

    def test_what_is_not_installed_is_unknown_and_cannot_be_started() -> None:
        services = platform.system_services()
        assert services is not None

        assert services.facts(NAME) is None

        for what in (services.start, services.stop, services.remove):
            with pytest.raises(FileNotFoundError):
                what(NAME)

    def test_a_process_that_the_system_has_not_started_is_no_service() -> None:
        services = platform.system_services()
        assert services is not None

        with pytest.raises(OSError, match=r".") as refused:
            services.run(NAME, print, print)

        assert refused.value.winerror == 1063

    def test_a_service_of_this_machine_is_seen() -> None:
        services = platform.system_services()
        assert services is not None
        facts = services.facts("EventLog")

        assert facts is not None
        assert facts.state is ServiceState.RUNNING

else:

    def test_services_are_left_to_the_system() -> None:
        assert platform.system_services() is None
