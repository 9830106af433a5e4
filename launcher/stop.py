"""`make stop`: ends everything of this clone, in order."""

from __future__ import annotations

from launcher import orphans, supervision
from launcher.console import Console
from launcher.exclusive import only_command
from launcher.home import Home


def stop(home: Home, console: Console) -> bool:
    """End everything of this clone, in order; say whether anything ran."""
    if not home.run.is_dir():
        console.done("nothing runs")
        return False
    home.refuse_other_owner()
    with only_command(home, console):
        ran = supervision.stop(home, tell=console.step)
        left = orphans.end(home)
    if left:
        console.step(f"ended {left} processes that an earlier start left behind")
    console.done("AOS is stopped" if ran or left else "nothing runs")
    return ran or bool(left)
