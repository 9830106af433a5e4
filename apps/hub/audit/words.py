"""Audit entries as sentences: what the actor did, in words that need no code beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from apps.events.models import AuditEntry
from apps.identity import denials

REFUSED: Final = denials.ACTION
# What comes after the actor's name. The first sentence is taken whose every {word} is known: from the
# entry's detail, from the new values of what changed, or ``resource``, the name of the thing itself.
SENTENCES: Final[Mapping[str, tuple[str, ...]]] = {
    REFUSED: ("was refused {resource}: {because}", "was refused {resource}"),
    "agent.change": ("changed the agent {resource}",),
    "agent.draft": ("drafted version {version} of the agent {resource}",),
    "agent.pause": ("paused the agent {agent}",),
    "agent.register": ("registered the agent {title}", "registered the agent {resource}"),
    "agent.release": ("released version {version} of the agent {resource}",),
    "agent.remove": ("deleted the agent {resource}",),
    "agent.resume": ("resumed the agent {agent}",),
    "audit.export": ("exported the audit log as {form}",),
    "binding.change": ("changed a role",),
    "binding.create": ("gave a role",),
    "binding.delete": ("took away a role: {row}",),
    "binding.grant": (
        "gave {user} the role {role} over the {scope} {place}",
        "gave {department} the role {role} over the {scope} {place}",
        "gave {user} the role {role} over the {scope}",
        "gave {department} the role {role} over the {scope}",
    ),
    "binding.revoke": (
        "took the role {role} over the {scope} {place} from {user}",
        "took the role {role} over the {scope} {place} from {department}",
        "took the role {role} over the {scope} from {user}",
        "took the role {role} over the {scope} from {department}",
    ),
    "department.change": ("changed the department {resource}",),
    "department.create": ("made the department {name}", "made the department {resource}"),
    "department.join": ("added {user} to the department {department}",),
    "department.leave": ("removed {user} from the department {department}",),
    "department.remove": ("removed the department {department}",),
    "department.rename": ("renamed a department to {name}",),
    "environment.change": ("changed the environment {name}",),
    "environment.clone": ("made the environment {name} like {source}",),
    "environment.create": ("made the environment {name}",),
    "environment.remove": ("removed the environment {name}",),
    "file.write": ("stored the file {name} in {project}",),
    "limit.change": ("changed the limit of {resource}",),
    "limit.remove": ("took the limit of {resource} away",),
    "limit.set": ("set a limit for {resource}",),
    "organization.change": ("changed the organization",),
    "organization.found": ("founded the organization, with {owner} as its owner",),
    "project.change": ("changed the project {resource}",),
    "project.create": ("made the project {name}", "made the project {resource}"),
    "proposal.accept": ("agreed that {user} becomes an owner, as {proposed_by} proposed",),
    "proposal.decline": ("declined that {user} becomes an owner, as {proposed_by} proposed",),
    "proposal.make": ("proposed {user} as an owner",),
    "provider.connect": ("connected {user} with {issuer}",),
    "provider.disconnect": ("disconnected {user} from {issuer}",),
    "queue.cap": ("changed the cap of the queue {resource}",),
    "queue.pause": ("paused the queue {resource}",),
    "queue.resume": ("resumed the queue {resource}",),
    "retention.remove": ("let ended runs be kept as long as the platform keeps them",),
    "retention.set": ("decided how long ended runs are kept",),
    "run.bulk": ("asked to {verb} {count} runs of {project}",),
    "run.bulk_proceed": ("let a bulk act go on: {verb} {count} runs of {project}",),
    "run.bulk_stop": ("stopped a bulk act: {verb} {count} runs of {project}",),
    "run.cancel": ("asked to cancel the run {resource}",),
    "run.cancel_children": ("cancelled {count} children of runs that have ended",),
    "run.cancel_many": ("cancelled {count} runs in a bulk act",),
    "run.dependency_failed": ("ended {count} runs that depend on one that did not succeed",),
    "run.dismiss": ("dismissed the dead letter of the run {resource}",),
    "run.dismiss_many": ("dismissed {count} dead letters in a bulk act",),
    "run.remove_ended": ("removed {count} runs that had ended more than {days} days ago",),
    "run.requeue": ("requeued the dead run {resource}",),
    "run.rerun": ("ran {agent} again in {project}",),
    "run.rerun_many": ("ran {count} runs of {agent} again in {project}",),
    "run.submit": ("submitted a run of {agent} in {project}",),
    "run.submit_many": ("submitted {count} runs of {agent} in {project}",),
    "schedule.change": ("changed the schedule {name}",),
    "schedule.create": ("made the schedule {name}",),
    "schedule.fire": ("came to a time of a schedule: {outcome}",),
    "schedule.pause": ("paused the schedule {name}", "paused a schedule"),
    "schedule.remove": ("removed the schedule {name}",),
    "schedule.resume": ("resumed the schedule {name}",),
    "second_factor.begin": ("began to set up an authenticator app",),
    "second_factor.confirm": ("turned their authenticator app on",),
    "second_factor.recover": ("used a recovery code",),
    "second_factor.reseal": ("moved the authenticator app's secret to the new key",),
    "second_factor.remove": ("removed their authenticator app",),
    "second_factor.reset": ("took the second factor of {user} away",),
    "service_account.add": ("made the service account {user}",),
    "session.begin": ("signed in with {how}", "signed in"),
    "session.end": ("signed out",),
    "session.revoke": ("signed {user} out of a browser",),
    "token.issue": ("made the API token {name}",),
    "token.revoke": ("revoked the API token {resource}",),
    "user.add": ("added {resource}",),
    "user.change": ("changed the account of {resource}",),
    "user.deactivate": ("shut {user} out",),
    "user.password": ("changed their password",),
    "user.password_rehash": ("had their password stored under a stronger hash",),
    "user.password_reset": ("set a new password for {user}",),
    "user.reactivate": ("let {user} in again",),
}
_BECAUSE: Final = {
    "not_allowed": "no role allows it",
    "scope_missing": "the token lacks the scope",
    "step_up_required": "the proof of who they are was too old",
    # Why a run was refused its way out of the sandbox.
    "not_listed": "the agent's version does not list this host",
    "internal_address": "the address is not on the public Internet",
    "odd_spelling": "the address is spelled in a way that hides where it leads",
    "bad_request": "the request is not one that can be checked",
    "too_many_connections": "too many connections were open at once",
    "too_many_bytes": "the limit of bytes was reached",
}
_ICONS: Final = {
    "action": "ban",
    "agent": "robot",
    "audit_log": "clipboard-list",
    "binding": "shield-check",
    "department": "users",
    "environment": "box",
    "file": "file-text",
    "project": "folders",
    "run": "player-play",
    "schedule": "clock",
    "session": "device-desktop",
    "token": "key",
    "user": "user",
}


def sentence(entry: AuditEntry, *, resource: str) -> str:
    """What the actor did. An action that has no sentence is said by its name."""
    known = _known(entry) | {"resource": resource}
    for template in SENTENCES.get(entry.action, ()):
        try:
            return template.format_map(known)
        except KeyError:
            continue
    return f"did {entry.action} on {entry.resource_type} {resource}"


def _known(entry: AuditEntry) -> dict[str, str]:
    changed: Mapping[str, Any] = entry.detail.get("changes", {})
    known = {name: _said(new) for name, (_, new) in changed.items() if new is not None}
    known |= {
        name: _said(value)
        for name, value in entry.detail.items()
        if name != "changes" and value is not None
    }
    if "reason" in known:
        known["because"] = _BECAUSE.get(known["reason"], known["reason"])
    return known


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def icon(entry: AuditEntry) -> str:
    return _ICONS.get(entry.resource_type, "history")


def is_refusal(entry: AuditEntry) -> bool:
    return entry.action == REFUSED


def actions(*, chosen: str = "") -> dict[str, list[str]]:
    """The actions to choose from, by kind, each kind headed by all of it; ``chosen`` among them."""
    found: dict[str, list[str]] = {}
    for action in sorted({*SENTENCES, chosen} - {"", REFUSED}):
        kind = action.partition(".")[0]
        listed = found.setdefault(kind, [f"{kind}.*"])
        if action not in listed:
            listed.append(action)
    return found


def resources(*, chosen: str = "") -> list[str]:
    return sorted({*_ICONS, chosen} - {""})
