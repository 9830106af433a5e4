"""The library llm-sandbox, where it is installed: a container by its own defaults, on our image."""

from __future__ import annotations

import time
from importlib import import_module
from importlib.util import find_spec

from benchmarks.peers.containers import Taken
from workers.sandbox.base import SandboxSpec
from workers.sandbox.docker import WORKSPACE


def is_here() -> bool:
    return find_spec("llm_sandbox") is not None


def fresh(spec: SandboxSpec, command: str) -> Taken:
    """A session for one command. It gives output when the command has ended."""
    begun = time.perf_counter()
    session = import_module("llm_sandbox").SandboxSession(
        lang="python",
        image=spec.image,
        keep_template=True,
        skip_environment_setup=True,  # it would make a virtual environment, from the network
        workdir=WORKSPACE,
        runtime_configs={"network_mode": "none", "user": spec.user},
    )
    with session:
        said = session.execute_command(command).stdout
        first = time.perf_counter() - begun
    if "ready" not in said:
        raise RuntimeError(f"the command said {said[:200]!r}")
    return Taken(first_output=first, all=time.perf_counter() - begun)
