"""Bad input in real containers: archives, frames and names that nobody decent sends."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

import docker
import pytest

from tests.contracts.engine import IMAGE, INSTANCE, required_driver, small_spec
from tests.contracts.sandbox_driver import a_long_sleep, becomes_true, said, sh, sleepers
from tests.sandbox import hostile
from workers.sandbox.artifacts import ArtifactLimits
from workers.sandbox.base import Command, Sandbox
from workers.sandbox.errors import FileRefused, SandboxError, SandboxProtocolError

pytestmark = pytest.mark.docker

LIMITS = ArtifactLimits(file_bytes=1_000_000, total_bytes=4_000_000, count=500)
GENERATED = 40
MANY = 2000


@pytest.fixture(scope="module")
def hostile_image(driver) -> Iterator[str]:
    with built(GENERATED) as tag:
        yield tag


@pytest.fixture(scope="module")
def talkative_image(driver) -> Iterator[str]:
    with built(MANY) as tag:
        yield tag


@contextmanager
def built(count) -> Iterator[str]:
    """The base image with another supervisor, and what it says, built on the engine."""
    api = docker.APIClient(version="auto")
    tag = f"aos/test-hostile-{count}-{INSTANCE.lower()}:latest"
    files = {"Dockerfile": f"FROM {IMAGE}\nCOPY . /opt/aos/\n".encode()}
    files["sbx.py"] = hostile.SUPERVISOR.encode()
    files |= {f"archives/{key(name)}": data for name, data in archives(count).items()}
    files |= {f"frames/{key(name)}": data for name, data in frames(count).items()}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))
    packed.seek(0)
    for step in api.build(fileobj=packed, custom_context=True, tag=tag, rm=True, decode=True):
        assert "error" not in step, step
    yield tag
    api.remove_image(tag, force=True)
    api.close()


def archives(count):
    return hostile.crafted() | hostile.mutated(count, seed=5)


def frames(count):
    return hostile.frames(count=count, seed=6)


def key(name):
    return name.replace(" ", "_").replace(":", "").replace("'", "")


class Box:
    """A sandbox with the hostile supervisor, made anew when it was given up."""

    def __init__(self, driver, image) -> None:
        self._driver = driver
        self._image = image
        self._open: Sandbox | None = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.give_up()

    def sandbox(self) -> Sandbox:
        if self._open is None:
            spec = small_spec(image=self._image)
            self._open = self._driver.start(spec, sandbox_id=str(uuid4()))
        return self._open

    def give_up(self) -> None:
        if self._open is not None:
            self._open.destroy()
            self._open = None


class Sink:
    def __init__(self) -> None:
        self.names: list[str] = []
        self.size = 0

    def open(self, name, *, size):
        self.names.append(name)
        return self

    def write(self, data, /):
        self.size += len(data)

    def keep(self, *, sha256): ...

    def discard(self): ...


def unharmed(box, name) -> str:
    """Collect one archive; say how it ended, having checked that nothing bad came of it."""
    sink = Sink()
    started = time.monotonic()
    try:
        found = box.sandbox().collect([f"~{key(name)}~", "**"], sink=sink, limits=LIMITS)
    except SandboxProtocolError:
        box.give_up()
        found = None
    assert time.monotonic() - started < 10, name
    assert sink.size <= LIMITS.total_bytes + LIMITS.file_bytes, name
    assert len(sink.names) <= LIMITS.count, name
    for each in sink.names:
        assert each.isprintable(), name
        assert not {"", ".", ".."} & set(each.split("/")), name
        assert "\\" not in each, name
    if found is None:
        return "protocol"
    return "refused" if found.rejections else "taken"


def all_unharmed(driver, image, streams):
    with Box(driver, image) as box:
        return {name: unharmed(box, name) for name in streams}


def test_crafted_archives_from_a_container_harm_nothing(driver, hostile_image):
    streams = hostile.crafted()

    ends = all_unharmed(driver, hostile_image, streams)

    assert len(streams) >= 60
    # Rights are not kept, a name ends at its NUL, and what follows the end is not read.
    innocent = {"rights of its owner", "words after the end", "long name of nothing"}
    innocent |= {"name: nul", "one empty block"}
    assert {name for name, end in ends.items() if end == "taken"} <= innocent


def test_generated_archives_from_a_container_harm_nothing(driver, hostile_image):
    ends = all_unharmed(driver, hostile_image, hostile.mutated(GENERATED, seed=5))

    assert len(ends) == GENERATED


@pytest.mark.proof
def test_thousands_of_generated_archives_from_a_container_harm_nothing(driver, talkative_image):
    ends = all_unharmed(driver, talkative_image, hostile.mutated(MANY, seed=5))

    print({end: list(ends.values()).count(end) for end in sorted(set(ends.values()))})


def answered(box, name):
    """Ask; the answer must be an answer or an error of ours, and come in time."""
    started = time.monotonic()
    try:
        data = box.sandbox().read_file(key(name), limit=1_000_000)
        end = "answer"
        assert len(data) <= 1_000_000
    except FileRefused:
        end = "refused"
    except SandboxError as error:
        end = error.code
    box.give_up()
    assert time.monotonic() - started < 15, name
    return end


@pytest.fixture
def impatient():
    driver = required_driver(silence_s=1, patience_s=1)
    yield driver
    driver.close()


def test_hostile_frames_from_a_container_are_errors_of_ours(impatient, hostile_image):
    said_by = [*frames(0), "silence", "the end"]

    with Box(impatient, hostile_image) as box:
        ends = {name: answered(box, name) for name in said_by}

    assert set(ends.values()) <= {"sandbox_protocol", "sandbox_lost", "answer"}
    # What was announced never comes.
    lost = {"silence", "the end", "fewer bytes", "an end that is swallowed"}
    assert {name for name, end in ends.items() if end == "sandbox_lost"} == lost
    assert "answer" not in ends.values()
    assert len(ends) >= 44


@pytest.mark.proof
def test_hundreds_of_generated_frames_from_a_container_are_errors_of_ours(
    impatient, talkative_image
):
    generated = [name for name in frames(300) if name.startswith("generated")]

    with Box(impatient, talkative_image) as box:
        ends = {name: answered(box, name) for name in generated}

    print({end: list(ends.values()).count(end) for end in sorted(set(ends.values()))})
    assert set(ends.values()) <= {"sandbox_protocol", "sandbox_lost", "answer", "refused"}


def test_five_hundred_names_lead_nowhere_outside_the_workspace(sandbox):
    said(sandbox, sh("ln -s /etc link; mkdir -p a x; echo inside > a/file"))
    outside = "find / -xdev -newer /workspace/mark -not -path '/proc/*' -not -path '/workspace/*'"
    outside += " -type f; find /tmp /run/aos /dev/shm -mindepth 1"
    sandbox.put_files({"mark": b""})
    names = hostile.paths(500, seed=3)
    read, written = [], 0

    for name in names:
        with suppress(FileRefused):
            read.append(sandbox.read_file(name))
        with suppress(FileRefused):
            sandbox.put_files({name: b"written"})
            written += 1

    assert len(names) == 500
    assert all(data in {b"written", b"inside\n", b""} for data in read)
    assert written > 50  # strange names inside are names all the same
    assert said(sandbox, sh(outside)) == ""
    assert (
        said(sandbox, sh("cat /etc/passwd | head -c 4; cat link/passwd | head -c 4")) == "rootroot"
    )


def test_a_zombie_maker_is_bounded_and_its_dead_are_gone_with_its_command(sandbox):
    amount = a_long_sleep()
    maker = (
        "import os, time\n"
        "made = 0\n"
        "while made < 1000:\n"
        "    try: child = os.fork()\n"
        "    except OSError: break\n"
        "    if child == 0: os._exit(0)\n"
        "    made += 1\n"
        f"os.system('setsid sleep {amount} &')\n"
        "print(made, flush=True)\n"
    )

    made = int(said(sandbox, Command(argv=("python3", "-c", maker))).split()[0])
    dead = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l"

    assert 10 < made < 64  # its limit of processes
    assert becomes_true(lambda: sleepers(amount) == 0)
    assert becomes_true(lambda: int(said(sandbox, sh(dead))) == 0)
    assert said(sandbox, sh("echo usable")) == "usable\n"
