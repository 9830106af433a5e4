"""PgBouncer in transaction mode: one server connection for everybody, and still nobody sees another's."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from functools import partial

import pytest
from django.db import connection, transaction

from aos_project import env
from apps.core import tenancy
from apps.runs.models import Run
from launcher import accounts, ports
from tests.factories import make_run
from tests.support.threads import at_once

PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")


@pytest.fixture
def pooled(transactional_db, tmp_path_factory):
    """The tests' database, reached through a pooler that has one server connection."""
    if PROGRAM is None:
        if env.flag("AOS_REQUIRE_DOCKER", default=False):
            pytest.fail(
                "AOS_REQUIRE_DOCKER is set: nothing may be skipped, and pgbouncer is missing."
            )
        pytest.skip("needs pgbouncer")
    given, port, account = connection.settings_dict, ports.pick(), accounts.for_servers()
    folder = tmp_path_factory.mktemp("pooler")
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n{given['NAME']} = host={given['HOST']} port={given['PORT']}"
        f" user={given['USER']} password={given['PASSWORD']}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        "auth_type = any\npool_mode = transaction\ndefault_pool_size = 1\nmax_client_conn = 100\n"
    )
    runs_as = {}
    if account is not None:
        # The program refuses to be root. The file holds a password, so it is handed over, not opened.
        runs_as = {"user": account.uid, "group": account.gid, "extra_groups": []}
        for path in (folder, config):
            shutil.chown(path, account.uid, account.gid)
        for parent in folder.parents[:2]:
            parent.chmod(parent.stat().st_mode | 0o011)
    process = subprocess.Popen([PROGRAM, "-q", str(config)], cwd="/", **runs_as)
    direct = {name: given[name] for name in ("HOST", "PORT")}
    try:
        await_listener(process, port)
        connection.close()
        given.update(HOST="127.0.0.1", PORT=str(port))
        yield
    finally:
        connection.close()
        given.update(direct)
        process.terminate()
        process.wait(10)


def await_listener(process, port):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail("pgbouncer did not start")


def test_organizations_share_a_server_connection_and_see_their_own(pooled):
    homes = [make_run().organization_id for _ in range(4)]
    wrong, servers = [], set()

    def look(home):
        with tenancy.organization(home):
            for number in range(40):
                if number % 2:
                    seen = set(Run.objects.values_list("organization_id", flat=True))
                else:
                    with transaction.atomic(), connection.cursor() as cursor:
                        cursor.execute("SELECT pg_backend_pid()")
                        servers.add(cursor.fetchone()[0])
                        cursor.execute("SELECT organization_id FROM runs_run")
                        seen = {row[0] for row in cursor.fetchall()}
                if seen != {home}:
                    wrong.append(seen)

    at_once([partial(look, home) for home in homes])

    assert wrong == []
    assert len(servers) == 1
    # The platform comes by the same connection and sees all: nothing was left behind on it.
    assert Run.objects.count() == len(homes)
