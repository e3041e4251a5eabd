"""Where settings come from, and which come first."""

from __future__ import annotations

from pathlib import Path

import pytest
from voxport.domain.errors import UsageError
from voxport.settings import load_settings

KEY, OTHER = "a-key-of-20-letters!", "another-key-of-22-lett"


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("VOXPORT_SECRETS_DIR", str(folder))
    monkeypatch.setenv("VOXPORT_SETTINGS_FILE", str(tmp_path / "settings.yaml"))
    for name in ("VOXPORT_API_KEYS", "VOXPORT_API_KEY", "VOXPORT_JOBS__DATABASE"):
        monkeypatch.delenv(name, raising=False)
    return folder


def keys() -> list[str]:
    return [key.get_secret_value() for key in load_settings().api_keys]


def test_secrets_are_files_called_like_variables(secrets: Path) -> None:
    (secrets / "voxport_api_keys").write_text(f"{KEY}, {OTHER}\n", encoding="utf-8")
    (secrets / "VOXPORT_API_KEY").write_text(f"{KEY}\n", encoding="utf-8")
    (secrets / "voxport_jobs__database").write_text("postgresql://voxport:hush@postgres/voxport\n", encoding="utf-8")
    (secrets / "postgres_password").write_text("hush", encoding="utf-8")
    settings = load_settings()
    assert keys() == [KEY, OTHER]
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == KEY
    assert settings.jobs.database == "postgresql://voxport:hush@postgres/voxport"
    assert settings.jobs.concurrency == 1


def test_variables_come_before_secrets_and_secrets_before_the_file(
    secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings.yaml").write_text(f"api_keys: ['{OTHER}']\nthreads: 3\n", encoding="utf-8")
    assert keys() == [OTHER]
    (secrets / "voxport_api_keys").write_text(KEY, encoding="utf-8")
    assert keys() == [KEY]
    assert load_settings().threads == 3
    monkeypatch.setenv("VOXPORT_API_KEYS", OTHER)
    assert keys() == [OTHER]


def test_a_setting_of_one_level_may_come_from_several_places(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (secrets / "voxport_jobs__database").write_text("sqlite:////data/jobs.sqlite", encoding="utf-8")
    monkeypatch.setenv("VOXPORT_JOBS__CONCURRENCY", "3")
    assert load_settings().jobs.database == "sqlite:////data/jobs.sqlite"
    assert load_settings().jobs.concurrency == 3


def test_a_wrong_secret_is_named_and_not_shown(secrets: Path) -> None:
    (secrets / "voxport_threads").write_text("hush", encoding="utf-8")
    with pytest.raises(UsageError, match=r"settings: .*threads: ") as caught:
        load_settings()
    assert "hush" not in str(caught.value)


def test_a_folder_of_secrets_that_is_not_there_is_an_error(secrets: Path) -> None:
    secrets.rmdir()
    with pytest.raises(UsageError, match=r"settings: expected valid .*does not exist"):
        load_settings()


def test_secrets_show_in_no_picture_of_the_settings(secrets: Path) -> None:
    (secrets / "voxport_api_keys").write_text(KEY, encoding="utf-8")
    (secrets / "voxport_api_key").write_text(KEY, encoding="utf-8")
    assert KEY not in repr(load_settings())
