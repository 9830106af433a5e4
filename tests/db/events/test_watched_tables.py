"""No change to what people decide without its audit entry: PostgreSQL refuses the commit."""

# ruff: noqa: ARG005  # the acts in the tables below are all called alike

from __future__ import annotations

import pytest
from django.apps import apps
from django.db import IntegrityError, connection, transaction

from apps.agents.services import registry
from apps.core.errors import AosError
from apps.events.models import AuditEntry
from apps.events.services import outbox
from apps.identity.actor import Actor
from apps.identity.models import ApiToken, Binding, Department, Proposal, User
from apps.identity.services import bindings, people, proposals, tokens
from apps.identity.types import Role
from apps.projects.models import Project, WorkspaceFile
from apps.projects.services import files, projects
from apps.runs.limit_models import Limit
from apps.runs.models import Lane, ReadyRun, Run, Schedule
from apps.runs.retention_models import Retention
from apps.runs.services import control, submission
from apps.sandboxes.models import Environment
from tests.factories import (
    make_actor,
    make_agent,
    make_file,
    make_project,
    make_run,
    make_schedule,
)

# What changes without anybody's decision, or cannot be changed at all.
UNWATCHED = {
    "events_": "the record itself: append-only",
    "runs_ready": "how runs move is their own log; their birth and their cancelling are watched",
    "runs_scheduled": "the same",
    "runs_lease": "the same",
    "runs_hold": "the same",
    "runs_bucket": "the same",
    "runs_waiting": "the same",
    "runs_deadline": "the same",
    "runs_child": "the same",
    "runs_budget": "the same; what is taken of it is the engine's",
    "runs_share": "the same",
    "runs_dependency": "named when a run is born, which is watched; never changed",
    "runs_pace": "what workers measured",
    "runs_attempt": "the same",
    "runs_event": "the log of a run itself: append-only",
    "runs_artifact": "what workers store",
    "runs_schedule_fire": "what came of a schedule's times; the engine writes entries beside it",
    "runs_worker": "which machines there are",
    "runs_leader": "which engine leads",
    "runs_idempotencykey": "what was answered to whom",
    "identity_withdrawal": "written by triggers, in the transaction of a watched loss",
    "sandboxes_sandbox": "what workers start and end",
    "sandboxes_host_profile": "what workers find on their hosts",
    "sandboxes_host_image": "the same",
    "axes_": "guesses at the door; each is an entry of ours where the account exists",
    "django_": "sessions, and Django's own names",
    "auth_": "Django's groups and permissions, which nobody asks",
    "identity_installation": "codes before there is anybody to record; it closes with the founding's entry",
    "identity_user_groups": "Django's groups, which nobody asks",
    "identity_user_user_permissions": "Django's permissions, which nobody asks",
}

pytestmark = pytest.mark.django_db(transaction=True)
REFUSED = "no audit entry"


def test_every_table_is_watched_or_says_why_not():
    tables = {model._meta.db_table for model in apps.get_models(include_auto_created=True)}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger "
            "WHERE tgfoid = 'events_require_audit'::regproc"
        )
        watched = {table for (table,) in cursor.fetchall()}

    families = tuple(name for name in UNWATCHED if name.endswith("_"))
    silent = {table for table in tables - watched if not table.startswith(families)}
    assert silent == {name for name in UNWATCHED if name not in families}


@pytest.fixture
def by():
    return make_actor()


@pytest.fixture
def run(by):
    return make_run(by=by, project=make_project(organization=by.user.organization))


SILENT = {
    "a project made": lambda by, run: Project.objects.create(
        organization=by.user.organization, slug="x", name="X"
    ),
    "a project renamed": lambda by, run: Project.objects.update(name="Y"),
    "a department made": lambda by, run: Department.objects.create(
        organization=by.user.organization, name="D"
    ),
    "a role raised": lambda by, run: Binding.objects.update(role=Role.OWNER),
    "a role removed": lambda by, run: Binding.objects.all().delete(),
    "a person disabled": lambda by, run: User.objects.update(is_active=False),
    "a password changed": lambda by, run: User.objects.update(password="!"),
    "a token prolonged": lambda by, run: ApiToken.objects.update(expires_at="2099-01-01T00:00Z"),
    "an agent renamed": lambda by, run: type(make_agent()).objects.update(title="T"),
    "a run cancelled": lambda by, run: Run.objects.filter(pk=run.pk).update(
        state="cancelled", finished_at="2030-01-01T00:00Z"
    ),
    "a schedule given to somebody else": lambda by, run: (
        make_schedule(by=by, project=run.project),
        Schedule.objects.update(submits_as=make_actor(organization=run.project.organization).user),
    ),
    "an environment opened to the network": lambda by, run: Environment.objects.update(
        egress={"mode": "open"}
    ),
    "a proposal accepted": lambda by, run: (
        proposals.propose(by=by, user=by.user),
        Proposal.objects.update(state="accepted", decided_at="2030-01-01T00:00Z"),
    ),
    "a lane paused": lambda by, run: Lane.objects.update(paused=True),
    "a lane capped": lambda by, run: Lane.objects.update(cap=1),
    "a run removed": lambda by, run: (
        run.event_set.all().delete(),
        ReadyRun.objects.all().delete(),
        Run.objects.filter(pk=run.pk)._raw_delete("default"),
    ),
    "a time for ended runs set": lambda by, run: Retention.objects.create(
        organization_id=run.organization_id, run_days=1
    ),
    "a limit set": lambda by, run: Limit.objects.create(
        organization_id=run.organization_id, scope="organization", gate=run.organization_id, cap=1
    ),
}


@pytest.mark.parametrize("act", SILENT.values(), ids=SILENT)
def test_a_silent_change_cannot_be_committed(by, run, act):
    tokens.issue(by=by, name="t", scopes=["run:read"])

    with pytest.raises(IntegrityError, match=REFUSED):
        act(by, run)


def test_the_same_change_with_its_entry_is_committed(by):
    with transaction.atomic():
        Project.objects.create(organization=by.user.organization, slug="x", name="X")
        outbox.audit(by.ref, "project.create", resource_type="project", resource_id="x")

    assert Project.objects.filter(slug="x").exists()


def test_one_entry_covers_what_the_transaction_does(by):
    with transaction.atomic():
        outbox.audit(by.ref, "project.create", resource_type="project", resource_id="many")
        for number in range(3):
            Project.objects.create(organization=by.user.organization, slug=f"x-{number}", name="X")

    assert Project.objects.filter(slug__startswith="x-").count() == 3


def test_an_entry_that_was_rolled_back_covers_nothing(by):
    def act():
        with transaction.atomic():
            Project.objects.create(organization=by.user.organization, slug="x", name="X")
            with transaction.atomic():
                outbox.audit(by.ref, "project.create", resource_type="project", resource_id="x")
                transaction.set_rollback(True)

    with pytest.raises(IntegrityError, match=REFUSED):
        act()
    assert not Project.objects.filter(slug="x").exists()


def test_an_entry_of_an_earlier_transaction_covers_nothing(by):
    with transaction.atomic():
        outbox.audit(by.ref, "project.create", resource_type="project", resource_id="x")

    with pytest.raises(IntegrityError, match=REFUSED):
        Project.objects.create(organization=by.user.organization, slug="x", name="X")


def test_the_mark_cannot_be_set_for_a_whole_session(by):
    with connection.cursor() as cursor:
        cursor.execute("SET aos.audited = 'on'")
    try:
        with pytest.raises(IntegrityError, match=REFUSED):
            Project.objects.create(organization=by.user.organization, slug="x", name="X")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET aos.audited")


def test_what_is_nobodys_act_needs_no_entry(by, run):
    token, _ = tokens.issue(by=by, name="t", scopes=["run:read"])

    ApiToken.objects.filter(pk=token.pk).update(last_used_at="2030-01-01T00:00Z")
    User.objects.filter(pk=by.user.pk).update(last_login="2030-01-01T00:00Z")
    Run.objects.filter(pk=run.pk).update(isolation="docker")


# --- the services, with their audit line taken away --------------------------------------------------

ACTS = {
    "found": lambda by, run: people.found(
        slug="new", name="New", owner="nina", email="n@example.com", password="correct horse 9"
    ),
    "add": lambda by, run: people.add(
        by=by, username="new", email="n@example.com", password="correct horse 9"
    ),
    "grant": lambda by, run: bindings.grant(by=by, subject=_somebody(by), role=Role.VIEWER),
    "issue": lambda by, run: tokens.issue(by=by, name="t", scopes=["run:read"]),
    "project": lambda by, run: projects.create(by=by, slug="n", name="N"),
    "file": lambda by, run: files.put(by=by, project=run.project, name="a.csv", chunks=[b"a"]),
    "register": lambda by, run: registry.register(by=by, slug="n", title="N"),
    "submit": lambda by, run: control.rerun(by=by, run=run),
    "cancel": lambda by, run: control.cancel(by=by, run=run),
}


def _somebody(by: Actor) -> User:
    return User.objects.filter(organization=by.user.organization).exclude(pk=by.user.pk).get()


@pytest.fixture
def colleague(by):
    return make_actor(Role.VIEWER, organization=by.user.organization)


@pytest.mark.usefixtures("colleague")
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_a_service_that_forgets_its_entry_changes_nothing(by, run, act, monkeypatch):
    monkeypatch.setattr(outbox, "audit", lambda *_, **__: None)
    # Submissions write theirs by the statement that stores the runs.
    store = submission._store
    monkeypatch.setattr(
        submission, "_store", lambda runs, *, by, entries: store(runs, by=by, entries=[])
    )
    before = _rows()

    with pytest.raises(IntegrityError, match=REFUSED):
        act(by, run)

    assert _rows() == before


@pytest.mark.usefixtures("colleague")
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_a_service_that_remembers_it_is_let_through(by, run, act):
    count = AuditEntry.objects.count()

    act(by, run)

    assert AuditEntry.objects.count() == count + 1


@pytest.mark.usefixtures("colleague")
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_while_the_log_cannot_be_written_nothing_can_be_changed(by, run, act):
    before = _rows()
    with connection.cursor() as cursor:
        cursor.execute(
            "ALTER TABLE events_auditentry ADD CONSTRAINT no_room CHECK (false) NOT VALID"
        )
    try:
        with pytest.raises((IntegrityError, AosError)):
            act(by, run)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE events_auditentry DROP CONSTRAINT no_room")

    assert _rows() == before


def _rows():
    models = (User, Binding, ApiToken, Project, WorkspaceFile, Run)
    return [list(model.objects.order_by("pk").values()) for model in models]


# --- what an entry says of the change ----------------------------------------------------------------


def test_an_entry_shows_old_and_new(by):
    project = make_project(organization=by.user.organization)
    make_file(project, content=b"old")

    files.put(by=by, project=project, name="data.csv", chunks=[b"newer"])

    changes = AuditEntry.objects.filter(action="file.write").latest("id").detail["changes"]
    assert changes["size"] == [3, 5]
    assert set(changes) == {"size", "sha256"}
