"""Building the sandbox images, each from one folder below ``sandbox_images/``.

An image carries the digest of its folder as a label, so whether it is up to date is one question to
the engine. The base image comes from a registry, or, where none can be reached, from Debian packages
(``debootstrap``). Built with the engine's own builder: no buildx, no command-line client.

An image may stand on another of ours, and may have a ``requirements.txt``: its wheels are fetched and
unpacked here, with their hashes checked, and go into the build as ``packages/``. So no build needs the
network, and nothing of a package is executed before it is in a sandbox.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import docker
import requests
from docker.errors import APIError, DockerException

from workers.sandbox import engine
from workers.sandbox.engine import one_line
from workers.sandbox.errors import ImageBuildFailed

IMAGES_FOLDER: Final = Path(__file__).parents[2] / "sandbox_images"
DIGEST_LABEL: Final = "aos.image.digest"
BASE_LABEL: Final = "aos.image.base"
OFFLINE_BASE: Final = "aos/offline-base:bookworm"

_SUITE: Final = "bookworm"
_PACKAGES: Final = "python3,ca-certificates"
_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
#: What a sandbox never reads: package lists, manuals, translations.
_LEFT_OUT: Final = ("./dev/*", "./var/cache/apt", "./var/lib/apt/lists", "./usr/share/doc")
_LEFT_OUT_TOO: Final = ("./usr/share/man", "./usr/share/locale", "./var/log/*")
_ENGINE_TIMEOUT_S: Final = 300
_OLD_WORDS: Final = 15
#: What the base images run, so that wheels fit them and not this host.
_PYTHON: Final = "3.11"
_PLATFORMS: Final = ("manylinux_2_28", "manylinux_2_24", "manylinux_2_17", "manylinux2014")

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageState:
    """One image folder and what the engine has of it."""

    name: str
    tag: str
    is_built: bool
    is_current: bool
    base: str
    #: The exact image, and its bytes with all it stands on; empty and 0 when it is not built.
    digest: str = ""
    size: int = 0
    #: When the engine says it was made, as RFC 3339 has it; empty when it is not built.
    built_at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    tag: str
    #: False when the image was up to date already.
    is_new: bool


def tag_of(name: str) -> str:
    return f"aos/sandbox-{name}:latest"


def names() -> list[str]:
    return sorted(path.parent.name for path in IMAGES_FOLDER.glob("*/Dockerfile"))


def folder_digest(name: str) -> str:
    """Changes exactly when something changes that goes into the image."""
    parent = _parent(name)
    digest = hashlib.sha256(folder_digest(parent).encode() if parent else b"")
    for path, arcname in _files(name):
        executable = os.access(path, os.X_OK)
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{arcname}\0{executable:d}\0{content}\n".encode())
    return digest.hexdigest()


def state(name: str) -> ImageState:
    with engine.session(timeout_s=_ENGINE_TIMEOUT_S) as api:
        found = engine.find_image(api, tag_of(name)) or {}
    marks = dict(found["Config"].get("Labels") or {}) if found else None
    return ImageState(
        name=name,
        tag=tag_of(name),
        is_built=marks is not None,
        is_current=marks is not None and marks.get(DIGEST_LABEL) == folder_digest(name),
        base=(marks or {}).get(BASE_LABEL, ""),
        digest=found.get("Id", ""),
        size=found.get("Size", 0),
        built_at=found.get("Created", ""),
    )


def strange(tag: str) -> ImageState:
    """The same of an image that is not built from a folder of ours."""
    with engine.session(timeout_s=_ENGINE_TIMEOUT_S) as api:
        found = engine.find_image(api, tag) or {}
    return ImageState(
        name="",
        tag=tag,
        is_built=bool(found),
        is_current=bool(found),
        base="",
        digest=found.get("Id", ""),
        size=found.get("Size", 0),
        built_at=found.get("Created", ""),
    )


def build(
    name: str, *, progress: Progress, offline_base: bool = False, force: bool = False
) -> Built:
    """Make one image unless it is up to date. Raises ``ImageBuildFailed`` with the next step."""
    if name not in names():
        known = ", ".join(names())
        raise ImageBuildFailed(image=name, detail=f"there is no such image; there are: {known}.")
    tag, digest = tag_of(name), folder_digest(name)
    if parent := _parent(name):
        build(parent, progress=progress, offline_base=offline_base)
    with engine.session(timeout_s=_ENGINE_TIMEOUT_S) as api:
        marks = _labels(api, tag)
        if not force and marks and marks.get(DIGEST_LABEL) == digest:
            return Built(tag=tag, is_new=False)
        base = tag_of(parent) if parent else ""
        base = base or _base(api, name, progress, offline=offline_base, force=force)
        progress(f"Building {tag} on {base}.")
        stamp = {DIGEST_LABEL: digest, BASE_LABEL: base}
        old = engine.find_image(api, tag)
        with _packages(name, progress) as packages, _context(name, packages) as context:
            _build(api, name, base=base, stamp=stamp, context=context)
        _forget(api, old)
    return Built(tag=tag, is_new=True)


# --- the base ---


def _base(
    api: docker.APIClient, name: str, progress: Progress, *, offline: bool, force: bool
) -> str:
    public = _public_base(name)
    if not offline:
        if _labels(api, public) is not None:
            return public
        progress(f"Pulling {public}.")
        try:
            _pull(api, public)
        except (DockerException, requests.RequestException) as error:
            progress(
                f"The registry cannot give {public} ({one_line(error)}). "
                "Making a base from Debian packages instead."
            )
        else:
            return public
    if force or _labels(api, OFFLINE_BASE) is None:
        _make_offline_base(api, progress)
    return OFFLINE_BASE


def _parent(name: str) -> str:
    """The image of ours that this one stands on, if it does."""
    ours = {tag_of(each): each for each in names()}
    return ours.get(_public_base(name), "")


def _public_base(name: str) -> str:
    text = (IMAGES_FOLDER / name / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"^ARG BASE=(\S+)$", text, re.MULTILINE)
    if not found:
        raise ImageBuildFailed(image=name, detail="its Dockerfile has no line ARG BASE=<image>.")
    return found[1]


def _pull(api: docker.APIClient, image: str) -> None:
    repository, _, tag = image.partition(":")
    for step in api.pull(repository, tag=tag or "latest", stream=True, decode=True):
        if "error" in step:
            raise DockerException(step["error"])


def _make_offline_base(api: docker.APIClient, progress: Progress) -> None:
    tool = _debootstrap()
    progress(f"Fetching and unpacking Debian {_SUITE} (about half a minute).")
    with tempfile.TemporaryDirectory(prefix="aos-base-") as folder:
        _run_debootstrap(tool, folder, progress)
        progress(f"Importing {OFFLINE_BASE}.")
        with _packed(folder) as stream:
            repository, _, tag = OFFLINE_BASE.partition(":")
            api.import_image_from_stream(stream, repository=repository, tag=tag)
    if _labels(api, OFFLINE_BASE) is None:
        raise ImageBuildFailed(image=OFFLINE_BASE, detail="the engine did not import it.")


def _debootstrap() -> str:
    """The tool, when all it needs is here; otherwise a sentence that says what to do."""
    tool = shutil.which("debootstrap", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if tool is None or not _KEYRING.exists():
        raise ImageBuildFailed(
            image=OFFLINE_BASE,
            detail="debootstrap and Debian's keys are not installed. "
            "Run: apt-get install debootstrap debian-archive-keyring",
        )
    if os.geteuid() != 0:
        raise ImageBuildFailed(
            image=OFFLINE_BASE,
            detail="making a base from packages needs root. Run the same command with sudo, "
            "or make a container registry reachable.",
        )
    return tool


def _run_debootstrap(tool: str, folder: str, progress: Progress) -> None:
    command = [tool, "--variant=minbase", f"--include={_PACKAGES}", "--force-check-gpg"]
    last: list[str] = []
    with subprocess.Popen(  # noqa: S603 - fixed words and a folder we made
        [*command, f"--keyring={_KEYRING}", _SUITE, folder],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for count, line in enumerate(process.stdout or ()):
            last = [*last, line.strip()][-_OLD_WORDS:]
            if count % 40 == 0 or line.startswith("I: Base system installed"):
                progress(line.strip())
    if process.returncode:
        raise ImageBuildFailed(
            image=OFFLINE_BASE,
            detail=f"debootstrap ended with code {process.returncode}: {one_line(' '.join(last[-3:]))}. "
            "Is a Debian mirror reachable?",
        )


@contextmanager
def _packed(folder: str) -> Iterator[IO[bytes]]:
    """The folder as a tar stream. The tool keeps what Python's would lose, hard links and owners."""
    tar = shutil.which("tar") or "tar"
    exclude = [f"--exclude={path}" for path in (*_LEFT_OUT, *_LEFT_OUT_TOO)]
    with subprocess.Popen(  # noqa: S603 - fixed words and a folder we made
        [tar, "--numeric-owner", *exclude, "-C", folder, "-c", "."],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        if process.stdout is None:
            raise AssertionError("a pipe was asked for")
        yield process.stdout
    if process.returncode:
        raise ImageBuildFailed(image=OFFLINE_BASE, detail="tar could not pack the base.")


# --- the image ---


@contextmanager
def _packages(name: str, progress: Progress) -> Iterator[Path | None]:
    """A folder with the locked packages of an image, where it has any: wheels, or Node.js modules."""
    wheels = IMAGES_FOLDER / name / "requirements.txt"
    modules = IMAGES_FOLDER / name / "package-lock.json"
    if not wheels.exists() and not modules.exists():
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="aos-packages-") as folder:
        if wheels.exists():
            progress(f"Fetching the wheels that {name}/{wheels.name} names.")
            _fetch_wheels(name, wheels, folder)
        if modules.exists():
            progress(f"Fetching the modules that {name}/{modules.name} names.")
            _fetch_modules(name, modules, folder)
        yield Path(folder)


def _fetch_wheels(name: str, wanted: Path, folder: str) -> None:
    machine = platform.machine()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--require-hashes", "--only-binary=:all:", "--no-compile", "--requirement", str(wanted)]
    pip += ["--python-version", _PYTHON, "--implementation", "cp"]
    pip += [f"--platform={word}_{machine}" for word in _PLATFORMS]
    done = subprocess.run(  # noqa: S603 - fixed words and files of ours
        [*pip, "--target", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        detail = f"its wheels cannot be had: {one_line(done.stderr)}"
        raise ImageBuildFailed(image=tag_of(name), detail=detail)


def _fetch_modules(name: str, lock: Path, folder: str) -> None:
    """Exactly what the lock names, by its sums; no script of a package runs here."""
    npm = shutil.which("npm")
    if npm is None:
        detail = "npm is not installed on this host. Run: apt-get install npm"
        raise ImageBuildFailed(image=tag_of(name), detail=detail)
    for file in (lock, lock.with_name("package.json")):
        shutil.copy(file, folder)
    done = subprocess.run(  # noqa: S603 - fixed words and files of ours
        [npm, "ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--no-bin-links"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        detail = f"its modules cannot be had: {one_line(done.stderr)}"
        raise ImageBuildFailed(image=tag_of(name), detail=detail)


def _build(
    api: docker.APIClient, name: str, *, base: str, stamp: dict[str, str], context: IO[bytes]
) -> None:
    said: list[str] = []
    steps = api.build(
        fileobj=context,
        custom_context=True,
        tag=tag_of(name),
        buildargs={"BASE": base},
        labels=stamp,
        rm=True,
        forcerm=True,
        decode=True,
    )
    for step in steps:
        said = [*said, str(step.get("stream", "")).strip()][-_OLD_WORDS:]
        if "error" in step:
            detail = f"{one_line(step['error'])} ({one_line(' '.join(said[-3:]))})"
            raise ImageBuildFailed(image=tag_of(name), detail=detail)


@contextmanager
def _context(name: str, packages: Path | None) -> Iterator[IO[bytes]]:
    """The folder as the engine wants it, with nothing that differs between two machines."""
    files = _files(name)
    if packages:
        unpacked = sorted(path for path in packages.rglob("*") if path.is_file())
        files += [(path, f"packages/{path.relative_to(packages)}") for path in unpacked]
    with tempfile.TemporaryFile(prefix="aos-context-") as packed:
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for path, arcname in files:
                member = tarfile.TarInfo(arcname)
                member.size = path.stat().st_size
                member.mode = 0o755 if os.access(path, os.X_OK) else 0o644
                with path.open("rb") as file:
                    archive.addfile(member, file)
        packed.seek(0)
        yield packed


def _files(name: str) -> list[tuple[Path, str]]:
    folder = IMAGES_FOLDER / name
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return sorted(
        (path, inside.as_posix())
        for inside, path in found.items()
        if "__pycache__" not in inside.parts
        and not inside.parts[0].startswith(".")
        and inside.suffix not in {".md", ".pyc"}
    )


# --- the engine ---


def _labels(api: docker.APIClient, image: str) -> dict[str, str] | None:
    """An image's labels, or None when the engine does not have it."""
    found = engine.find_image(api, image)
    return None if found is None else dict(found["Config"].get("Labels") or {})


def _forget(api: docker.APIClient, old: dict[str, Any] | None) -> None:
    """Remove the image that a new one replaced, unless something still uses it."""
    if old:
        with suppress(APIError):
            api.remove_image(old["Id"])
