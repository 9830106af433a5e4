"""The account PostgreSQL and Valkey run under when the launcher is root: PostgreSQL refuses root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any, Final

NAME: Final = "aos-data"
FALLBACK: Final = "nobody"
OPTIONS: Final = (
    *("--system", "--user-group", "--no-create-home"),
    *("--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    name: str
    uid: int
    gid: int

    @property
    def options(self) -> dict[str, Any]:
        """Arguments that make ``subprocess`` start a program under this account, and no group more."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def is_root() -> bool:
    return os.geteuid() == 0


def find(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)


def for_servers() -> Account | None:
    """Return the account for the servers, making it once; an ordinary user needs none.

    Where accounts cannot be made (a read-only /etc, no useradd) ``nobody`` has to do.
    """
    if not is_root():
        return None
    if (account := find(NAME)) is not None:
        return account
    _create()
    account = find(NAME) or find(FALLBACK)
    if account is None:
        raise KeyError(FALLBACK)
    return account


def _create() -> None:
    program = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        return
    # A second launcher may have won the race: the caller looks again whatever this answers.
    subprocess.run(
        [program, *OPTIONS, NAME],
        check=False,
        capture_output=True,
        timeout=30,
    )
