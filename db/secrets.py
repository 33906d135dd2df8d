"""Secrets that come as files, one each, as Docker and Kubernetes hand them over.

`BAKEOFF_SECRETS` names the folder, or several with a colon between them. A file there has the name of its variable,
in lower case: `bakeoff_database_password`. A variable that is set wins over its file.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, urlsplit

from pydantic import SecretStr

from db.errors import SettingsError

VARIABLE = "BAKEOFF_SECRETS"


def secret_folders() -> list[Path]:
    """The folders that `BAKEOFF_SECRETS` names. Raises `SettingsError` where one of them is none."""
    folders = [Path(name) for name in os.environ.get(VARIABLE, "").split(":") if name]
    for folder in folders:
        if not folder.is_dir():
            raise SettingsError(f"{VARIABLE} names {folder}, which is no folder; mount the secrets there, or unset it.")
    return folders


def secret_of(variable: str) -> str | None:
    """What a variable holds, or else the file of its name in lower case; None where there is neither."""
    if variable in os.environ:
        return os.environ[variable]
    for folder in secret_folders():
        file = folder / variable.lower()
        if file.is_file():
            return file.read_text(encoding="utf-8").strip()
    return None


def secret_files() -> list[str]:
    """Names of the files that are meant for settings of ours."""
    return sorted({file.name for folder in secret_folders() for file in folder.glob("bakeoff_*")})


def check_said_once(name: str, url: SecretStr | None, password: SecretStr | None) -> None:
    """Raises `ValueError` where a password stands alone, or the URL that it belongs to brings one of its own."""
    if password is None:
        return
    if url is None or ":" in urlsplit(url.get_secret_value()).netloc.rpartition("@")[0]:
        why = "is not set" if url is None else "holds a password already"
        raise ValueError(f"{name}_PASSWORD is set, and {name}_URL {why}; say both, and the password once")


def joined(url: SecretStr, password: SecretStr | None) -> str:
    """A URL with its password, which may hold any characters where it came by itself."""
    parts = urlsplit(url.get_secret_value())
    if password is None:
        return url.get_secret_value()
    user, _, place = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}:{quote(password.get_secret_value(), safe='')}@{place}").geturl()
