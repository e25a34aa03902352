"""A directory to load settings from, cut off from the machine's own files and environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from mxgw_core.api.errors import SettingsError
from mxgw_core.config import LoadedSettings, load_settings


class Site:
    """A site's working directory: `write` files, then `load` what counts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, text: str, name: str = "settings.toml", mode: int = 0o600) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return path

    def load(
        self,
        file: Path | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        overrides: Mapping[str, object] | None = None,
    ) -> LoadedSettings:
        return load_settings(file, environ=environ or {}, overrides=overrides, directory=self.directory)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.chdir(tmp_path)
    return Site(tmp_path)


@pytest.fixture
def problems(site: Site) -> Callable[..., list[str]]:
    """Load what must be refused, and return the lines of the refusal."""

    def refused(text: str = "", **layers: object) -> list[str]:
        if text:
            site.write(text)
        with pytest.raises(SettingsError) as caught:
            site.load(**layers)  # type: ignore[arg-type]
        return str(caught.value).splitlines()

    return refused
