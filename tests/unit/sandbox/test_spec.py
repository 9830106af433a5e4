from __future__ import annotations

from datetime import timedelta

import pytest

from workers.sandbox.base import (
    BOUNDS,
    Command,
    Exit,
    Outcome,
    SandboxSpec,
)
from workers.sandbox.errors import SandboxSpecInvalid


def test_the_workspace_is_half_of_the_memory_unless_said_otherwise():
    assert SandboxSpec(image="i", memory_mb=300).workspace_mb == 150
    assert SandboxSpec(image="i", memory_mb=300, workspace_mb=20).workspace_mb == 20


def test_limits_are_read_from_an_agent_version():
    spec = SandboxSpec.from_mapping({"memory_mb": 512, "cpu": 0.5, "pids": 128}, image="i")

    assert (spec.image, spec.memory_mb, spec.cpu, spec.pids) == ("i", 512, 0.5, 128)


@pytest.mark.parametrize("wish", ["privileged", "image", "cap_add", "network", "volumes", "user"])
def test_there_is_no_way_to_ask_for_a_privilege(wish):
    with pytest.raises(SandboxSpecInvalid, match=wish):
        SandboxSpec.from_mapping({wish: 1}, image="i")


@pytest.mark.parametrize("field", BOUNDS)
@pytest.mark.parametrize("beyond", [-1, 1])
def test_every_limit_has_two_bounds(field, beyond):
    least, most = BOUNDS[field]
    wanted = {"memory_mb": 8192} | {field: most + 1 if beyond > 0 else least - 2}

    with pytest.raises(SandboxSpecInvalid, match=field):
        SandboxSpec.from_mapping(wanted, image="i")


@pytest.mark.parametrize("value", ["512", None, True, [512], {}, float("nan"), float("inf"), 512.5])
def test_a_limit_is_a_number(value):
    with pytest.raises(SandboxSpecInvalid, match="memory_mb"):
        SandboxSpec.from_mapping({"memory_mb": value}, image="i")


def test_the_workspace_cannot_be_larger_than_the_memory_it_is_part_of():
    with pytest.raises(SandboxSpecInvalid, match="part of memory_mb"):
        SandboxSpec(image="i", memory_mb=64, workspace_mb=65)


@pytest.mark.parametrize(
    "wrong",
    [
        {"argv": ()},
        {"argv": ("",)},
        {"argv": ("a\0b",)},
        {"argv": ("x" * 300_000,)},
        {"argv": ("x",), "env": {"A=B": "c"}},
        {"argv": ("x",), "env": {"": "c"}},
        {"argv": ("x",), "env": {"A": "b\0"}},
        {"argv": ("x",), "cwd": "\0"},
        {"argv": ("x",), "stdin": b"x" * 600_000},
        {"argv": ("x",), "timeout": timedelta(0)},
        {"argv": ("x",), "timeout": timedelta(days=2)},
        {"argv": ("x",), "output_limit": 0},
        {"argv": ("x",), "output_limit": 1 << 30},
    ],
)
def test_a_command_that_cannot_be_run_is_refused_at_once(wrong):
    with pytest.raises(ValueError, match=r"command|environment"):
        Command(**wrong)


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (Exit(outcome=Outcome.SUCCEEDED, code=0), None),
        (Exit(outcome=Outcome.FAILED, code=3), "command_failed"),
        (Exit(outcome=Outcome.TIMED_OUT, limit_s=2), "command_timed_out"),
        (Exit(outcome=Outcome.OUT_OF_MEMORY), "out_of_memory"),
        (Exit(outcome=Outcome.KILLED), "sandbox_killed"),
    ],
)
def test_each_outcome_has_its_error(ended, code):
    error = ended.error()

    assert (error and error.code) == code
