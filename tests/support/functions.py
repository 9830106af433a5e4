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


def slow(call: Call) -> None:
    time.sleep(call.input["for_s"])
