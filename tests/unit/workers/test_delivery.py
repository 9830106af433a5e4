"""Messages on their way in: as many at once as slots are free, and the next one asked for when a slot is free again."""

from __future__ import annotations

import json
import uuid

import pytest
from celery.concurrency import solo
from celery.worker import state
from celery.worker.request import create_request_cls
from django.conf import settings
from kombu import Connection, Consumer, Message, Queue
from kombu.transport import redis as transport
from redis import Redis

from workers import delivery, lifespan, tasks
from workers.celery import app

SLOTS = 3


@pytest.fixture
def queue():
    return Queue(f"test-{uuid.uuid4().hex}", no_ack=True)


@pytest.fixture
def connection(monkeypatch, queue):
    monkeypatch.setattr(transport.Transport, "Channel", delivery.Channel)
    monkeypatch.setattr(delivery._Broker, "slots", SLOTS)
    monkeypatch.setattr(state, "reserved_requests", set())
    options = {"priority_steps": [0]}
    with Connection(settings.AOS_REDIS_URL, transport_options=options) as connection:
        yield connection
        connection.default_channel.client.delete(queue.name)


@pytest.fixture
def arrived(connection, queue):
    """The messages of a worker that takes up what it gets; five wait for it."""
    arrived = []

    def take(body, message):
        arrived.append(body)
        state.reserved_requests.add(body)

    producer = connection.Producer()
    for number in range(5):
        producer.publish(number, routing_key=queue.name, declare=[queue])
    with Consumer(connection, [queue], callbacks=[take], no_ack=True):
        yield arrived


def answers_with_messages():
    stats = Redis.from_url(settings.AOS_REDIS_URL).info("commandstats")
    return stats.get("cmdstat_blmpop", {"calls": 0})["calls"]


def test_one_answer_brings_a_message_for_each_free_slot_in_their_order(connection, arrived):
    before = answers_with_messages()

    connection.drain_events(timeout=5)

    assert arrived == [0, 1, 2]
    assert answers_with_messages() - before <= 1


def test_a_slot_that_is_taken_gets_no_message(connection, arrived):
    state.reserved_requests |= {"busy", "busy too"}

    connection.drain_events(timeout=5)

    assert arrived == [0]


def test_what_did_not_fit_comes_with_the_next_answer(connection, arrived):
    connection.drain_events(timeout=5)
    state.reserved_requests.clear()
    connection.drain_events(timeout=5)

    assert arrived == [0, 1, 2, 3, 4]


@pytest.fixture
def held_when_woken(monkeypatch):
    """The requests that took up slots each time that the loop was woken."""
    monkeypatch.setattr(state, "reserved_requests", set())
    found = []
    monkeypatch.setattr(
        lifespan, "look_for_more", lambda: found.append(set(state.reserved_requests))
    )
    return found


@pytest.fixture
def request_of_a_run():
    task = tasks.execute
    sent = app.amqp.create_task_message(uuid.uuid4().hex, task.name, args=[1, 2])
    message = Message(body=json.dumps(sent.body), content_type="application/json", delivery_info={})
    request_class = create_request_cls(
        delivery.Request, task, solo.TaskPool(app=app), "here", None, app=app
    )
    return request_class(message, app=app, task=task, headers=sent.headers)


def test_the_loop_is_woken_when_the_slot_is_free_and_not_before(request_of_a_run, held_when_woken):
    state.task_reserved(request_of_a_run)

    request_of_a_run.on_success((0, None, 0.1))

    assert held_when_woken == [set()]


def test_the_loop_is_woken_when_the_end_itself_breaks(request_of_a_run, held_when_woken):
    with pytest.raises(TypeError):
        request_of_a_run.on_success("not what Celery hands over, but one of three", "too many")

    assert len(held_when_woken) == 1


def test_a_request_that_is_over_does_not_hold_itself(request_of_a_run, held_when_woken):
    request_of_a_run.on_success((0, None, 0.1))

    assert "on_success" not in vars(request_of_a_run)
