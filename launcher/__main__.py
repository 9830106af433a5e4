"""`python -m launcher <command>`: what the Makefile calls."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final

from launcher import home
from launcher.console import Console
from launcher.files import append_handle
from launcher.home import Home
from launcher.problems import Problem, from_os_error

FAILED: Final = 1
INTERRUPTED: Final = 130


class Commands:
    """Each method is a command and says whether it succeeded.

    They import what they need when they run: the supervisor is this program too, stays for weeks,
    and needs no database or HTTP client in its memory.
    """

    def __init__(self, place: Home, console: Console, *, sure: bool) -> None:
        self.home = place
        self.console = console
        self.sure = sure

    def up(self) -> bool:
        from launcher import up

        up.up(self.home, self.console)
        return True

    def demo(self) -> bool:
        from launcher import demo, up

        return demo.demo(self.home, self.console, up.with_sample(self.home, self.console))

    def stop(self) -> bool:
        from launcher import stop

        stop.stop(self.home, self.console)
        return True

    def restart(self) -> bool:
        return self.stop() and self.up()

    def status(self) -> bool:
        from launcher import show

        return show.show(self.home, self.console)

    def logs(self) -> bool:
        from launcher import follow

        try:
            follow.follow(self.home, self.console)
        except KeyboardInterrupt:
            self.console.clear()
        return True

    def reset(self) -> bool:
        from launcher import reset

        return reset.reset(self.home, self.console, ask=input, sure=self.sure)

    def supervise(self) -> bool:
        from launcher import supervisor

        return supervisor.main(self.home)


NAMES: Final = ("up", "demo", "stop", "restart", "status", "logs", "reset", "supervise")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="launcher", description="Runs AOS on this machine.")
    parser.add_argument("command", choices=NAMES)
    parser.add_argument("--yes", action="store_true", help="reset without asking")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        commands = Commands(home.here(), console, sure=options.yes)
        return 0 if getattr(commands, options.command)() else FAILED
    except Problem as problem:
        console.explain(problem)
    except BrokenPipeError:
        # The reader of our output left: `make logs | head`. There is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        _keep_traceback()
        console.explain(from_os_error(error))
    except KeyboardInterrupt:
        console.clear()
        console.line("Interrupted. `make status` says what runs, `make stop` ends it.")
        return INTERRUPTED
    return FAILED


def _keep_traceback() -> None:
    """Leave the developer's half of an unexpected error where it can be found."""
    place = home.here()
    if place.logs.is_dir():
        with os.fdopen(append_handle(place.log("launcher")), "a", encoding="utf-8") as log:
            traceback.print_exc(file=log)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
