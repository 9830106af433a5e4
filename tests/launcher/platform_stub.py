"""What the launcher sees of a platform, in one file: ``manage.py``, a web process, an engine.

Copied into the clones of the tests and started there; it never runs inside pytest.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

CHART = b"<svg/>"
RUN = "0190a000-0000-7000-8000-000000000001"
SEED = {
    "organization": "acme",
    "project": "demo",
    "agent": "csv-report",
    "users": [{"username": "olivia", "password": "correct horse", "role": "Owner"}],
    "token": "aos_pat_test",
    "input": {"csv": "a,b\n1,2\n"},
}


def event(seq: int, kind: str, payload: dict, *, run: str = RUN) -> dict:
    head = {"seq": seq, "id": f"e{seq}", "type": kind, "run": run, "project": "p"}
    return {**head, "trace_id": "4bf92f3577b34da6", "severity": "info", "payload": payload}


OTHER = [event(1, "task.acceptance", {"title": "somebody else's"}, run="other")]
STORY = [
    event(2, "task.acceptance", {"title": "Clean the table", "agent": "csv-report"}),
    event(3, "task.progress.milestone", {"title": "Parsed", "progress": 0.5, "facts": {"rows": 2}}),
    event(4, "task.receipt", {"title": "other's receipt", "state": "failed"}, run="other"),
    event(
        5,
        "task.receipt",
        {
            "state": "failed" if Path("fail-run").exists() else "succeeded",
            "title": "Cleaned",
            "summary": "2 rows in, 1 row out",
            "facts": {"rows": 1200},
            "error": {"code": "script_failed", "detail": "exit code 3", "retryable": False}
            if Path("fail-run").exists()
            else None,
            "attempts": 1,
            "duration_s": 0.4,
            "isolation": "none",
            "artifacts": [
                {
                    "name": "chart.svg",
                    "size": len(CHART),
                    "sha256": hashlib.sha256(CHART).hexdigest(),
                    "media_type": "image/svg+xml",
                }
            ],
        },
    ),
]


class Web(BaseHTTPRequestHandler):
    submitted = False

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        after = int(parse_qs(parts.query).get("after", ["0"])[0])
        if parts.path == "/readyz":
            self.answer(503 if Path("fail-ready").exists() else 200, {"database": "down"})
        elif parts.path == "/api/events":
            self.answer(200, {"results": [e for e in OTHER if e["seq"] > after], "next": None})
        elif parts.path == "/api/events/stream":
            self.stream(after)
        elif parts.path == f"/api/runs/{RUN}/artifacts/chart.svg":
            self.raw(200, b"forged" if Path("fail-artifact").exists() else CHART)
        else:
            self.answer(404, {"title": "Not found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = self.headers["Authorization"] == "Bearer aos_pat_test"
        if not known or not self.headers["Idempotency-Key"]:
            self.answer(401, {"title": "Unauthorized", "detail": "who are you"})
            return
        Path("submitted.json").write_text(json.dumps(body))
        self.answer(202, {"id": RUN, "state": "queued", "trace_id": "4bf92f3577b34da6"})

    def stream(self, after: int) -> None:
        """Break off after each event, as a web process that restarts would."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b": hello\n\n")
        for item in [e for e in STORY if e["seq"] > after][:1]:
            self.wfile.write(f"id: {item['seq']}\ndata: {json.dumps(item)}\n\n".encode())

    def answer(self, code: int, body: dict) -> None:
        self.raw(code, json.dumps(body).encode())

    def raw(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        return


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def web(host: str, port: str) -> None:
    say("web listens")
    ThreadingHTTPServer((host, int(port)), Web).serve_forever()


def engine() -> None:
    name = Path("stubborn")
    if name.exists():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say("engine runs")
    while True:
        time.sleep(0.2)


def seed(*, again: bool) -> dict:
    """Give a password out once, as one that is stored as a hash."""
    users = [{**user, "password": None if again else user["password"]} for user in SEED["users"]]
    return {**SEED, "users": users}


def manage(command: str) -> None:
    calls = Path("calls.txt").read_text().split() if Path("calls.txt").exists() else []
    Path("calls.txt").write_text("\n".join([*calls, *sys.argv[1:2]]) + "\n")
    if Path(f"fail-{command}").exists():
        sys.stderr.write(f"RuntimeError: {command} went wrong\n")
        sys.exit(1)
    if command == "collectstatic":
        root = Path(os.environ["AOS_STATIC_ROOT"])
        root.mkdir(exist_ok=True)
        (root / "staticfiles.json").write_text("{}")
    if command == "first_start":
        closed = "seed" in calls or Path("owned").exists()
        say(json.dumps({"code": None if closed else f"CODE-{calls.count('first_start')}"}))
    if command == "seed":
        again = "seed" in calls and "--reset-passwords" not in sys.argv
        say(json.dumps(seed(again=again)))


if __name__ == "__main__":
    role = sys.argv[1]
    if role == "web":
        web(sys.argv[2], sys.argv[3])
    elif role == "engine":
        engine()
    else:
        manage(role)
