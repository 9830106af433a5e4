"""PgBouncer in transaction mode: nobody sees another's rows, and what takes long is read to its end."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
from django.db import connection, transaction

from aos_project import env
from apps.core import tenancy
from apps.events.models import AuditEntry
from apps.events.services import chain, outbox
from apps.events.types import platform
from apps.hub import log
from apps.hub.audit import export
from apps.identity.types import Role
from apps.runs.models import Run, RunEvent
from apps.runs.types import EventKind
from launcher import accounts, ports
from tests.faces import api, key, session
from tests.factories import make_actor, make_run, make_user
from tests.support.platform import listens, wait_for
from tests.support.threads import at_once

PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")


@pytest.fixture
def pooled(request, transactional_db):
    """The tests' database, reached through a pooler with one server connection, or as many as asked."""
    if PROGRAM is None:
        if env.flag("AOS_REQUIRE_DOCKER", default=False):
            pytest.fail(
                "AOS_REQUIRE_DOCKER is set: nothing may be skipped, and pgbouncer is missing."
            )
        pytest.skip("needs pgbouncer")
    given, port, account = connection.settings_dict, ports.pick(), accounts.for_servers()
    # Not below pytest's folders, which nobody but their owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="aos-pooler-"))
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n{given['NAME']} = host={given['HOST']} port={given['PORT']}"
        f" user={given['USER']} password={given['PASSWORD']}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = transaction\nmax_client_conn = 100\n"
        f"default_pool_size = {getattr(request, 'param', 1)}\n"
    )
    runs_as = {}
    if account is not None:
        # The program refuses to be root. The file holds a password, so it is handed over, not opened.
        runs_as = {"user": account.uid, "group": account.gid, "extra_groups": []}
        for path in (folder, config):
            shutil.chown(path, account.uid, account.gid)
    process = subprocess.Popen([PROGRAM, "-q", str(config)], cwd="/", **runs_as)
    direct = {name: given[name] for name in ("HOST", "PORT")}
    try:
        wait_for("pgbouncer", lambda: listens(port))
        connection.close()
        given.update(HOST="127.0.0.1", PORT=str(port))
        yield
    finally:
        connection.close()
        given.update(direct)
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)


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


@contextmanager
def somebody_in_between():
    """Another client that takes the server connection used last, and keeps it."""
    began, over = threading.Event(), threading.Event()

    def stay():
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SELECT 1")
                began.set()
                over.wait(30)
        finally:
            connection.close()

    thread = threading.Thread(target=stay)
    thread.start()
    assert began.wait(30)
    try:
        yield
    finally:
        over.set()
        thread.join()


LONG = 2_500


@pytest.fixture
def long_log(pooled):
    """A run whose log and whose organization's audit log are longer than what is fetched at once."""
    run = make_run()
    RunEvent.objects.bulk_create(
        RunEvent(run=run, seq=100 + n, kind=EventKind.LOG, payload={"text": str(n)})
        for n in range(LONG)
    )
    by = platform("test", organization_id=run.organization_id)
    with transaction.atomic():
        for n in range(LONG):
            outbox.audit(by, "test", resource_type="number", resource_id=n)
        while chain.seal():
            pass
    return run


@pytest.mark.parametrize("pooled", [2], indirect=True)
def test_a_log_is_read_to_its_end_whoever_comes_in_between(long_log, pooled):
    lines = log.as_text(long_log)
    first = next(lines)
    with somebody_in_between():
        rest = list(lines)

    assert first
    assert len(rest) + 1 >= LONG


@pytest.mark.parametrize("pooled", [2], indirect=True)
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_the_audit_log_is_exported_whole_whoever_comes_in_between(long_log, pooled, form):
    owner = make_actor(Role.OWNER, organization=long_log.project.organization)
    entries = AuditEntry.objects.filter(organization_id=long_log.organization_id)
    lines = iter(export.respond(entries, by=owner, form=form, asked={}).streaming_content)
    next(lines)
    next(lines)
    with somebody_in_between():
        rest = list(lines)

    assert len(rest) >= LONG - 2


@pytest.mark.parametrize("pooled", [2], indirect=True)
def test_the_chain_is_verified_whole_whoever_comes_in_between(long_log, pooled, monkeypatch):
    real, stack = chain.digest, ExitStack()
    monkeypatch.setattr(chain, "_PAGE", 100)

    def digest(words, **before):
        if not stack.has_come:
            stack.has_come = True
            stack.enter_context(somebody_in_between())
        return real(words, **before)

    stack.has_come = False
    monkeypatch.setattr(chain, "digest", digest)
    with stack:
        verdict = chain.verify(long_log.organization_id)

    assert verdict.is_intact
    assert verdict.checked >= LONG


@pytest.mark.parametrize("pooled", [2], indirect=True)
def test_pages_and_the_api_are_served_through_it(pooled):
    run = make_run()
    user = make_user(role=Role.OWNER, organization=run.project.organization)
    browser, program = session(user), api(user, "run:write", "run:read", "audit:read")
    for path in (
        "/",
        "/runs",
        f"/runs/{run.public_id}",
        "/audit",
        "/schedules",
        "/account/security",
    ):
        assert browser.get(path).status_code == 200, path
    task = {
        "project": run.project.slug,
        "agent": run.agent_version.agent.slug,
        "input": {},
    }
    made = program.post("/api/run", task, format="json", headers=key())
    assert made.status_code == 202
    assert program.get("/api/audit/verify").json()["intact"]
    assert len(program.get("/api/runs").json()["results"]) == 2
