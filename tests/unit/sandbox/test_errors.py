from __future__ import annotations

import inspect
import pickle
import string

import pytest

from workers.sandbox import errors
from workers.sandbox.errors import SandboxError

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, SandboxError) and kind is not SandboxError
]


def example(kind: type[SandboxError]) -> SandboxError:
    fields = [name for _, name, _, _ in string.Formatter().parse(kind.template) if name]
    return kind(**dict.fromkeys(fields, 1))


def test_each_error_has_a_code_of_its_own():
    codes = [kind.code for kind in KINDS]

    assert len(codes) == len(set(codes)) > 15


@pytest.mark.parametrize("kind", KINDS)
def test_each_error_says_something_and_crosses_a_process_boundary(kind):
    error = example(kind)

    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own

    assert type(copy) is kind
    assert str(copy) == str(error) != ""
    assert kind.title != SandboxError.title
