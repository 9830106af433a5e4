"""What stands in the way of sandboxes on this host, found by looking and by trying. Changes nothing.

The last checks make a sandbox of their own and attack it a little: a canary must not show in what the
engine tells others, and a host that no rule names must be refused.
"""

from __future__ import annotations

import io
import json
import platform
import re
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import docker
from docker.utils import kwargs_from_env

from apps.sandboxes.types import EgressMode
from workers.sandbox import engine, images
from workers.sandbox.base import (
    NO_EGRESS,
    Command,
    Finding,
    Sandbox,
    SandboxDriver,
    SandboxSpec,
)
from workers.sandbox.docker import engine_findings
from workers.sandbox.egress.policy import Egress
from workers.sandbox.errors import SandboxError, SandboxUnavailable
from workers.sandbox.profiles import DEFAULT, Profile

#: Before it a container could reach the host's files through a leaked descriptor (CVE-2024-21626).
_RUNC: Final = (1, 1, 12)
_ENGINE_TIMEOUT_S: Final = 20
#: What nobody lists, what no list can open, and an address in disguise.
_DENIED: Final = ("https://unlisted.invalid", "http://169.254.169.254", "http://2130706433")
_TRIAL_MB: Final = 128
_TRIAL_PIDS: Final = 64
_WALLS: Final = {"Seccomp": "2", "NoNewPrivs": "1", "CapEff": "0" * 16}
#: Forks until it is refused, or more often than it may, and has a child take more memory than there is.
_CONFINEMENT: Final = """
import json, os, signal, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
told = {"status": {name: word.strip() for name, word in status.items()}}
children = []
try:
    while len(children) < int(sys.argv[2]):
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
except OSError:
    pass
told["forks"] = len(children)
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
eater = os.fork()
if eater == 0:
    eaten = bytearray(int(sys.argv[1]) << 20)
    for place in range(0, len(eaten), 4096):
        eaten[place] = 1
    os._exit(0)
told["memory"] = os.waitpid(eater, 0)[1] == 0
print(json.dumps(told))
"""
_PROBE: Final = """
import json, os, sys, urllib.error, urllib.request
told = {"links": os.listdir("/sys/class/net"), "answers": []}
for url in sys.argv[1:]:
    try:
        told["answers"].append(urllib.request.urlopen(url, timeout=20).status)
    except urllib.error.HTTPError as error:
        told["answers"].append(error.code)
    except OSError as error:
        told["answers"].append(403 if "403" in str(error) else str(error))
print(json.dumps(told))
"""


def examine(
    driver: SandboxDriver, profiles: Mapping[str, Profile], *, most_egress: EgressMode
) -> Iterator[Finding]:
    """Everything worth saying; a good host yields nothing. Raises nothing but bugs."""
    try:
        with engine.session(timeout_s=_ENGINE_TIMEOUT_S) as api:
            yield from _engine_findings(api)
            yield from _socket_findings()
            for profile in profiles.values():
                yield from _profile_findings(api, profile)
            if engine.find_image(api, profiles[DEFAULT].image):
                yield from _trial(driver, api, profiles[DEFAULT], most_egress)
    except SandboxError as error:
        hint = "Start the engine, or let this user reach its socket (group docker)."
        yield _error("engine_unreachable", str(error), hint)


def _engine_findings(api: docker.APIClient) -> Iterator[Finding]:
    version, info = api.version(), api.info()
    yield from engine_findings(version, info)
    parts = {part["Name"]: part["Version"] for part in version.get("Components") or []}
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", parts.get("runc", ""))
    if found and tuple(map(int, found.groups())) < _RUNC:
        yield _warning(
            "runc_old",
            f"runc {parts['runc']} is older than 1.1.12 (kernel {platform.release()}).",
            "Upgrade it, unless your distribution has put the repair of CVE-2024-21626 into this one.",
        )
    if info.get("CgroupVersion") == "1":
        yield _warning(
            "cgroup_v1",
            "The host counts memory by cgroup v1, which containers see less well.",
            "Boot with systemd.unified_cgroup_hierarchy=1 when you can.",
        )


def _socket_findings() -> Iterator[Finding]:
    url = urlsplit(kwargs_from_env().get("base_url") or engine.DEFAULT_URL)
    if url.scheme.endswith("unix") and Path(url.path).stat().st_mode & stat.S_IWOTH:
        yield _error(
            "socket_open_to_all",
            f"Every user of this host may use {url.path}, and so may become root.",
            f"Run: chmod o-rw {url.path}",
        )


def _profile_findings(api: docker.APIClient, profile: Profile) -> Iterator[Finding]:
    if profile.runtime not in (api.info().get("Runtimes") or {}):
        yield _error(
            "runtime_missing",
            f"The profile {profile.name} names the runtime {profile.runtime}, "
            "which the engine does not know.",
            "Install it and name it in the engine's daemon.json.",
        )
    for mount in profile.mounts:
        if not Path(mount.source).is_dir():
            yield _error(
                "mount_missing",
                f"The profile {profile.name} mounts {mount.source}, which is no folder here.",
                "Make the folder, or take it out of the profile.",
            )
    yield from _image_findings(api, profile)


def _image_findings(api: docker.APIClient, profile: Profile) -> Iterator[Finding]:
    ours = {images.tag_of(name): name for name in images.names()}
    name = ours.get(profile.image)
    if engine.find_image(api, profile.image) is None:
        said = f"The image {profile.image} of the profile {profile.name} is not here."
        hint = (
            f"Run: manage.py images build {name}" if name else f"Run: docker pull {profile.image}"
        )
        # What comes with AOS and nobody asked for yet stops nothing.
        is_error = profile.name == DEFAULT or name is None
        yield Finding(is_error=is_error, code="image_missing", message=said, hint=hint)
    elif name and not images.state(name).is_current:
        yield _warning(
            "image_out_of_date",
            f"The image {profile.image} was built from other files than these.",
            f"Run: manage.py images build {name}",
        )


def _trial(
    driver: SandboxDriver, api: docker.APIClient, profile: Profile, most_egress: EgressMode
) -> Iterator[Finding]:
    """Make a sandbox and look at its walls from both sides."""
    opened = most_egress != EgressMode.NONE
    egress = Egress(mode=EgressMode.ALLOWLIST, allow=("listed.invalid",)) if opened else NO_EGRESS
    spec = SandboxSpec(
        image=profile.image,
        user=profile.user,
        runtime=profile.runtime,
        memory_mb=_TRIAL_MB,
        pids=_TRIAL_PIDS,
        lifetime_s=120,
        egress=egress,
    )
    try:
        with driver.start(spec, sandbox_id=f"doctor-{uuid4().hex}") as sandbox:
            yield from _confinement_findings(sandbox, profile)
            yield from _canary_findings(api, sandbox)
            yield from _network_findings(sandbox, opened=opened)
            yield from _rest_findings(sandbox)
    except SandboxError as error:
        yield _error(
            "trial_failed", f"A sandbox could not be tried: {error}", "See its reason above."
        )


def _confinement_findings(sandbox: Sandbox, profile: Profile) -> Iterator[Finding]:
    """What the kernel says from inside: an engine's own word for its walls may be wrong."""
    told = _said(sandbox, "python3", "-c", _CONFINEMENT, str(_TRIAL_MB * 2), str(_TRIAL_PIDS))
    # gVisor is a kernel of its own, which shows what it likes.
    if profile.runtime == "runsc":
        return
    walls = {name: told["status"].get(name) for name in _WALLS}
    if walls != _WALLS:
        yield _error(
            "not_confined",
            f"A sandbox is not confined as it should be: {walls}.",
            "Use an engine with its default seccomp profile that honours CapDrop and no-new-privileges.",
        )
    if told["forks"] >= _TRIAL_PIDS or told["memory"]:
        yield _error(
            "limit_not_enforced",
            f"A sandbox of {_TRIAL_PIDS} processes and {_TRIAL_MB} MB had {told['forks']} processes more"
            f" and {'' if told['memory'] else 'no '}{_TRIAL_MB * 2} MB.",
            "Enable the cgroup controllers memory and pids on this host.",
        )


def _said(sandbox: Sandbox, *argv: str) -> dict[str, Any]:
    """What a program in the sandbox prints, as JSON."""
    said = b"".join(each.data for each in sandbox.run(Command(argv=argv)) if each.fd == 1)
    try:
        told: dict[str, Any] = json.loads(said)
    except ValueError as error:
        detail = f"a trial program said {said[:100]!r}."
        raise SandboxUnavailable(driver="docker", detail=detail) from error
    return told


def _canary_findings(api: docker.APIClient, sandbox: Sandbox) -> Iterator[Finding]:
    canary = f"canary-{secrets.token_hex(16)}"
    began = time.time() - 1
    sandbox.put_files({"in/canary": canary.encode()})
    sandbox.run(
        Command(argv=("sh", "-c", "cat in/canary $1", "sh", "in/canary"), env={"CANARY": canary})
    ).wait()
    events = api.get(
        f"{api.base_url}/v{api.api_version}/events",
        params={"since": f"{began:.0f}", "until": f"{time.time():.9f}"},
        timeout=_ENGINE_TIMEOUT_S,
    )
    seen = json.dumps(api.inspect_container(sandbox.handle)) + events.text
    if canary in seen:
        yield _error(
            "canary_leaked",
            "What a run is given shows in what the engine tells about its container.",
            "Do not run anything secret here, and report this with the engine's version.",
        )


def _network_findings(sandbox: Sandbox, *, opened: bool) -> Iterator[Finding]:
    told = _said(sandbox, "python3", "-c", _PROBE, *(_DENIED if opened else ()))
    if told["links"] != ["lo"]:
        yield _error(
            "network_interface",
            f"A sandbox has network interfaces: {', '.join(map(str, told['links']))[:200]}.",
            "Use an engine that honours NetworkMode none.",
        )
    if [answer for answer in told["answers"] if answer != 403]:
        yield _error(
            "denied_host_reached",
            f"The proxy did not refuse what nobody listed: {str(told['answers'])[:300]}.",
            "Look at AOS_EGRESS_FOLDER: worker and engine must see the same folder.",
        )


def _rest_findings(sandbox: Sandbox) -> Iterator[Finding]:
    """Whether what idles can stand still, be put away, and go on. Without it sandboxes just wait."""
    try:
        sandbox.put_files({"kept": b"1"})
        contents = sandbox.snapshot(io.BytesIO())
        sandbox.resume()
        sandbox.ping()
    except SandboxError as error:
        fault = str(error)
    else:
        if contents.size:
            return
        fault = "the archive of its workspace is empty"
    yield _warning(
        "no_rest",
        f"An idle sandbox cannot be paused and put away: {fault[:300]}",
        "Set AOS_SANDBOX_IDLE_PAUSE_SECONDS=0 and AOS_SANDBOX_SNAPSHOT_SECONDS=0 on this host, "
        "or use an engine with the cgroup freezer.",
    )


def _error(code: str, message: str, hint: str) -> Finding:
    return Finding(is_error=True, code=code, message=message, hint=hint)


def _warning(code: str, message: str, hint: str) -> Finding:
    return Finding(is_error=False, code=code, message=message, hint=hint)
