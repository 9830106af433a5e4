"""sleeper: sleeps for the seconds it is told, in ten parts, and leaves a note."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

PARTS = 10


def tell(**command: object) -> None:
    """Send one command to AOS; every other line on stdout is log."""
    sys.stdout.write(f"::aos {json.dumps(command)}\n")
    sys.stdout.flush()


def main() -> None:
    task = json.loads(Path(os.environ["AOS_IN"], "input.json").read_text("utf-8"))
    seconds = task.get("seconds", 10)
    for part in range(1, PARTS + 1):
        time.sleep(seconds / PARTS)
        slept = round(seconds * part / PARTS, 2)
        tell(type="milestone", title=f"Slept {slept:g} s", progress=part / PARTS)
    note = f"Slept {seconds:g} seconds in attempt {os.environ.get('AOS_ATTEMPT', '1')}.\n"
    Path(os.environ["AOS_OUT"], "nap.txt").write_text(note, encoding="utf-8")
    tell(type="result", summary=note.strip(), facts={"seconds": seconds})


if __name__ == "__main__":
    main()
