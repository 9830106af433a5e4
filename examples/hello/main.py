"""hello: greets whoever the input names."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def tell(**command: object) -> None:
    """Send one command to AOS; every other line on stdout is log."""
    sys.stdout.write(f"::aos {json.dumps(command)}\n")
    sys.stdout.flush()


def main() -> None:
    task = json.loads(Path(os.environ["AOS_IN"], "input.json").read_text("utf-8"))
    greeting = f"Hello, {task.get('name', 'world')}!"
    tell(type="milestone", title=greeting, progress=1.0)
    tell(type="result", summary=greeting, facts={"letters": len(greeting)})


if __name__ == "__main__":
    main()
