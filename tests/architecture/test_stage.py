"""Hostile text is tried on every page (``tests/browser/test_xss.py``), so every table must have a row there."""

from __future__ import annotations

import pytest

from tests.browser.test_xss import NOWHERE
from tests.browser.xss import corpus, taint
from tests.browser.xss.stage import make_stage


@pytest.mark.django_db(transaction=True)
def test_every_table_that_holds_text_has_a_row_on_the_stage():
    make_stage("correct horse battery")

    models = {field.model for field in taint.fields()}
    empty = {model._meta.label for model in models if not model._base_manager.exists()}
    unseen = {label.rpartition(".")[0] for label in NOWHERE}
    assert empty <= unseen, "give tests/browser/xss/stage.py a row of each, then run test_xss.py"


def test_every_payload_is_sent_once_and_those_that_must_begin_a_value_do():
    volleys = corpus.volleys()
    sent = [payload for volley in volleys for payload in volley.payloads]
    first = [volley.payloads[0] for volley in volleys]

    assert sorted(payload.number for payload in sent) == list(range(1, len(corpus.load()) + 1))
    assert {each for each in sent if each.aim in corpus.BEGINNERS} <= set(first)
    assert len(sent) >= 300
