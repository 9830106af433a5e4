"""Runs the project's own commands for a start, quietly, and explains them when they fail."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

from launcher.files import append_handle
from launcher.home import Home
from launcher.problems import with_log
from launcher.processes import MARKER
from launcher.settings import Settings

TIMEOUT_SECONDS: Final = 900.0


def manage(home: Home, settings: Settings, *words: str, failed: str, step: str) -> str:
    """Run ``manage.py`` with these words and return what it printed.

    Its complaints go to a log named for the command; a failure shows the end of that.
    """
    log = home.log(words[0])
    handle = append_handle(log)
    try:
        done = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=home.project,
            env={**settings.env, MARKER: str(home.state)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )
        if done.returncode != 0:
            # Only now: what `seed` prints when all is well has passwords in it.
            os.write(handle, done.stdout)
        os.write(handle, done.stderr)
    except subprocess.TimeoutExpired as error:
        os.write(handle, error.stderr or b"")
        sentence = f"{failed}: `manage.py {words[0]}` did not end in {TIMEOUT_SECONDS:.0f} s."
        raise with_log(sentence, step=step, log=log) from error
    finally:
        os.close(handle)
    if done.returncode != 0:
        raise with_log(f"{failed}.", step=step, log=log)
    return done.stdout.decode("utf-8", "replace")
