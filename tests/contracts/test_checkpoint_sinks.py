"""The three kinds of sinks: a folder, a webhook over real HTTP, an S3 store over real HTTP."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from django.core.exceptions import ImproperlyConfigured

from apps.core import clock
from apps.events import sinks
from apps.events.errors import SinkAway, SinkConflict
from apps.events.sinks import webhook
from apps.events.sinks.base import CheckpointSink
from apps.events.sinks.file import FileSink
from apps.events.sinks.s3 import S3Sink
from apps.events.sinks.webhook import WebhookSink
from tests.contracts.checkpoint_sink import SECRET, CheckpointSinkContract, checkpoint
from tests.support import s3
from tests.support.receiver import Receiver

KEYS = {"aws_access_key_id": "operator", "aws_secret_access_key": SECRET}


# --- a folder -----------------------------------------------------------------------------------


@dataclass
class FolderPlace:
    sink: FileSink

    def kept(self):
        return self.sink.path.read_text("utf-8").splitlines()

    def go_away(self):
        self.sink.folder.rename(self.sink.folder.with_name("elsewhere"))
        self.sink.folder.touch()

    def come_back(self):
        self.sink.folder.unlink()
        self.sink.folder.with_name("elsewhere").rename(self.sink.folder)


class TestFile(CheckpointSinkContract):
    @pytest.fixture
    def place(self, tmp_path):
        return FolderPlace(FileSink(tmp_path / "audit"))

    @pytest.mark.parametrize("cut", [1, 10, -1])
    def test_a_line_that_a_crash_left_half_written_is_written_again(self, place, cut):
        place.sink.put(checkpoint(1))
        place.sink.put(checkpoint(2))
        torn = f"{checkpoint(3).line}\n".encode()[:cut]
        with place.sink.path.open("ab") as file:
            file.write(torn)

        place.sink.put(checkpoint(3))

        assert place.kept() == [checkpoint(number).line for number in (1, 2, 3)]

    def test_garbage_at_the_end_stays_as_evidence_and_keeps_nothing_out(self, place):
        place.sink.put(checkpoint(1))
        with place.sink.path.open("ab") as file:
            file.write(b"\xff not ours")

        place.sink.put(checkpoint(2))

        kept = place.sink.path.read_bytes().splitlines()
        assert kept[1] == b"\xff not ours"
        assert kept[2].decode() == checkpoint(2).line

    def test_nobody_else_may_read_the_folder(self, place):
        place.sink.put(checkpoint(1))

        assert place.sink.folder.stat().st_mode & 0o077 == 0


# --- a webhook ----------------------------------------------------------------------------------


@dataclass
class WebhookPlace:
    sink: WebhookSink
    receiver: Receiver

    def kept(self):
        return [self.receiver.kept[number].decode() for number in sorted(self.receiver.kept)]

    def go_away(self):
        self.receiver.stop()

    def come_back(self):
        self.receiver.start()


@pytest.fixture
def receiver():
    receiver = Receiver()
    receiver.start()
    yield receiver
    receiver.stop()


class TestWebhook(CheckpointSinkContract):
    @pytest.fixture
    def place(self, receiver):
        sink = WebhookSink(f"{receiver.url}/audit?key={SECRET}", SECRET)
        return WebhookPlace(sink, receiver)

    def test_a_receiver_can_check_who_sent_it_and_when(self, place, receiver):
        place.sink.put(checkpoint(7))

        (request,) = receiver.requests
        words = dict(part.split("=") for part in request.headers["x-aos-signature"].split(","))
        told = hmac.new(SECRET.encode(), f"{words['t']}.".encode() + request.body, hashlib.sha256)
        assert words["v1"] == told.hexdigest()
        assert abs(time.time() - int(words["t"])) < 60
        assert request.headers["x-aos-checkpoint"] == "7"
        assert request.headers["content-type"] == "application/json"

    def test_without_a_secret_nothing_is_signed(self, receiver):
        WebhookSink(receiver.url).put(checkpoint(1))

        assert "x-aos-signature" not in receiver.requests[0].headers

    def test_a_redirect_is_not_followed(self, place, receiver):
        inner = Receiver()
        inner.start()
        receiver.answer = lambda _: (307, {"Location": f"{inner.url}/metadata"})
        try:
            with pytest.raises(SinkAway, match="redirects are not followed"):
                place.sink.put(checkpoint(1))

            assert inner.requests == []
        finally:
            inner.stop()

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 429, 500, 503])
    def test_any_refusal_is_tried_again_later(self, place, receiver, status):
        receiver.answer = lambda _: (status, {})

        with pytest.raises(SinkAway, match=f"answers {status}"):
            place.sink.put(checkpoint(1))

    def test_one_that_does_not_answer_is_not_waited_for(self, monkeypatch):
        monkeypatch.setattr(webhook, "_PATIENCE_S", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            sink = WebhookSink(f"http://127.0.0.1:{silent.getsockname()[1]}")
            began = time.monotonic()

            with pytest.raises(SinkAway, match="does not answer"):
                sink.put(checkpoint(1))

            assert time.monotonic() - began < 5

    def test_the_environment_sends_it_no_other_way(self, place, receiver, monkeypatch):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")

        place.sink.put(checkpoint(1))

        assert len(receiver.requests) == 1

    def test_a_certificate_that_nobody_vouches_for_is_refused(self, tmp_path, receiver):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self_signed(tmp_path / "self.pem"))
        receiver.server.socket = context.wrap_socket(receiver.server.socket, server_side=True)
        sink = WebhookSink(receiver.url.replace("http:", "https:"))

        with pytest.raises(SinkAway, match="does not answer"):
            sink.put(checkpoint(1))

        assert receiver.requests == []


def self_signed(path):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = clock.now()
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


# --- an S3 store --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store():
    with s3.running() as address:
        yield address


@dataclass
class BucketPlace:
    sink: CheckpointSink
    away: CheckpointSink
    client: object
    bucket: str

    def __post_init__(self):
        self.there = self.sink

    def kept(self):
        listed = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return [
            self.client.get_object(Bucket=self.bucket, Key=item["Key"])["Body"].read().decode()
            for item in listed
        ]

    def go_away(self):
        self.sink = self.away

    def come_back(self):
        self.sink = self.there


@pytest.fixture
def client(store):
    return boto3.client("s3", endpoint_url=store, region_name="us-east-1", **KEYS)


@pytest.fixture
def bucket(client):
    name = f"audit-{uuid4().hex[:12]}"
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


@pytest.fixture
def open_sink(settings, bucket, store):
    settings.AOS_AUDIT_S3_ACCESS_KEY = KEYS["aws_access_key_id"]
    settings.AOS_AUDIT_S3_SECRET_KEY = KEYS["aws_secret_access_key"]

    def open_(more="", *, name=bucket, endpoint=store):
        return S3Sink.at(f"s3://{name}/aos/chain?endpoint={endpoint}{more}")

    return open_


class TestS3(CheckpointSinkContract):
    @pytest.fixture
    def place(self, open_sink, client, bucket):
        return BucketPlace(open_sink(), open_sink(endpoint="http://127.0.0.1:1"), client, bucket)

    def test_a_store_without_conditions_replaces_nothing_either(self, place, monkeypatch):
        """Some refuse If-None-Match, and some take it and do as if it were not there."""
        plain = S3Sink._put
        monkeypatch.setattr(S3Sink, "_put", lambda self, key, line, **_: plain(self, key, line))
        place.sink.put(checkpoint(1))

        place.sink.put(checkpoint(1))
        with pytest.raises(SinkConflict):
            place.sink.put(checkpoint(1, word="forged"))

        assert place.kept() == [checkpoint(1).line]

    def test_a_store_that_refuses_conditions_gets_none(self, place, monkeypatch):
        plain = S3Sink._put

        def strict(self, key, line, **condition):
            if condition:
                raise ClientError({"Error": {"Code": "NotImplemented"}}, "PutObject")
            plain(self, key, line)

        monkeypatch.setattr(S3Sink, "_put", strict)

        place.sink.put(checkpoint(1))

        assert place.kept() == [checkpoint(1).line]

    def test_a_faster_one_wins_by_the_stores_own_condition(self, place, monkeypatch):
        """Both look, both find nothing, both write: the store lets one through."""
        start = threading.Barrier(2)
        seen = S3Sink._get

        def look(self, key):
            found = seen(self, key)
            if found is None:
                start.wait(5)
            return found

        monkeypatch.setattr(S3Sink, "_get", look)
        outcomes = []

        def put(word):
            try:
                place.sink.put(checkpoint(1, word))
                outcomes.append("kept")
            except SinkConflict:
                outcomes.append("conflict")

        threads = [threading.Thread(target=put, args=(word,)) for word in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(outcomes) == ["conflict", "kept"]
        assert len(place.kept()) == 1

    def test_more_than_a_page_of_objects_is_read_in_order(self, place, client, bucket):
        for number in range(1, 1102):
            key = f"aos/chain/{number:012d}.json"
            client.put_object(Bucket=bucket, Key=key, Body=checkpoint(number).line.encode())

        assert list(place.sink.read()) == [checkpoint(n).line for n in range(1, 1102)]

    def test_a_locked_object_cannot_be_deleted(self, open_sink, client, bucket):
        open_sink("&lock_days=30").put(checkpoint(1))
        (version,) = client.list_object_versions(Bucket=bucket)["Versions"]

        with pytest.raises(ClientError, match="AccessDenied"):
            client.delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])

        head = client.head_object(Bucket=bucket, Key=version["Key"])
        assert head["ObjectLockMode"] == "COMPLIANCE"

    def test_a_bucket_that_is_not_there_is_away(self, open_sink):
        sink = open_sink(name="nobody-made-this")

        with pytest.raises(SinkAway, match="NoSuchBucket"):
            sink.put(checkpoint(1))
        with pytest.raises(SinkAway, match="NoSuchBucket"):
            list(sink.read())


# --- by URL -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("file:///mnt/audit", "file:/mnt/audit"),
        ("https://hooks.example/aos?key=1", "https://hooks.example/aos"),
        ("http://127.0.0.1:8099/x", "http://127.0.0.1:8099/x"),
        ("http://localhost/x", "http://localhost/x"),
        ("s3://bucket/a/b?region=eu-central-1", "s3://bucket/a/b"),
    ],
)
def test_a_sink_is_named_by_its_url(settings, url, name):
    settings.AOS_AUDIT_SINKS = [url]

    (sink,) = sinks.configured()

    assert sink.name == name


@pytest.mark.parametrize(
    ("urls", "told"),
    [
        ([], "names no place"),
        (["ftp://host/x"], "ftp is unknown"),
        (["nothing"], "without a scheme"),
        (["http://hooks.example/aos"], "must use https"),
        (["http://169.254.169.254/latest"], "must use https"),
        (["https://user:word@hooks.example/"], "without a password"),
        (["https:///path"], "no host"),
        (["file:relative/path"], "an/absolute/folder"),
        (["file://host/path"], "an/absolute/folder"),
        (["s3:///prefix"], "s3://bucket/prefix"),
        (["s3://key:word@bucket/prefix"], "s3://bucket/prefix"),
        (["s3://bucket/x?acl=public"], "no more than"),
        (["s3://bucket/x?lock_days=long"], "number of days"),
        (["file:///a", "file:///a"], "twice"),
    ],
)
def test_an_address_that_makes_no_sense_stops_the_start(settings, urls, told):
    settings.AOS_AUDIT_SINKS = urls

    with pytest.raises(ImproperlyConfigured, match=told) as caught:
        sinks.configured()

    assert "word" not in str(caught.value).replace("a password", "")
