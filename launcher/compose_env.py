"""`make compose-env`: writes ``.env`` for docker compose, with passwords of its own, once."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Final

from launcher.console import Console
from launcher.docker import SOCKET
from launcher.files import write_private
from launcher.problems import Problem, from_os_error

TEXT: Final = """\
# Read by docker compose. Made by `make compose-env`; keep it out of version control and backups.
# The name people reach AOS by, and the address behind it. TLS ends at your proxy.
AOS_ALLOWED_HOSTS=localhost
AOS_PUBLIC_URL=https://localhost
AOS_SECRET_KEY={secret_key}
AOS_TOKEN_PEPPER={pepper}
AOS_FLOWER_BASIC_AUTH=aos:{flower}
AOS_DATABASE_PASSWORD={database}
POSTGRES_PASSWORD={superuser}
VALKEY_PASSWORD={valkey}
# The group that may use the Docker socket: the worker's sandboxes are made through it.
DOCKER_GID={docker_group}
"""


def make(project: Path) -> Path:
    path = project / ".env"
    if path.exists():
        raise Problem(
            f"{path} is already there, and its passwords are those of the stored data.",
            step="Keep it. To start anew: docker compose down --volumes && rm .env",
        )
    socket = Path(SOCKET)
    text = TEXT.format(
        secret_key=secrets.token_urlsafe(48),
        pepper=secrets.token_urlsafe(48),
        flower=secrets.token_urlsafe(24),
        database=secrets.token_hex(24),
        superuser=secrets.token_hex(24),
        valkey=secrets.token_hex(24),
        docker_group=socket.stat().st_gid if socket.exists() else 999,
    )
    write_private(path, text)
    return path


def main() -> int:
    console = Console()
    try:
        path = make(Path.cwd())
    except Problem as problem:
        console.explain(problem)
    except OSError as error:
        console.explain(from_os_error(error))
    else:
        console.done(f"{path} written; set AOS_ALLOWED_HOSTS and AOS_PUBLIC_URL in it")
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
