"""Environments: what people may make of a sandbox, and what a run is given of it."""

from __future__ import annotations

import pytest
from django.urls import reverse

from apps.agents.services import registry
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.events.models import AuditEntry
from apps.identity.types import Role
from apps.runs.models import Run
from apps.runs.services import control, dispatch, leadership, leases, schedules
from apps.runs.types import TaskSpec, Timing
from apps.sandboxes.errors import EnvironmentUnknown
from apps.sandboxes.models import Environment
from apps.sandboxes.services import environments, offers
from apps.sandboxes.types import ImageReport, ProfileReport, Recipe
from tests.faces import session
from tests.factories import (
    HELLO,
    make_actor,
    make_agent,
    make_agent_version,
    make_binding,
    make_environment,
    make_organization,
    make_project,
    make_run,
    make_user,
    make_worker,
)
from workers import workspace

pytestmark = pytest.mark.django_db

GETS = {"memory_mb": 1024, "cpu": 1.0, "pids": 256, "workspace_mb": 512}
MOST = {"memory_mb": 2048, "cpu": 2, "pids": 512, "workspace_mb": 1024}


def offer(name="base", *, host="one", egress="open", most=None):
    return ProfileReport(
        name=name,
        image=f"aos/sandbox-{name}:latest",
        runtime="runc",
        egress=egress,
        gets=GETS,
        most=MOST | (most or {}),
    )


def tell(*profiles, host="one", images=()):
    offers.report(host=host, profiles=profiles, images=images)


def naming(name):
    return HELLO | {"sandbox": {"environment": name}}


@pytest.fixture
def by():
    return make_actor(Role.ADMIN)


@pytest.fixture
def project(by):
    return make_project(organization=by.user.organization, name="Playground")


@pytest.fixture
def started():
    """Brings a queued run to its first attempt, as a worker gets it."""
    seat = leadership.take("test")

    def start(run):
        (claimed,) = [d for d in dispatch.claim(seat, slots=50) if d.run_id == run.pk]
        return leases.start(run_id=run.pk, token=claimed.token, worker=make_worker())

    return start


# --- what every organization begins with ------------------------------------------------------------


def test_an_organization_begins_with_a_blank_default_environment():
    home = make_organization()

    blank = Environment.objects.get(organization=home)

    assert (blank.name, blank.is_default, blank.project) == ("blank", True, None)
    assert blank.recipe == Recipe()


def test_a_project_starts_with_its_own_default_before_the_organizations(by, project):
    assert environments.default(project).name == "blank"

    mine = make_environment(project=project, by=by)
    environments.make_default(by=by, environment=mine)

    assert environments.default(project) == mine
    assert environments.default(make_project(organization=project.organization)).name == "blank"


def test_there_is_one_default_in_each_place(by):
    first = make_environment(organization=by.user.organization, by=by)
    environments.make_default(by=by, environment=first)

    found = Environment.objects.filter(organization=by.user.organization, is_default=True)
    assert list(found) == [first]
    with pytest.raises(Conflict, match="Make another one the default first"):
        environments.remove(by=by, environment=first)


# --- making, cloning, changing, removing -------------------------------------------------------------


def test_one_is_made_changed_cloned_and_removed_on_record(by, project):
    made = make_environment(
        project=project, by=by, name="weather", variables={"UNITS": "metric", "LANG": "en"}
    )
    recipe = Recipe(variables={"UNITS": "imperial"}, egress={"mode": "open"})
    environments.change(by=by, environment=made, recipe=recipe, description="For reports")
    made.refresh_from_db()
    twin = environments.clone(by=by, source=made, name="twin", project=None)
    environments.remove(by=by, environment=made)

    assert Environment.objects.get(pk=twin.pk).recipe == recipe
    assert not Environment.objects.filter(name="weather").exists()
    entries = AuditEntry.objects.filter(resource_type="environment").order_by("pk")
    assert [entry.action.partition(".")[2] for entry in entries] == [
        "create",
        "change",
        "clone",
        "remove",
    ]
    changed = entries[1].detail
    assert changed["changes"]["variables"] == [["LANG", "UNITS"], ["UNITS"]]
    assert changed["changes"]["egress"] == [{"mode": "none"}, {"mode": "open"}]
    assert changed["new_values"] == ["UNITS"]
    assert "metric" not in str([entry.detail for entry in entries])


def test_a_name_is_taken_once_in_each_place(by, project):
    make_environment(project=project, by=by, name="same")
    make_environment(organization=by.user.organization, by=by, name="same")

    for place in (project, None):
        with pytest.raises(Conflict, match="has an environment 'same' already"):
            environments.create(by=by, name="same", project=place, recipe=Recipe())


BAD = {
    "a name with a space": ({"name": "my env"}, "name"),
    "a name with a line break": ({"name": "env\n"}, "name"),
    "no name": ({"name": ""}, "name"),
    "a NUL in the description": ({"description": "x\0"}, "description"),
    "a profile with a space": ({"profile": "my profile"}, "profile"),
    "too little memory": ({"limits": {"memory_mb": 1}}, "limits.memory_mb"),
    "an unknown limit": ({"limits": {"privileged": 1}}, "limits"),
    "an address as host": (
        {"egress": {"mode": "allowlist", "allow": ["10.0.0.1"]}},
        "egress.allow.0",
    ),
    "a list without its mode": (
        {"egress": {"mode": "open", "allow": ["a.example"]}},
        "egress.allow",
    ),
    "a mode nobody knows": ({"egress": {"mode": "all"}}, "egress.mode"),
    "a variable of ours": ({"variables": {"AOS_RUN_ID": "x"}}, "variables.AOS_RUN_ID"),
    "the proxy": ({"variables": {"https_proxy": "x"}}, "variables.https_proxy"),
    "a variable with a dash": ({"variables": {"A-B": "x"}}, "variables.A-B"),
    "a number as value": ({"variables": {"A": 1}}, "variables.A"),
    "a NUL": ({"variables": {"A": "x\0"}}, "variables.A"),
    "a huge value": ({"variables": {"A": "x" * 8193}}, "variables.A"),
    "too much together": ({"variables": {f"A{n}": "x" * 8000 for n in range(9)}}, "variables"),
}


@pytest.mark.parametrize(("given", "field"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_named_and_nothing_is_made(by, given, field):
    said = {"name": "fine"} | {
        name: value for name, value in given.items() if name in {"name", "description"}
    }
    recipe = {name: value for name, value in given.items() if name not in said}

    with pytest.raises(Invalid) as caught:
        environments.create(by=by, project=None, recipe=Recipe(**recipe), **said)

    assert field in {error["field"] for error in caught.value.errors}
    assert Environment.objects.filter(organization=by.user.organization).count() == 1


# --- within what hosts offer --------------------------------------------------------------------------


def test_the_least_of_what_hosts_allow_is_the_most_one_may_ask_for(by):
    tell(offer(), offer("data"))
    tell(offer(most={"memory_mb": 1536}, egress="allowlist"), host="two")

    assert offers.profiles()["base"].hosts == ("one", "two")
    with pytest.raises(Invalid, match="must be at most 1536: the profile base allows no more"):
        make_environment(organization=by.user.organization, by=by, limits={"memory_mb": 2000})
    with pytest.raises(Invalid, match="must be at most allowlist: the profile base"):
        make_environment(organization=by.user.organization, by=by, egress={"mode": "open"})
    with pytest.raises(Invalid, match="the workspace is a part of the memory"):
        make_environment(
            organization=by.user.organization,
            by=by,
            limits={"memory_mb": 512, "workspace_mb": 1000},
        )
    made = make_environment(
        organization=by.user.organization, by=by, profile="data", limits={"memory_mb": 2048}
    )
    assert made.limits == {"memory_mb": 2048}


def test_a_profile_that_no_host_offers_is_refused_once_hosts_have_told(by):
    unheard = make_environment(organization=by.user.organization, by=by, profile="gpu")
    tell(offer())

    assert unheard.profile == "gpu"
    with pytest.raises(Invalid, match="must be a profile that a host offers: base"):
        make_environment(organization=by.user.organization, by=by, profile="gpu")


def test_a_host_takes_back_what_it_does_not_offer_any_more():
    image = ImageReport(tag="aos/sandbox-base:latest", source="base", digest="sha256:1", size=9)
    tell(offer(), offer("data"), images=[image])
    tell(offer(egress="none"), host="one", images=[])

    assert set(offers.profiles()) == {"base"}
    assert offers.profiles()["base"].egress == "none"
    assert offers.images() == []


# --- who may -------------------------------------------------------------------------------------------


def test_a_projects_admin_makes_environments_there_and_not_for_all(project):
    by = make_actor(Role.ADMIN, project=project)

    made = make_environment(project=project, by=by)

    with pytest.raises(NotAllowed):
        environments.create(by=by, name="for-all", project=None, recipe=Recipe())
    with pytest.raises(NotAllowed):
        environments.clone(by=by, source=made, name="for-all", project=None)
    shared = make_environment(organization=project.organization)
    with pytest.raises(NotAllowed):
        environments.change(by=by, environment=shared, description="mine")


def test_people_see_those_of_their_projects_and_the_shared_ones(project):
    mine = make_environment(project=project)
    other = make_environment(project=make_project(organization=project.organization))
    shared = make_environment(organization=project.organization)
    user = make_user(organization=project.organization)
    make_binding(user, Role.VIEWER, project)

    seen = set(Environment.objects.visible_to(user))

    assert {mine, shared} < seen
    assert other not in seen
    assert not Environment.objects.visible_to(make_user()).filter(pk__in=[mine.pk, shared.pk])
    assert not Environment.objects.visible_to(make_user(organization=project.organization))


# --- what runs are given -------------------------------------------------------------------------------


def test_a_version_names_an_environment_and_says_nothing_beside_it(by):
    agent = make_agent(organization=by.user.organization)
    with pytest.raises(Invalid, match="which is no environment of the organization"):
        registry.draft(by=by, agent=agent, spec=naming("weather"))
    make_environment(organization=by.user.organization, by=by, name="weather")

    registry.draft(by=by, agent=agent, spec=naming("weather"))

    spec = naming("weather")
    spec["sandbox"]["egress"] = {"mode": "open"}
    with pytest.raises(Invalid, match="must stand alone"):
        registry.draft(by=by, agent=agent, spec=spec)


def test_a_run_keeps_the_environment_it_was_accepted_with(by, project):
    made = make_environment(
        project=project, by=by, name="weather", profile="data", variables={"UNITS": "metric"}
    )
    agent = make_agent(organization=project.organization, spec=naming("weather"))
    first = make_run(project=project, agent=agent, by=by)

    environments.change(
        by=by,
        environment=made,
        recipe=Recipe(limits={"cpu": 2}, egress={"mode": "allowlist", "allow": ["a.example"]}),
    )
    second = control.rerun(by=by, run=first).run

    given = Run.objects.get(pk=first.pk).spec["environment"]
    assert given == {
        "id": str(made.pk),
        "name": "weather",
        "sandbox": {"profile": "data", "egress": {"mode": "none"}},
        "variables": {"UNITS": "metric"},
    }
    assert Run.objects.get(pk=second.pk).spec["environment"]["sandbox"] == {
        "profile": "base",
        "cpu": 2,
        "egress": {"mode": "allowlist", "allow": ["a.example"]},
    }


def test_a_projects_environment_goes_before_the_organizations(by, project):
    make_environment(organization=project.organization, by=by, name="same", limits={"cpu": 1})
    make_environment(project=project, by=by, name="same", limits={"cpu": 2})
    agent = make_agent(organization=project.organization, spec=naming("same"))

    here = make_run(project=project, agent=agent, by=by)
    there = make_run(project=make_project(organization=project.organization), agent=agent, by=by)

    assert here.spec["environment"]["sandbox"]["cpu"] == 2
    assert there.spec["environment"]["sandbox"]["cpu"] == 1


def test_a_run_whose_environment_is_gone_is_refused_with_what_to_do(by, project):
    made = make_environment(project=project, by=by, name="gone")
    agent = make_agent(organization=project.organization, spec=naming("gone"))
    environments.remove(by=by, environment=made)

    with pytest.raises(EnvironmentUnknown, match="'gone', which Playground does not have"):
        make_run(project=project, agent=agent, by=by)
    with pytest.raises(EnvironmentUnknown):
        schedules.create(
            by=by,
            project=project,
            agent=agent,
            name="Mornings",
            timing=Timing(cron="0 7 * * *"),
            task=TaskSpec(input={}),
        )
    assert not Run.objects.filter(project=project).exists()


def test_the_worker_makes_the_sandbox_of_what_the_run_was_given(by, project, started):
    make_environment(
        project=project,
        by=by,
        name="weather",
        profile="data",
        limits={"memory_mb": 512, "pids": 64},
        variables={"UNITS": "metric", "PATH": "/opt/bin"},
    )
    agent = make_agent(organization=project.organization, spec=naming("weather"))

    began = started(make_run(project=project, agent=agent, by=by))

    spec = workspace.sandbox_spec(began)
    assert (spec.profile, spec.image) == ("data", "aos/sandbox-data:latest")
    assert (spec.memory_mb, spec.pids, spec.workspace_mb) == (512, 64, 256)
    env = workspace.command_for(began, workspace="/w").env
    assert env["UNITS"] == "metric"
    assert env["AOS_RUN_ID"] == str(began.public_id)


def test_a_version_without_an_environment_runs_as_before(project, started):
    agent = make_agent(
        organization=project.organization, spec=HELLO | {"sandbox": {"memory_mb": 128}}
    )
    make_agent_version(agent=agent)

    began = started(make_run(project=project, agent=agent))

    assert "environment" not in began.spec
    assert workspace.sandbox_spec(began).memory_mb == 128


# --- the admin -----------------------------------------------------------------------------------------


def sent(**fields):
    given = {
        "name": "weather",
        "profile": "base",
        "description": "",
        "limits": "{}",
        "egress": '{"mode": "none"}',
        "variables": '{"A": "b"}',
    }
    return given | fields


def test_the_admin_makes_and_changes_them_through_the_service(by):
    client = session(by.user)
    added = client.post(reverse("admin:sandboxes_environment_add"), sent())
    made = Environment.objects.get(organization=by.user.organization, name="weather")
    page = reverse("admin:sandboxes_environment_change", args=[made.pk])
    changed = client.post(page, sent(name="renamed", limits='{"cpu": 2}'))
    refused = client.post(page, sent(limits='{"cpu": 200}'))

    assert (added.status_code, changed.status_code, refused.status_code) == (302, 302, 200)
    assert "200 is greater than the maximum of 4" in refused.content.decode()
    made.refresh_from_db()
    assert (made.name, made.limits, made.variables) == ("weather", {"cpu": 2}, {"A": "b"})
    client.post(reverse("admin:sandboxes_environment_delete", args=[made.pk]), {"post": "yes"})
    assert [entry.action for entry in AuditEntry.objects.filter(resource_id=made.pk)] == [
        "environment.remove",
        "environment.change",
        "environment.create",
    ]
