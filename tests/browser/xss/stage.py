"""Something of everything, so that every page has something to show, and the addresses of those pages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from django.apps import apps
from django.contrib.auth.hashers import Argon2PasswordHasher
from django.db import transaction
from django.db.models.functions import Now
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from apps.core import blobs
from apps.events.models import AuditEntry
from apps.events.services import outbox
from apps.events.types import EventType, Severity, Subject
from apps.identity.actor import Actor
from apps.identity.adminsite import site
from apps.identity.models import Proposal, ProviderAccount, SignIn, User
from apps.identity.types import Role
from apps.projects.models import Project
from apps.runs.kin_models import ChildRun
from apps.runs.limit_models import Limit
from apps.runs.models import Artifact, BulkAct, Run, ScheduleFire
from apps.runs.services import gates
from apps.runs.types import TaskSpec
from apps.sandboxes.models import Environment, HostImage, HostProfile, Sandbox
from tests.browser.xss.corpus import PLAIN, Volley
from tests.factories import (
    make_agent,
    make_agent_version,
    make_artifact,
    make_binding,
    make_department,
    make_environment,
    make_file,
    make_organization,
    make_project,
    make_run,
    make_schedule,
    make_service_account,
    make_token,
    make_user,
    make_worker,
    unwatched,
)
from tests.support.stand_in import StandIn, publish

_COUNTED: Final = {"memory_mb": 512, "cpu": 1, "pids": 64, "workspace_mb": 256}
# What a file says, by its type; the payload stands where text of its kind stands.
CONTENTS: Final = {
    "text/markdown": "{0}\n\n# {0}\n\n- {0}\n1. {0}\n\n**{0}** `{0}` [{0}]({0}) ![{0}]({0})\n\n"
    "| {0} | b |\n|---|---|\n| {0} | 2 |\n\n```\n{0}\n```\n\n> {0}\n",
    "text/csv": "{0},b\n{0},2\n",
    "text/tab-separated-values": "{0}\tb\n{0}\t2\n",
    "application/json": '{{"{0}": "{0}"}}',
    "application/x-ndjson": '{{"a": "{0}"}}\n',
    "text/plain": "{0}\n",
    "text/html": "<!doctype html><p>{0}</p>",
    "image/svg+xml": '<svg xmlns="http://www.w3.org/2000/svg"><text>{0}</text></svg>',
    "application/octet-stream": "{0}",
}
# The baseline's Markdown: whatever our renderer makes of a document is no surprise.
RICH: Final = (
    "# Title\n\n## Heading\n\nWords, **strong**, *soft*, `code`, [a link](https://example.com/).\n\n"
    "- one\n- two\n\n1. first\n\n---\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\ncode\n```\n\n"
    "![chart](image.svg)\n"
)
_SPEC: Final = {
    "entry": "main.py",
    "files": {"main.py": "print('hello')\n"},
    "command": ["python3", "main.py"],
    "input_schema": {
        "type": "object",
        "description": "What to do",
        "required": ["file"],
        "properties": {
            "file": {"type": "string", "format": "aos-file", "title": "File", "description": "a"},
            "style": {"type": "string", "title": "Style", "enum": ["short", "long"]},
            "note": {"type": "string", "title": "Note", "default": "none", "examples": ["x"]},
            "wish": {"type": "array", "title": "Wishes", "items": {"type": "string"}},
        },
    },
}


@dataclass(kw_only=True)
class Stage:
    olivia: User
    project: Project
    runs: dict[str, Run]
    artifacts: list[Artifact]

    def write(self, volley: Volley, *, host: str) -> None:
        """The artifacts' contents; ``taint`` fills the tables."""
        for number, artifact in enumerate(self.artifacts, start=900):
            if volley is PLAIN and artifact.media_type == "text/markdown":
                text = RICH
            else:
                text = CONTENTS[artifact.media_type].format(volley.at(number, host=host))
            blob = blobs.put([text.encode()], limit=1_000_000)
            Artifact.objects.filter(pk=artifact.pk).update(sha256=blob.sha256, size=blob.size)


def make_stage(password: str) -> Stage:
    home = make_organization()
    hasher = Argon2PasswordHasher()
    olivia = make_user(
        role=Role.OWNER,
        organization=home,
        first_name="Olivia",
        last_name="Olsen",
        email="olivia@example.com",
        password=hasher.encode(password, hasher.salt()),
    )
    account = make_service_account(role=Role.OPERATOR, organization=home)
    crew = make_department(olivia, organization=home)
    make_binding(crew, Role.VIEWER)
    project = make_project(organization=home)
    agent = make_agent(organization=home, spec=_SPEC)
    make_agent_version(agent=agent, spec=_SPEC, released=False)
    make_file(project)
    kept = make_environment(
        project=project,
        egress={"mode": "allowlist", "allow": ["a.example"]},
        variables={"GREETING": "hello"},
    )
    with unwatched():
        Environment.objects.filter(pk=kept.pk).update(limits={"memory_mb": "a lot"})
    make_token(olivia, "run:read")
    make_token(account, "run:read")
    by = Actor(user=olivia)
    task = TaskSpec(input={"file": "data.csv"}, labels={"team": "a"})
    schedule = make_schedule(project=project, agent=agent, by=by, task=task)
    with unwatched():
        ScheduleFire.objects.create(
            schedule=schedule, fire_at=Now(), outcome="refused", detail={"why": "too late"}
        )
    # The longest-lived last: a stand-in claims whatever waits.
    runs = {name: _run(project, agent, by, name) for name in ("done", "failed", "running")}
    runs["waiting"] = make_run(
        project=project,
        agent=agent,
        by=by,
        labels={"team": "a"},
        requires={"gpu": "true"},
        input={"file": "data.csv"},
    )
    make_worker(labels={"zone": "eu"})
    runs["child"] = make_run(
        project=project, agent=agent, by=by, labels={"team": "a"}, input={"file": "data.csv"}
    )
    with unwatched():
        ChildRun.objects.create(
            run=runs["child"],
            parent=runs["waiting"],
            root=runs["waiting"],
            depth=1,
            key="first",
            on_parent_end="cancel",
        )
    artifacts = [
        make_artifact(runs["done"], name=f"file-{number}", content=b"x")
        for number in range(len(CONTENTS))
    ]
    for artifact, media_type in zip(artifacts, CONTENTS, strict=True):
        artifact.media_type = media_type
        artifact.save(update_fields=["media_type"])
    _records(home.pk, project, runs["running"], by)
    return Stage(olivia=olivia, project=project, runs=runs, artifacts=artifacts)


def _run(project: Project, agent: Any, by: Actor, end: str) -> Run:
    run = make_run(
        project=project, agent=agent, by=by, labels={"team": "a"}, input={"file": "data.csv"}
    )
    stand_in = StandIn(run)
    stand_in.plan(("First", "done"), ("Second", "active"))
    stand_in.milestone("Half way", 0.5, rows="12")
    stand_in.log("a line")
    if end == "done":
        stand_in.succeed("A summary", rows="12")
    elif end == "failed":
        stand_in.fail("command_failed", "It broke")
    return run


def _records(organization_id: Any, project: Project, run: Run, by: Actor) -> None:
    subject = Subject(
        organization_id=organization_id,
        project_id=project.pk,
        run_id=run.public_id,
        trace_id=run.trace_id,
    )
    told = {"title": "Words", "detail": "More words", "agent": "An agent", "facts": {"a": "b"}}
    with unwatched():
        SignIn.objects.create(
            user=by.user, session_key="s" * 32, address="127.0.0.1", agent="Opera"
        )
        ProviderAccount.objects.create(
            user=by.user, issuer="https://id.example.com", subject="olivia"
        )
        for kind in EventType:
            if kind not in {EventType.ACCEPTANCE, EventType.RECEIPT}:
                outbox.emit(kind, subject=subject, payload=told, severity=Severity.WARNING)
        for action in ("project.change", "access.denied", "made.up"):
            outbox.audit(
                by.ref,
                action,
                resource_type="project",
                resource_id=project.pk,
                detail={"name": "x", "reason": "y"},
                before={"name": "old", "nested": {"a": "b"}},
                after={"name": "new", "nested": {"a": "c"}},
            )
        Sandbox.objects.create(
            organization_id=organization_id,
            project_id=project.pk,
            run_id=run.public_id,
            attempt=1,
            driver="docker",
            isolation="docker",
            image="base",
            worker="w1",
            created_at=Now(),
        )
        Limit.objects.create(
            organization_id=organization_id,
            scope="key",
            key="invoices",
            gate=gates.of_key(organization_id, "invoices"),
            cap=3,
            paused_at=Now(),
            pause_reason="the bank is closed",
        )
        Proposal.objects.create(
            organization_id=organization_id,
            user=by.user,
            reason="takes over",
            requested_by=by.user,
            expires_at=Now(),
            state="declined",
            decided_by=by.user,
            decided_at=Now(),
            why="not yet",
        )
        BulkAct.objects.create(
            organization_id=organization_id,
            project=project,
            asked_by=by.user,
            verb="cancel",
            wanted={"agent": "hello", "labels": {"team": "a"}},
            state="stopped",
            matched=3,
            upto=1,
            refusals=[{"run": str(run.public_id), "name": "words", "reason": "more words"}],
            stop_reason="seen enough",
            finished_at=Now(),
        )
        HostProfile.objects.create(
            host="h1",
            name="base",
            image="base",
            runtime="runc",
            egress="none",
            # What is counted is compared, so it stays a number whoever writes it.
            gets=_COUNTED | {"note": "words"},
            most=_COUNTED | {"note": "words"},
        )
        HostImage.objects.create(host="h1", tag="base", source="base", digest="sha256:x", base="b")
    with transaction.atomic():
        publish()


# --- pages ----------------------------------------------------------------------------------------

# Pages that answer to GET with a file or with nothing to read, and so have no markup.
_NO_PAGES: Final = frozenset({"run_log", "audit_download"})


def hub_pages(stage: Stage, payload: str) -> Iterator[str]:
    """Every page and fragment of the Hub that takes no form, with the rows of the stage."""
    for pattern in _patterns(get_resolver("apps.hub.urls")):
        if pattern.name is None or pattern.name in _NO_PAGES:
            continue
        names = list(pattern.pattern.converters)
        for values in _rows(stage, names):
            yield reverse(pattern.name, kwargs=values)
    run = stage.runs["done"].public_id
    word = quote(payload, safe="")
    yield f"/?run={run}&panel={run}"
    for name in Artifact.objects.filter(run=stage.runs["done"]).values_list("name", flat=True):
        yield f"/?panel={run}&file={quote(name, safe='')}"
    for asked in (
        "/runs?state=",
        "/runs?agent=",
        "/palette?q=",
        "/?agent=",
        "/?project=",
        "/login?next=",
    ):
        yield asked + word
    yield f"/account/verify?next={word}"
    yield f"/audit?actor={word}&action={word}&resource_type={word}&resource_id={word}"
    yield f"/{word}"
    yield f"/runs/{word}"


def _patterns(resolver: URLResolver) -> Iterator[URLPattern]:
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            yield from _patterns(pattern)
        else:
            yield pattern


def _rows(stage: Stage, names: list[str]) -> Iterator[dict[str, Any]]:
    """What to put into an address, by the names of its parts."""
    if not names:
        yield {}
    elif names == ["public_id"]:
        yield from ({"public_id": run.public_id} for run in stage.runs.values())
    elif names == ["public_id", "name"]:
        run = stage.runs["done"]
        for name in Artifact.objects.filter(run=run).values_list("name", flat=True):
            yield {"public_id": run.public_id, "name": name}
    elif names == ["project_id"]:
        yield {"project_id": stage.project.pk}
    elif names == ["environment_id"]:
        yield {"environment_id": Environment.objects.get(project=stage.project).pk}
    elif names == ["entry_id"]:
        for pk in AuditEntry.objects.order_by("-pk").values_list("pk", flat=True)[:4]:
            yield {"entry_id": pk}
    else:
        yield from _by_model(names)


def _by_model(names: list[str]) -> Iterator[dict[str, Any]]:
    """``binding_id`` is a row of the model Binding, and so on."""
    found: dict[str, Any] = {}
    for name in names:
        if name == "act_id":
            found[name] = BulkAct.objects.get().pk
            continue
        wanted = name.removesuffix("_id").removesuffix("_pk").replace("_", "")
        model = next(
            (item for item in apps.get_models() if str(item._meta.model_name).endswith(wanted)),
            None,
        )
        row = None if model is None else model._base_manager.first()
        assert row is not None, f"tests/browser/xss/stage.py must learn what <{name}> stands for"
        found[name] = row.pk
    yield found


def admin_pages(payload: str) -> Iterator[str]:
    """Every window of the admin: its list, a search in it, and each row's page with its history."""
    yield reverse("admin:index")
    word = quote(payload, safe="")
    for model in site._registry:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        listed = reverse(f"{name}_changelist")
        yield listed
        yield f"{listed}?q={word}"
        yield reverse(f"{name}_add")
        pk = None
        for pk in model._base_manager.order_by("pk").values_list("pk", flat=True)[:2]:
            yield reverse(f"{name}_change", args=[pk])
        for page in ("history", "delete") if pk else ():
            yield reverse(f"{name}_{page}", args=[pk])


def forms(stage: Stage, payload: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Forms that are refused and come back with what was typed."""
    agent = Run.objects.get(pk=stage.runs["done"].pk).agent_version.agent.slug
    filled = {f"input.{name}": payload for name in ("file", "style", "note", "wish", payload)}
    yield f"/projects/{stage.project.pk}/submit", {"agent": agent, **filled}
    yield f"/projects/{stage.project.pk}/submit", {"agent": payload}
    yield "/account/tokens", {"name": payload, "days": payload}
    yield "/account/password", {"old": payload, "new": payload}
    yield "/account/second-factor", {"code": payload}
    yield "/login/code", {"code": payload, "next": payload}
    yield "/login/factor", {"code": payload, "next": payload}
    yield "/login/password", {"new": payload, "next": payload}
    yield "/login", {"username": payload, "password": payload, "next": payload}
    yield reverse("admin:projects_project_add"), {"name": payload, "slug": payload}
    yield reverse("admin:identity_apitoken_add"), {"name": payload, "scopes": payload}
