"""What can go wrong with a sandbox, each by its name.

The codes are API: runs store them, retry policies list them, people read the sentence.
``retryable`` says whether the same attempt on a fresh sandbox may end differently.
"""

from __future__ import annotations

from http import HTTPStatus

from apps.core.errors import AosError


class SandboxError(AosError):
    """Anything a caller of a sandbox may want to catch."""

    code = "sandbox_error"
    title = "Sandbox error"
    status = HTTPStatus.BAD_GATEWAY
    template = "{detail}"


class SandboxSpecInvalid(SandboxError):
    """The agent version asks for a limit that does not exist or is out of bounds. Edit it."""

    code = "sandbox_spec_invalid"
    title = "Invalid sandbox limits"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    template = "The sandbox limit {field!r} is wrong: {rule}."


class EgressNotAllowed(SandboxError):
    """The operator of the workers' hosts allows less of the network than the version asks for."""

    code = "egress_not_allowed"
    title = "Network access not allowed"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    template = (
        "The agent asks for network access {wanted!r}; this host allows {most!r} at most "
        "(AOS_SANDBOX_EGRESS)."
    )


class ProfileUnknown(SandboxError):
    """The version names a profile that the worker's host does not have."""

    code = "sandbox_profile_unknown"
    title = "Sandbox profile unknown"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    template = "This host has no sandbox profile {name!r}. It has: {known}."


class ProfilesInvalid(SandboxError):
    """The operator's file of profiles cannot be used. No run is executed with half of it."""

    code = "sandbox_profiles_invalid"
    title = "Sandbox profiles invalid"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    template = "The sandbox profiles in {path} cannot be used: {detail}"


class RuntimeMissing(SandboxError):
    code = "runtime_missing"
    title = "Container runtime missing"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    template = (
        "The engine of this host does not know the runtime {runtime!r} that the profile names."
    )


class SandboxUnavailable(SandboxError):
    """The engine does not answer, or refused for a reason of its own. Nothing was executed."""

    code = "sandbox_unavailable"
    title = "Sandbox engine unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    retryable = True
    template = "The {driver} sandbox driver cannot work now: {detail}"


class LocalSandboxRefused(SandboxError):
    """The local driver isolates nothing, so it exists for development only."""

    code = "local_sandbox_refused"
    title = "Local sandboxes refused"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    template = (
        "The local sandbox driver isolates nothing and is refused here. "
        "Set AOS_SANDBOX_DRIVER=docker and start a Docker engine."
    )


class ImageMissing(SandboxError):
    code = "image_missing"
    title = "Sandbox image missing"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    template = "There is no sandbox image {image!r} on this host. Run: manage.py images build"


class ImageUnfit(SandboxError):
    """A container started but no supervisor answered in it."""

    code = "image_unfit"
    title = "Sandbox image unfit"
    template = (
        "The sandbox image {image!r} has no working supervisor at /opt/aos/sbx.py ({detail}). "
        "Run: manage.py images build --force"
    )


class ImageBuildFailed(SandboxError):
    code = "image_build_failed"
    title = "Image build failed"
    template = "The sandbox image {image!r} cannot be built: {detail}"


class SandboxExists(SandboxError):
    """A sandbox id was used before. A sandbox is never used twice: take a new id."""

    code = "sandbox_exists"
    title = "Sandbox exists"
    status = HTTPStatus.CONFLICT
    template = "There is already a sandbox called {sandbox_id!r}."


class SandboxLost(SandboxError):
    """The sandbox ended, or fell silent, while it was in use. What it did is unknown."""

    code = "sandbox_lost"
    title = "Sandbox lost"
    retryable = True
    template = "The sandbox was lost while in use: {detail}"


class SandboxProtocolError(SandboxError):
    """The sandbox said something the protocol forbids: its supervisor was tampered with.

    Not retryable: code that does this once will do it again.
    """

    code = "sandbox_protocol"
    title = "Sandbox protocol broken"
    template = "The sandbox broke the session protocol: {detail}"


class SandboxKilled(SandboxError):
    """Somebody killed the sandbox, as one does to cancel a run."""

    code = "sandbox_killed"
    title = "Sandbox killed"
    status = HTTPStatus.CONFLICT
    template = "The sandbox was killed."


class FileRefused(SandboxError):
    """A file could not be written to or read from the workspace."""

    code = "file_refused"
    title = "File refused"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    template = "The sandbox file {path!r} cannot be used: {detail}"


class WorkspaceFull(SandboxError):
    code = "workspace_full"
    title = "Workspace full"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    template = "The sandbox has no room for {path!r}. Raise workspace_mb or put fewer files there."


class CommandFailed(SandboxError):
    code = "command_failed"
    title = "Command failed"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    template = "The command ended with {ending}."


class CommandTimedOut(SandboxError):
    code = "command_timed_out"
    title = "Command timed out"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    template = "The command ran longer than its limit of {limit_s:g} s and was ended."


class OutOfMemory(SandboxError):
    code = "out_of_memory"
    title = "Out of memory"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    template = "The command used more memory than its sandbox has and was ended by the kernel."


class ArtifactRejected(SandboxError):
    """Files that match the declared patterns are not acceptable. The first one is named."""

    code = "artifact_rejected"
    title = "Artifact rejected"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    template = "The artifact {name!r} was rejected: {reason} ({count} rejected in all)."


class SnapshotTooLarge(SandboxError):
    """The workspace is more than may be kept of it. The sandbox stays as it was: paused."""

    code = "snapshot_too_large"
    title = "Snapshot too large"
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    template = (
        "The workspace cannot be kept: its {what} is over the limit. "
        "Leave less in it, or raise AOS_SANDBOX_SNAPSHOT_MB."
    )
