"""What every answer must be like, beyond what ``openapi.yaml`` can say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from tests.support.servers import PROJECT

PROBLEM: Final = {"type", "code", "title", "detail", "status", "params"}
# What Python, Django and PostgreSQL say to programmers and must not say to callers.
_INTERNAL: Final = re.compile(
    r"Traceback|File \"|psycopg|django\.|rest_framework|SELECT |INSERT |DETAIL:|0x[0-9a-f]{8,}|object at"
)


def listed_codes() -> dict[str, set[int]]:
    """The codes of docs/reference/errors.md and the statuses they come with."""
    text = (PROJECT / "docs/reference/errors.md").read_text("utf-8")
    table = text.partition("## Of the API")[2].partition("\n## ")[0]
    found: dict[str, set[int]] = {}
    for code, status in re.findall(r"^\| `(\w+)` \| (\d{3})", table, re.MULTILINE):
        found.setdefault(code, set()).add(int(status))
    return found


@dataclass(frozen=True, kw_only=True)
class Expected:
    codes: dict[str, set[int]]
    # Ids and words of another organization.
    foreign: Sequence[str]
    # Nobody is signed in: nothing may be answered but refusals.
    anonymous: bool = False

    def faults(self, request: Any, response: Any) -> Iterator[str]:
        body = response.content or b""
        text = body.decode("utf-8", "replace")
        if response.status_code >= 400:
            yield from self._problem(request, response, text)
        elif self.anonymous and request.method != "OPTIONS":
            yield "somebody who is not signed in was answered"
        if "x-trace-id" not in response.headers:
            yield "carries no X-Trace-Id"
        yield from self._foreign(request, response, text)

    def _problem(self, request: Any, response: Any, text: str) -> Iterator[str]:
        kind = response.headers.get("content-type", [""])[0]
        if kind != "application/problem+json":
            yield f"an error of the type {kind!r}"
            return
        if request.method == "HEAD":
            return
        problem = json.loads(text)
        code, status = problem.get("code"), response.status_code
        if set(problem) != PROBLEM or problem["status"] != status:
            yield "an error that is no problem document of ours"
        elif status not in self.codes.get(code, set()):
            yield f"the code {code!r} is not listed for {status} in docs/reference/errors.md"
        elif not _is_sentence(problem["detail"]):
            yield f"an error that does not say what is wrong: {problem['detail']!r}"
        elif _INTERNAL.search(problem["detail"]):
            yield f"an error that tells our insides: {problem['detail']!r}"

    def _foreign(self, request: Any, response: Any, text: str) -> Iterator[str]:
        said = unquote(request.uri) + (str(request.body) if request.body else "")
        for word in self.foreign:
            # A refusal may repeat what was asked for.
            if word in text and not (response.status_code >= 400 and word in said):
                yield "tells something of another organization"
                return


def _is_sentence(detail: object) -> bool:
    return isinstance(detail, str) and len(detail.strip()) > 8
