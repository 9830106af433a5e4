"""The embedded PostgreSQL: making its data folder, and the service that runs it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psycopg

from launcher import binaries
from launcher.files import append_handle, write_private
from launcher.home import Home
from launcher.problems import Problem, tail, with_log
from launcher.processes import MARKER
from launcher.service import Service

SUPERUSER: Final = "postgres"
DATABASE: Final = "aos"
MAJOR: Final = "18"
MAX_CONNECTIONS: Final = 200
# Recovery after a crash replays the log before the first connection is let in.
READY_SECONDS: Final = 120.0
# What web requests become, so that row security holds for them. On one line: it is read from stdin.
_WEB_ROLE: Final = (
    "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'aos_app') THEN"
    f" CREATE ROLE aos_app NOLOGIN; END IF; EXECUTE 'GRANT aos_app TO {DATABASE}'; END $$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    home: Home
    programs: Path
    port: int

    @property
    def data(self) -> Path:
        return self.home.servers / "postgres"

    @property
    def is_made(self) -> bool:
        return (self.data / "PG_VERSION").is_file()

    def url(self, password: str) -> str:
        """Return the address over the Unix socket: no TCP stack between us and the data."""
        place = quote(str(self.home.sockets), safe="")
        return f"postgresql://{DATABASE}:{password}@:{self.port}/{DATABASE}?host={place}"

    def make(self, *, password: str, superuser_password: str, extra: Sequence[str] = ()) -> None:
        """Make the data folder with its roles, database and extension: all of it, or nothing."""
        draft = self.data.with_name("postgres.new")
        shutil.rmtree(draft, ignore_errors=True)
        self._initdb(draft, superuser_password)
        # Every database made later, those of tests too, copies the extension from template1.
        self._sql(draft, "template1", ["CREATE EXTENSION vector"], extra)
        roles = [
            f"CREATE ROLE {DATABASE} LOGIN CREATEDB PASSWORD '{password}'",
            _WEB_ROLE,
            f"CREATE DATABASE {DATABASE} OWNER {DATABASE}",
        ]
        self._sql(draft, "postgres", roles, extra)
        self._note_passwords(password, superuser_password)
        draft.rename(self.data)

    def mend_roles(self, *, password: str, superuser_password: str) -> None:
        """Bring the roles up to date: a data folder may be older than this version of AOS, and may
        have outlived the file that held its passwords.

        Only while no server runs on it.
        """
        noted = self._note.read_text("ascii") if self._note.exists() else ""
        if noted == _digest(password, superuser_password):
            return
        lines = [
            f"ALTER ROLE {DATABASE} PASSWORD '{password}'",
            f"ALTER ROLE {SUPERUSER} PASSWORD '{superuser_password}'",
            _WEB_ROLE,
        ]
        self._sql(self.data, "postgres", lines, ())
        self._note_passwords(password, superuser_password)

    def refuse_other_version(self) -> None:
        found = (self.data / "PG_VERSION").read_text("ascii").strip()
        if found != MAJOR:
            raise Problem(
                f"The data in {self.data} was written by PostgreSQL {found}; this is PostgreSQL {MAJOR}.",
                step="Dump it with the earlier version of AOS, `make reset`, and restore.",
            )

    def service(self, env: Mapping[str, str], options: Sequence[str] = ()) -> Service:
        account = self.home.account
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.home.sockets),
            "unix_socket_permissions": "0700",
            "max_connections": str(MAX_CONNECTIONS),
            "log_line_prefix": "%m [%p] %q%a: ",
            # A failing statement, and the row it is about, hold what people typed.
            "log_min_error_statement": "panic",
            "log_error_verbosity": "terse",
        }
        pairs = [f"{name}={value}" for name, value in settings.items()] + list(options)
        flags = [word for pair in pairs for word in ("-c", pair)]
        return Service(
            name="postgres",
            group="postgres",
            argv=[str(self.programs / "postgres"), "-D", str(self.data), *flags],
            env=_environment(self.home, env),
            cwd=str(self.home.servers),
            # SIGTERM would wait for every client to leave by itself.
            stop_signal="SIGINT",
            grace=30.0,
            uid=account.uid if account else None,
            gid=account.gid if account else None,
            data=str(self.data),
            pid_file=str(self.data / "postmaster.pid"),
        )

    def _note_passwords(self, *passwords: str) -> None:
        """Remember which passwords the roles have, as a digest that opens nothing."""
        write_private(self._note, _digest(*passwords))

    @property
    def _note(self) -> Path:
        return self.home.servers / "postgres.passwords"

    def _initdb(self, draft: Path, password: str) -> None:
        secret = self.home.servers / "password.new"
        secret.unlink(missing_ok=True)
        handle = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(password + "\n")
        if self.home.account is not None:
            os.chown(secret, self.home.account.uid, self.home.account.gid)
        # The builtin locale needs neither ICU nor a locale of the host, and sorts alike everywhere.
        words = (
            f"initdb --username={SUPERUSER} --auth=scram-sha-256 --encoding=UTF8 --locale=C"
            " --locale-provider=builtin --builtin-locale=C.UTF-8"
        ).split()
        try:
            self._run([*words, f"--pwfile={secret}", "--pgdata", str(draft)])
        finally:
            secret.unlink(missing_ok=True)

    def _sql(self, data: Path, name: str, lines: Sequence[str], extra: Sequence[str]) -> None:
        """Run statements without a server: nobody can connect, and no password is in an argument."""
        quiet = "log_min_error_statement=panic"  # a failing statement must not show its password
        flags = [word for pair in (quiet, *extra) for word in ("-c", pair)]
        output = self._run(
            ["postgres", "--single", "-D", str(data), *flags, name],
            text="".join(f"{line}\n" for line in lines),
        )
        if any("ERROR:" in line for line in output):
            raise self._failure()

    def _run(self, argv: Sequence[str], text: str = "") -> list[str]:
        options: dict[str, Any] = self.home.account.options if self.home.account else {}
        handle = append_handle(self._log)
        begin = self._log.stat().st_size
        try:
            subprocess.run(
                [str(self.programs / argv[0]), *argv[1:]],
                check=True,
                input=text.encode(),
                stdout=handle,
                stderr=subprocess.STDOUT,
                cwd=self.home.servers,
                env=_environment(self.home, os.environ),
                umask=0o077,
                timeout=300,
                **options,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise self._failure() from error
        finally:
            os.close(handle)
        return self._log.read_bytes()[begin:].decode("utf-8", "replace").splitlines()

    @property
    def _log(self) -> Path:
        return self.home.log("postgres-init")

    def _failure(self) -> Problem:
        if any("No space left" in line for line in tail(self._log)):
            return Problem(
                f"The disk of {self.home.servers} is full.", step="Free some space and try again."
            )
        return with_log(
            "PostgreSQL's data folder could not be made.",
            step="Correct what the lines above name and run the command again: nothing was kept.",
            log=self._log,
        )


def _digest(*passwords: str) -> str:
    return hashlib.sha256("\0".join([*passwords, _WEB_ROLE]).encode()).hexdigest()


def embedded(home: Home, port: int) -> Postgres:
    return Postgres(home=home, programs=binaries.postgres(home), port=port)


def wait_until_ready(url: str, *, seconds: float = READY_SECONDS) -> bool:
    """Wait for the server to let us in; False when it does not within *seconds*."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with psycopg.connect(url, connect_timeout=3):
                return True
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise Problem(
                    "The embedded PostgreSQL refuses its own password.",
                    step="Run `make stop`, then the same command again: that gives it a new one.",
                ) from error
            time.sleep(0.05)
    return False


def _environment(home: Home, env: Mapping[str, str]) -> dict[str, str]:
    """A server needs no secret of ours, and must speak English: we read what it says."""
    kept = {name: env[name] for name in ("PATH", "TZ") if name in env}
    return {**kept, "LC_ALL": "C", "LANG": "C", MARKER: str(home.state)}
