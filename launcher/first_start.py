"""How a person gets in where no demo was made: by the activation code, or as who they are already."""

from __future__ import annotations

import json
from typing import Final

from launcher.commands import manage
from launcher.console import Console
from launcher.home import Home
from launcher.problems import Problem
from launcher.settings import Settings

STEP: Final = "Correct what the lines above name, then run `make up` again."


def show(home: Home, console: Console, wanted: Settings) -> None:
    """Print the way in. The code goes to this terminal, and to no log or file."""
    code = _code(home, wanted)
    if code is None:
        console.line(f"Chat Hub   {wanted.url}/")
        console.line("Sign in with your own account.    End: make stop")
        return
    console.line("\nNobody owns this installation yet. Whoever opens this address first will:")
    console.line(f"  {wanted.url}/start#{code}")
    console.line(f"  or type the activation code there: {code}")
    console.line("The code works once, and only the last one: each `make up` prints a new one.")
    console.line("Only to look around: make demo    End: make stop")


def _code(home: Home, wanted: Settings) -> str | None:
    text = manage(
        home,
        wanted,
        "first_start",
        "--json",
        failed="The activation code could not be made",
        step=STEP,
    )
    try:
        code: str | None = json.loads(text)["code"]
    except (ValueError, KeyError, TypeError) as error:
        raise Problem(
            "`manage.py first_start --json` printed something else than a code.",
            step=STEP,
            # Not what it printed: that may be the code.
        ) from error
    return code
