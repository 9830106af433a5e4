"""The two kinds of stores: a folder, and an S3 store over real HTTP."""

from __future__ import annotations

import errno
import io
import os
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import boto3
import pytest
from django.core.exceptions import ImproperlyConfigured

from apps.core import blobs, clock
from apps.core.blobs.base import ContentStore
from apps.core.blobs.bucket import BucketStore
from apps.core.blobs.folder import FolderStore
from apps.core.checks import check_store
from apps.core.errors import StoreUnavailable
from tests.contracts.content_store import SECRET, ContentStoreContract, read, save
from tests.support import s3

KEYS = {"aws_access_key_id": "operator", "aws_secret_access_key": SECRET}


# --- a folder -----------------------------------------------------------------------------------


@dataclass
class FolderPlace:
    store: FolderStore

    def go_away(self):
        self.store.folder.rename(self.store.folder.with_name("elsewhere"))
        self.store.folder.symlink_to(self.store.folder)  # leads nowhere, also for root

    def come_back(self):
        self.store.folder.unlink()
        self.store.folder.with_name("elsewhere").rename(self.store.folder)

    def age(self, sha256, by):
        then = (clock.now() - by).timestamp()
        os.utime(self.store._path(sha256), (then, then))


class TestFolder(ContentStoreContract):
    @pytest.fixture
    def place(self, tmp_path):
        return FolderPlace(FolderStore(tmp_path / "artifacts"))

    def test_nobody_else_may_read_it(self, place):
        sha256 = save(place.store, b"secret")

        assert place.store.folder.stat().st_mode & 0o077 == 0
        assert place.store._path(sha256).stat().st_mode & 0o077 == 0

    def test_what_a_crash_left_half_received_is_removed_when_it_is_old(self, place):
        torn = place.store.receive()
        torn.write(b"half")
        torn.close()

        assert place.store.tidy(clock.now() - timedelta(days=1)) == 0
        assert place.store.tidy(clock.now() + timedelta(seconds=5)) == 1
        assert list(place.store.folder.iterdir()) == []

    def test_files_of_others_are_not_its_contents(self, place):
        sha256 = save(place.store, b"ours")
        (place.store.folder / "ab" / "cd").mkdir(parents=True)
        (place.store.folder / "ab" / "cd" / "README").write_text("not ours")

        assert [each.sha256 for each in place.store.contents()] == [sha256]

    def test_a_full_disk_is_said_plainly(self, settings, monkeypatch, tmp_path):
        settings.AOS_ARTIFACT_STORE = f"file://{tmp_path}/full"
        monkeypatch.setattr(FolderStore, "receive", lambda _: Full(tmp_path / "incoming"))

        with pytest.raises(StoreUnavailable, match="No space left on device"):
            blobs.put([b"x" * 100], limit=1000)


class Full(io.RawIOBase):
    """A file on a disk without room."""

    def __init__(self, path):
        self.name = str(path)

    def writable(self):
        return True

    def write(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# --- an S3 store --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server():
    with s3.running() as address:
        yield address


@pytest.fixture
def keys(settings):
    settings.AOS_ARTIFACT_S3_ACCESS_KEY = KEYS["aws_access_key_id"]
    settings.AOS_ARTIFACT_S3_SECRET_KEY = KEYS["aws_secret_access_key"]


@dataclass
class BucketPlace:
    store: ContentStore
    away: ContentStore

    def __post_init__(self):
        self.there = self.store

    def go_away(self):
        self.store = self.away

    def come_back(self):
        self.store = self.there

    def age(self, sha256, by):
        """A store dates its objects itself: they cannot be made older than they are."""


@pytest.fixture
def client(server):
    return boto3.client("s3", endpoint_url=server, region_name="us-east-1", **KEYS)


@pytest.fixture
def url(server, client):
    bucket = f"files-{uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)
    return f"s3://{bucket}/aos/artifacts?endpoint={server}"


class TestBucket(ContentStoreContract):
    @pytest.fixture
    def place(self, url, keys):
        away = url.partition("?")[0] + "?endpoint=http://127.0.0.1:9"
        return BucketPlace(store=BucketStore.at(url), away=BucketStore.at(away))

    def test_objects_lie_below_the_prefix_and_others_are_left_alone(self, place, client):
        bucket = place.store.bucket
        client.put_object(Bucket=bucket, Key=f"aos/other/{'a' * 64}", Body=b"not ours")
        client.put_object(Bucket=bucket, Key="aos/artifacts/readme", Body=b"not ours")

        sha256 = save(place.store, b"ours")

        (key,) = (
            item["Key"]
            for item in client.list_objects_v2(Bucket=bucket, Prefix="aos/artifacts/")["Contents"]
            if not item["Key"].endswith("readme")
        )
        assert key == f"aos/artifacts/{sha256[:2]}/{sha256[2:4]}/{sha256}"
        assert [each.sha256 for each in place.store.contents()] == [sha256]

    def test_a_bucket_that_is_not_there_is_no_missing_content(self, place, server, keys):
        store = BucketStore.at(f"s3://no-such-bucket?endpoint={server}")

        with pytest.raises(StoreUnavailable, match=r"NoSuchBucket|404"):
            store.open("0" * 64)
        with pytest.raises(StoreUnavailable):
            save(store, b"x")

    def test_without_a_prefix_it_has_the_bucket_for_itself(self, server, client, keys):
        client.create_bucket(Bucket="alone")
        store = BucketStore.at(f"s3://alone?endpoint={server}")

        sha256 = save(store, b"content")

        assert read(store, sha256) == b"content"
        assert [each.sha256 for each in store.contents()] == [sha256]


# --- which one ----------------------------------------------------------------------------------


def test_the_platform_uses_the_store_it_is_told_to(settings, url, keys, db):
    settings.AOS_ARTIFACT_STORE = url

    blob = blobs.put([b"to the ", b"bucket"], limit=100)

    assert read(BucketStore.at(url), blob.sha256) == b"to the bucket"
    assert blobs.read(blob.sha256) == b"to the bucket"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/folder", "ftp is unknown"),
        ("/var/artifacts", "without a scheme"),
        ("file://host/folder", "absolute/folder"),
        ("file:relative", "absolute/folder"),
        ("s3://", "s3://bucket/prefix"),
        (f"s3://key:{SECRET}@bucket/prefix", "s3://bucket/prefix"),
        ("s3://bucket?acl=public-read", "no more than"),
    ],
)
def test_an_address_that_makes_no_sense_stops_the_start(settings, url, words):
    settings.AOS_ARTIFACT_STORE = url

    with pytest.raises(ImproperlyConfigured, match=words) as caught:
        blobs.configured()

    assert SECRET not in str(caught.value)
    assert [error.id for error in check_store()] == ["core.E001"]
