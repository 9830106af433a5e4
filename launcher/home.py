"""Where one clone keeps what it runs: folders, files, and whose they are."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from launcher import accounts
from launcher.accounts import Account
from launcher.files import private_folder
from launcher.problems import Problem

# As root the servers run under another account, which cannot reach into a private home folder.
ROOT_SERVERS: Final = Path("/var/lib/aos")
# sun_path holds 108 bytes with its final NUL. The longest name we put there is PostgreSQL's.
LONGEST_SOCKET: Final = 107 - len("/.s.PGSQL.65535.lock")
LEAST_FREE_BYTES: Final = 500 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    project: Path  # the clone
    state: Path  # .aos: ours alone
    servers: Path  # data of PostgreSQL and Valkey
    sockets: Path  # short enough for a Unix socket
    account: Account | None  # whom the servers run as; None: as ourselves

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def run(self) -> Path:
        return self.state / "run"

    @property
    def secrets(self) -> Path:
        return self.state / "secrets.json"

    @property
    def env(self) -> Path:
        return self.state / "env"

    @property
    def plan(self) -> Path:
        return self.run / "plan.json"

    @property
    def status(self) -> Path:
        return self.run / "status.json"

    @property
    def demo(self) -> Path:
        return self.state / "demo.json"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def prepare(self) -> None:
        """Make the folders, or say why that cannot be."""
        self.refuse_other_owner()
        for folder in (self.state, self.logs, self.run):
            private_folder(folder)
        if self.account is not None:
            _public_folder(ROOT_SERVERS)
        _servers_folder(self.servers, self.account)
        if self.account is not None:
            # For who finds the folder when the clone is gone.
            (self.servers / "clone").write_text(f"{self.state}\n", "utf-8")
        _servers_folder(self.sockets, self.account)
        for folder in (self.state, self.servers):
            _refuse_full_disk(folder)

    def refuse_other_owner(self) -> None:
        if not self.state.exists():
            return
        owner = self.state.stat().st_uid
        if owner != os.geteuid():
            raise Problem(
                f"{self.state} belongs to {_user_name(owner)}, and you are {_user_name(os.geteuid())}.",
                step=f"Run the command as {_user_name(owner)}, or set AOS_DATA_DIR to a folder of your own.",
            )


def here() -> Home:
    """Return the home of the clone in the current folder."""
    project = Path.cwd()
    if not (project / "Procfile").is_file():
        raise Problem(
            f"{project} is not a clone of AOS: it has no Procfile.",
            step="Change to the folder that holds the Makefile and run make there.",
        )
    return at(project, Path(os.environ.get("AOS_DATA_DIR") or project / ".aos"))


def at(project: Path, state: Path) -> Home:
    state = Path(os.path.realpath(state))
    account = accounts.for_servers()
    key = hashlib.sha256(os.fsencode(state)).hexdigest()[:12]
    servers = state if account is None else ROOT_SERVERS / key
    sockets = servers / "sockets"
    if len(os.fsencode(sockets)) > LONGEST_SOCKET:
        sockets = Path("/tmp") / f"aos-{os.geteuid()}-{key}"  # noqa: S108 - owner and mode are checked
    return Home(project=project, state=state, servers=servers, sockets=sockets, account=account)


def _public_folder(path: Path) -> None:
    """Others may pass through on the way to what is theirs, and see nothing."""
    path.mkdir(mode=0o711, parents=True, exist_ok=True)
    path.chmod(0o711)


def _servers_folder(path: Path, account: Account | None) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    uid = os.geteuid() if account is None else account.uid
    owner = path.lstat()
    if path.is_symlink() or owner.st_uid not in {uid, os.geteuid()}:
        raise Problem(
            f"{path} was put there by {_user_name(owner.st_uid)}.",
            step=f"Look at it, remove it, and run the command again: rm -r {path}",
        )
    if account is not None:
        os.chown(path, account.uid, account.gid)
    path.chmod(0o700)


def _refuse_full_disk(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE_BYTES:
        raise Problem(
            f"The disk of {folder} has {free // 2**20} MB left; AOS needs {LEAST_FREE_BYTES // 2**20} MB.",
            step="Free some space, or set AOS_DATA_DIR to a folder on another disk.",
        )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
