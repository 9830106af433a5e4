"""Contents are stored once, kept while anything refers to them, and removed after that."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection, transaction

from apps.core import blobs, clock
from apps.core.blobs.folder import FolderStore
from apps.core.errors import ContentGone
from apps.runs.models import Artifact
from apps.runs.services import contents
from tests.faces import api
from tests.factories import (
    make_artifact,
    make_file,
    make_project,
    make_run,
    make_user,
    unwatched,
)
from tests.support.platform import wait_for
from tests.support.threads import apart
from workers.engine.janitor import Janitor

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)


def store(content):
    return blobs.put([content], limit=1_000_000).sha256


def age(sha256, by=2 * DAY):
    then = (clock.now() - by).timestamp()
    os.utime(blobs.configured()._path(sha256), (then, then))
    return sha256


def is_kept(sha256):
    return blobs.configured().find(sha256) is not None


def forget(*rows):
    with unwatched():
        for row in rows:
            row.delete()


def test_what_nothing_refers_to_is_removed_once_it_is_old():
    old, young = age(store(b"old")), store(b"young")

    removed = contents.remove_unreferred()

    assert (removed.count, removed.size) == (1, 3)
    assert not is_kept(old)
    assert is_kept(young)


def test_what_an_artifact_a_file_or_a_run_refers_to_is_kept():
    run = make_run(project=make_project())
    artifact = make_artifact(run, content=b"artifact")
    file = make_file(run.project, content=b"file")
    given = store(b"given")
    with unwatched():
        spec = {**run.spec, "files": [{"name": "a", "sha256": given, "size": 5}]}
        type(run).objects.filter(pk=run.pk).update(spec=spec)
    sums = [age(each) for each in (artifact.sha256, file.sha256, given)]

    assert contents.remove_unreferred().count == 0
    assert all(map(is_kept, sums))


def test_shared_content_goes_with_the_last_that_refers_to_it():
    run = make_run(project=make_project())
    first, second = (make_artifact(run, name=name, content=b"same") for name in ("a", "b"))
    sha256 = age(first.sha256)

    forget(first)
    assert contents.remove_unreferred().count == 0
    forget(second)
    assert contents.remove_unreferred().count == 1

    assert first.sha256 == second.sha256
    assert not is_kept(sha256)


def test_artifacts_let_go_of_their_content_after_the_days_they_are_kept(settings):
    run = make_run(project=make_project())
    late, early = (make_artifact(run, name=word, content=word.encode()) for word in ("x", "y"))
    with unwatched():
        Artifact.objects.filter(pk=late.pk).update(created_at=clock.now() - 8 * DAY)
        Artifact.objects.filter(pk=early.pk).update(created_at=clock.now() - 6 * DAY)
    settings.AOS_ARTIFACT_DAYS = 7
    for each in (late, early):
        age(each.sha256)

    assert contents.remove_unreferred().count == 1

    assert Artifact.objects.filter(pk=late.pk).exists()
    with pytest.raises(ContentGone):
        blobs.open_blob(late.sha256)
    assert blobs.read(early.sha256) == b"y"


def test_storing_it_again_makes_old_content_young():
    sha256 = age(store(b"again"))

    store(b"again")

    assert contents.remove_unreferred().count == 0
    assert is_kept(sha256)


def test_without_the_refreshing_what_was_just_stored_again_is_lost(monkeypatch):
    sha256 = age(store(b"again"))
    monkeypatch.setattr(FolderStore, "refresh", lambda *_: True)

    store(b"again")

    assert contents.remove_unreferred().count == 1
    assert not is_kept(sha256)


def test_content_of_another_length_under_its_sum_is_healed():
    sha256 = store(b"whole")
    blobs.configured()._path(sha256).write_bytes(b"wh")

    store(b"whole")

    assert blobs.read(sha256) == b"whole"


@pytest.mark.django_db(transaction=True)
def test_storing_and_removing_at_once_never_loses_what_was_stored():
    lost = []
    for number in range(25):
        content = f"content {number}".encode()
        sha256 = age(store(content))
        start = threading.Barrier(2)

        def again(content=content, sha256=sha256, start=start):
            start.wait()
            store(content)
            if not is_kept(sha256):
                lost.append(sha256)
            connection.close()

        thread = threading.Thread(target=again)
        thread.start()
        start.wait()
        blobs.remove(sha256, referred=contents.referred)
        thread.join()
        if not is_kept(sha256):
            lost.append(sha256)

    assert lost == []


@pytest.mark.django_db(transaction=True)
def test_nothing_is_removed_while_a_transaction_of_that_moment_is_under_way():
    sha256 = age(store(b"about to be referred to"))
    begun, go_on = threading.Event(), threading.Event()

    def other():
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            begun.set()
            go_on.wait(30)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(apart, other)
        begun.wait(30)
        try:
            assert contents.remove_unreferred(patience_s=0.5).count == 0
            assert is_kept(sha256)
        finally:
            go_on.set()

    assert contents.remove_unreferred(patience_s=30).count == 1


@pytest.mark.django_db(transaction=True)
def test_the_janitor_works_only_while_its_engine_leads(seat, monkeypatch):
    sha256 = age(store(b"old"))
    janitor, halted = Janitor(first_after_s=0.01), threading.Event()
    wait = janitor._leading.wait

    def lose_the_lead_first():
        if not halted.is_set():
            janitor.work(None)
            halted.set()
        return wait()

    monkeypatch.setattr(janitor._leading, "wait", lose_the_lead_first)
    janitor.work(seat)
    assert halted.wait(30)
    assert is_kept(sha256)

    janitor.work(seat)
    wait_for("the janitor", lambda: not is_kept(sha256))
    janitor.stop()


def test_the_command_counts_and_removes():
    run = make_run(project=make_project())
    make_artifact(run, content=b"kept")
    age(store(b"free to go"))
    shown, pruned = StringIO(), StringIO()

    call_command("contents", "show", stdout=shown)
    call_command("contents", "prune", stdout=pruned)

    assert "2 contents, 14 bytes" in shown.getvalue()
    assert "1 of them, 10 bytes" in shown.getvalue()
    assert pruned.getvalue() == "1 contents removed, 10 bytes\n"


def test_content_that_is_gone_is_answered_410_and_its_row_stays():
    run = make_run(project=make_project())
    artifact = make_artifact(run)
    blobs.configured().remove(artifact.sha256)
    client = api(make_user(organization=run.project.organization, role="owner"))

    answer = client.get(f"/api/runs/{run.public_id}/artifacts/report.md")

    assert (answer.status_code, answer.json()["code"]) == (410, "content_gone")
    assert client.get(f"/api/runs/{run.public_id}/artifacts").json()["results"]


def test_a_store_that_does_not_answer_is_a_503(settings):
    run = make_run(project=make_project())
    make_artifact(run)
    settings.AOS_ARTIFACT_STORE = "s3://bucket?endpoint=http://127.0.0.1:9"
    settings.AOS_ARTIFACT_S3_ACCESS_KEY = settings.AOS_ARTIFACT_S3_SECRET_KEY = "key"  # noqa: S105
    client = api(make_user(organization=run.project.organization, role="owner"))

    answer = client.get(f"/api/runs/{run.public_id}/artifacts/report.md")

    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")


def test_every_table_that_names_a_content_counts_as_referring_to_it():
    found = {
        model._meta.label
        for model in apps.get_models()
        if any(field.name == "sha256" for field in model._meta.get_fields())
    }

    assert found == contents.REFERRERS
