"""Functions that the tests of function agents call."""

from __future__ import annotations

import time
from typing import Any

from workers.functions import Call


def brief(call: Call) -> dict[str, Any]:
    time.sleep(call.input.get("for_s", 0))
    call.log(f"number {call.input['number']}")
    return {"summary": "Done.", "facts": {"number": call.input["number"]}}


def picky(call: Call) -> None:
    number = call.input["number"]
    if number == 13 or (number == 7 and call.attempt == 1):
        raise ValueError(f"{number} is refused")


def parent(call: Call) -> dict[str, Any]:
    """Start ``width`` children of the same kind, ``depth`` generations deep, and wait for them."""
    if not call.input["depth"]:
        time.sleep(call.input.get("for_s", 0))
        return {"facts": {"runs": 1}}
    below = call.input | {"depth": call.input["depth"] - 1}
    started = [
        call.start(call.input["agent"], below, key=f"child-{number}")
        for number in range(call.input["width"])
    ]
    ended = call.wait(*started)
    assert all(child.succeeded for child in ended), ended
    return {"facts": {"runs": 1 + sum(child.result["facts"]["runs"] for child in ended)}}


def slow(call: Call) -> None:
    time.sleep(call.input["for_s"])
