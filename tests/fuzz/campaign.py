"""One campaign: Schemathesis sends one role's requests over ``openapi.yaml`` to a real web process.

What the answers must be like is said in ``checks``; how many there were and which failed is counted
here.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import schemathesis
import yaml
from schemathesis.engine import from_schema
from schemathesis.engine.events import NonFatalError, ScenarioFinished

from tests.fuzz.answers import Expected
from tests.support.servers import PROJECT

SCHEMA: Final = PROJECT / "openapi.yaml"
# A stream is open for ever; what it says in this time is looked at.
STREAM_S: Final = 1.0


# A schema says what a request looks like, not what it means: that a cursor is one of ours, that a
# file's name may be stored, that the input fits the agent. Refusing those is right.
POSITIVE: Final = ["2xx", "3xx", "401", "403", "404", "409", "422", "429"]
_REFUSED: Final = "Schema-valid request rejected"
_TAKEN: Final = "Schema-violating request accepted"
_MEANING: Final = ("This cursor is not one of ours",)


def published() -> dict[str, Any]:
    """The document as it is published, to be changed at will."""
    return copy.deepcopy(_read())


@cache
def _read() -> dict[str, Any]:
    # By the parser in C: the one in Python takes seconds for a document of this size.
    found: dict[str, Any] = yaml.load(SCHEMA.read_text("utf-8"), Loader=yaml.CSafeLoader)
    return found


@dataclass(kw_only=True)
class Report:
    expected: Expected
    cases: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    # By operation and what was wrong, with a request that shows it.
    failures: dict[str, str] = field(default_factory=dict)
    found: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    operations: set[str] = field(default_factory=set)

    def note(self, finished: ScenarioFinished) -> None:
        recorder = finished.recorder
        self.cases += len(recorder.interactions)
        if recorder.interactions:
            self.operations.add(recorder.label)
        for interaction in recorder.interactions.values():
            self._look(recorder.label, interaction)
        for case_id, checks in recorder.checks.items():
            for check in checks:
                if check.failure_info is not None:
                    failure = check.failure_info.failure
                    told = f"{failure.message}\n{check.failure_info.code_sample}"
                    said = _said(recorder.interactions.get(case_id))
                    if not _is_right(failure, told, said):
                        self._fail(f"{recorder.label}: {check.name}", told, said)

    def _look(self, label: str, interaction: Any) -> None:
        if interaction.response is None:
            self.statuses[0] += 1
            self._fail(f"{label}: no answer", interaction.request.uri, "")
            return
        self.statuses[interaction.response.status_code] += 1
        for fault in self.expected.faults(interaction.request, interaction.response):
            request = interaction.request
            told = f"{request.method} {request.uri} {request.body!r}"
            self._fail(f"{label}: {fault}", told, _said(interaction))

    def _fail(self, name: str, told: str, said: str) -> None:
        self.found[name] += 1
        self.failures.setdefault(name, f"{told}\n-> {said}")

    @property
    def is_clean(self) -> bool:
        return not self.failures and not self.errors

    def share(self, status: int) -> float:
        return self.statuses[status] / max(1, self.cases)

    def told(self) -> str:
        lines = [f"{self.cases} cases over {len(self.operations)} operations: {self.statuses}"]
        lines += [f"\n{self.found[name]} x {name}\n{how}" for name, how in self.failures.items()]
        return "\n".join(lines + self.errors)


def _is_right(failure: Any, told: str, said: str) -> bool:
    if failure.title == _REFUSED:
        return any(word in said for word in _MEANING)
    # The parts of a form have no types: a number on the wire is the text of its digits.
    return "violates `type`" in told and "multipart/form-data" in told and failure.title == _TAKEN


def _said(interaction: Any) -> str:
    answer = interaction.response if interaction else None
    return f"{answer.status_code} {(answer.content or b'')[:400]!r}" if answer else "no answer"


def run(
    url: str,
    *,
    token: str | None,
    examples: int,
    words: Mapping[str, Sequence[str]],
    expected: Expected,
    seed: int = 1,
    phases: Sequence[str],
    document: dict[str, Any] | None = None,
) -> Report:
    """Send at most ``examples`` requests per operation and phase; ``words`` are ids that exist."""
    config = schemathesis.Config.from_dict(
        {
            "seed": seed,
            "base-url": url,
            "headers": {"Authorization": f"Bearer {token}"} if token else {},
            "continue-on-failure": True,
            "request-timeout": 20,
            "max-stream-events": 1,
            "cache": {"enabled": False},
            "checks": {"positive_data_acceptance": {"expected-statuses": POSITIVE}},
            "generation": {
                "max-examples": examples,
                "deterministic": True,
                "database": "none",
                "no-shrink": True,
            },
            "phases": {
                "stateful": {"enabled": False},
                # Ids out of answers would include those of the one who asks, who is then removed.
                **{
                    name: {"enabled": name in phases, "extra-data-sources": {"responses": False}}
                    for name in ("examples", "coverage", "fuzzing")
                },
            },
            "dictionaries": {name: {"values": list(values)} for name, values in words.items()},
            "parameters": {
                f"{place}.{name}": {"dictionary": name, "probability": 0.5}
                for name in words
                for place in ("path", "query", "body", "body.runs[*]")
            },
            "operations": [
                {"include-path": "/api/events/stream", "request-timeout": STREAM_S},
            ],
        }
    )
    schema = schemathesis.openapi.from_dict(document or published(), config=config)
    report = Report(expected=expected)
    for event in from_schema(schema).execute():
        if isinstance(event, ScenarioFinished):
            report.note(event)
        elif isinstance(event, NonFatalError):
            report.errors.append(str(event.info.format()))
    return report
