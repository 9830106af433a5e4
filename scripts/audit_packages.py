"""Look for known holes in the locked packages: ``pip-audit --strict`` over every lock file.

It asks PyPI for advisories. Where those cannot be reached (a machine without the Internet, a mirror that
carries packages only) nothing can be said, and it says so; ``--required`` makes that a failure.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
SOURCE: Final = "https://pypi.org/pypi/{name}/{version}/json"
LOCKS: Final = (
    *(ROOT / "requirements" / f"{name}.txt" for name in ("base", "embedded", "dev")),
    *(ROOT / "sandbox_images" / name / "requirements.txt" for name in ("data", "node", "mcp-time")),
)
_PIN: Final = re.compile(r"^(django)==([\w.]+)", re.MULTILINE)
_PATIENCE_S: Final = 10


def answers(source: str = SOURCE) -> bool:
    """Whether advisories are told for a package that is locked here."""
    found = _PIN.search(LOCKS[0].read_text("utf-8"))
    if found is None:
        return False
    url = source.format(name=found[1], version=found[2])
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE_S) as answer:  # noqa: S310  # an https: address of ours
            return "vulnerabilities" in json.load(answer)
    except (OSError, ValueError):
        return False


def audit(lock: Path) -> int:
    command = [sys.executable, "-m", "pip_audit", "--strict", "--disable-pip", "--require-hashes"]
    done = subprocess.run([*command, "-r", str(lock)], check=False)
    return done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--required", action="store_true", help="fail when nothing can be asked")
    required = parser.parse_args().required
    if not answers():
        print("The advisory source (pypi.org) does not answer: the packages were not audited.")
        return int(required)
    worst = max(audit(lock) for lock in LOCKS if lock.read_text("utf-8").strip())
    print("A locked package has a known hole." if worst else "No locked package has a known hole.")
    return worst


if __name__ == "__main__":
    raise SystemExit(main())
