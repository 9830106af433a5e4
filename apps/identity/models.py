"""People and service accounts, the organization they belong to, the roles bound to them, and their API
tokens."""

from __future__ import annotations

from typing import ClassVar, Final, Self

from django.contrib.auth.hashers import check_password
from django.contrib.auth.models import AbstractUser, UserManager
from django.contrib.postgres.expressions import ArraySubquery
from django.contrib.postgres.fields import ArrayField
from django.contrib.sessions.models import Session
from django.db import models
from django.db.models import Exists, Func, OuterRef, Q
from django.db.models.functions import Now

from apps.core import clock
from apps.core.models import BaseModel, uuid7
from apps.identity.types import ProposalState, Role, Scope, UserKind, at_least


class Organization(BaseModel):
    """The tenant. Every row belongs to one, and nothing crosses from one to another."""

    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=120)

    def __str__(self) -> str:
        return self.name


class DepartmentQuerySet(models.QuerySet["Department"]):
    def visible_to(self, user: User) -> Self:
        return self.filter(organization=user.organization_id)


class Department(BaseModel):
    """A group of people who share bindings."""

    organization = models.ForeignKey(
        Organization, on_delete=models.CASCADE, related_name="departments"
    )
    name = models.CharField(max_length=120)

    objects = DepartmentQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="identity_department_one_name_each", fields=["organization", "name"]
            )
        ]

    def __str__(self) -> str:
        return self.name


class UserQuerySet(models.QuerySet["User"]):
    def visible_to(self, user: User) -> Self:
        return self.filter(organization=user.organization_id)

    def people(self) -> Self:
        return self.filter(kind=UserKind.PERSON)

    def service_accounts(self) -> Self:
        return self.filter(kind=UserKind.SERVICE)

    def with_second_factor(self) -> Self:
        """With ``has_second_factor`` on each."""
        on = SecondFactor.objects.filter(user=OuterRef("pk"), confirmed_at__isnull=False)
        return self.annotate(has_second_factor=Exists(on))


class _UserManager(UserManager["User"]):
    def get_queryset(self) -> UserQuerySet:
        return UserQuerySet(self.model, using=self._db)

    def visible_to(self, user: User) -> UserQuerySet:
        return self.get_queryset().visible_to(user)


class User(AbstractUser):
    """A person who signs in, or a service account, which never does. What they may do is said by
    bindings, never by a flag on this row."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    kind = models.CharField(
        max_length=16, choices=UserKind, default=UserKind.PERSON, editable=False
    )
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="users")
    departments = models.ManyToManyField(Department, related_name="members", blank=True)
    # Somebody else knows the password: until then it can be exchanged for one of the person's own,
    # and is good for nothing else.
    first_password_until = models.DateTimeField(null=True, editable=False)

    objects: ClassVar[_UserManager] = _UserManager()
    REQUIRED_FIELDS: ClassVar[list[str]] = ["email", "organization"]

    class Meta(AbstractUser.Meta):
        constraints = [
            # Django marks a password that fits nothing with an exclamation mark.
            models.CheckConstraint(
                name="identity_user_service_has_no_password",
                condition=~Q(kind=UserKind.SERVICE) | Q(password__startswith="!"),  # noqa: S106
            )
        ]

    def check_password(self, raw_password: str | None) -> bool:
        """As Django's, without storing a fresher hash by the way: ``passwords.refresh`` does that,
        and records it."""
        return check_password(raw_password, self.password)

    @property
    def is_service_account(self) -> bool:
        return self.kind == UserKind.SERVICE

    @property
    def initials(self) -> str:
        parts = (self.get_full_name() or self.username).split()
        return "".join(part[0] for part in parts[:2]).upper()


class AnyOf(Func):
    """``column = ANY (array)``. This uses an index, beside an OR as well; ``IN (SELECT ...)`` may read
    every row."""

    template = "%(expressions)s)"
    arg_joiner = " = ANY ("
    output_field = models.BooleanField()


class BindingQuerySet(models.QuerySet["Binding"]):
    def visible_to(self, user: User) -> Self:
        return self.filter(organization=user.organization_id)

    def of(self, user: User) -> Self:
        """Bindings that hold for this person now, own or through a department; none for one who was
        disabled."""
        if not user.is_active:
            return self.none()
        joined = user.departments.through.objects.filter(user_id=user.pk).values("department_id")
        return self.filter(
            Q(user=user) | Q(AnyOf("department_id", ArraySubquery(joined))),
            Q(expires_at=None) | Q(expires_at__gt=Now()),
            organization=user.organization_id,
        )


class Binding(BaseModel):
    """A role, held by a person, a service account or a department, over an organization or one thing
    in it.

    There are no negative bindings: what no binding allows is denied.
    """

    organization = models.ForeignKey(
        Organization, on_delete=models.CASCADE, related_name="bindings"
    )
    user = models.ForeignKey(
        User, on_delete=models.CASCADE, null=True, blank=True, related_name="bindings"
    )
    department = models.ForeignKey(
        Department, on_delete=models.CASCADE, null=True, blank=True, related_name="bindings"
    )
    role = models.CharField(max_length=16, choices=Role)
    scope = models.CharField(max_length=16, choices=Scope)
    # By value: projects, agents and runs live in storeys above.
    scope_id = models.UUIDField()
    # The key by which runs are listed, for a role over a run: a trigger writes it, so that the newest of
    # very many are found without reading runs.
    run_key = models.BigIntegerField(null=True, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    reason = models.CharField(max_length=200, blank=True)
    # The provider's group that gives this role, and takes it; empty for what people grant.
    group = models.CharField(max_length=200, blank=True, default="", db_default="", editable=False)
    granted_by = models.ForeignKey(
        User, on_delete=models.SET_NULL, null=True, editable=False, related_name="+"
    )

    objects = BindingQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="identity_binding_one_subject",
                condition=Q(user__isnull=False, department=None)
                | Q(user=None, department__isnull=False),
            ),
            models.CheckConstraint(
                name="identity_binding_organization_scope_is_own",
                condition=~Q(scope=Scope.ORGANIZATION) | Q(scope_id=models.F("organization")),
            ),
            models.UniqueConstraint(
                name="identity_binding_one_role_each",
                fields=["user", "department", "scope", "scope_id"],
                nulls_distinct=False,
            ),
        ]
        indexes = [
            models.Index(
                fields=["user", "organization", "scope", "role", "scope_id"],
                name="identity_binding_of_user",
            ),
            models.Index(
                fields=["department", "organization", "scope", "role", "scope_id"],
                name="identity_binding_of_department",
            ),
            # Those of a run that is removed go with it.
            models.Index(
                fields=["run_key"],
                name="identity_binding_of_run",
                condition=Q(run_key__isnull=False),
            ),
            # The engine asks which have just ended.
            models.Index(
                fields=["expires_at"],
                name="identity_binding_expiring",
                condition=Q(expires_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user or self.department}: {self.role} of {self.scope} {self.scope_id}"


class ProposalQuerySet(models.QuerySet["Proposal"]):
    def visible_to(self, user: User) -> Self:
        return self.filter(organization=user.organization_id)

    def waiting(self) -> Self:
        return self.filter(state=ProposalState.OPEN, expires_at__gt=Now())


class Proposal(BaseModel):
    """Somebody is to become an owner, which takes two people: one proposes it, another agrees."""

    organization = models.ForeignKey(
        Organization, on_delete=models.CASCADE, related_name="proposals"
    )
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="proposals")
    reason = models.CharField(max_length=200, blank=True)
    requested_by = models.ForeignKey(
        User, on_delete=models.PROTECT, editable=False, related_name="+"
    )
    expires_at = models.DateTimeField()
    state = models.CharField(
        max_length=16, choices=ProposalState, default=ProposalState.OPEN, editable=False
    )
    # Nobody, where it was decided from the shell.
    decided_by = models.ForeignKey(
        User, on_delete=models.PROTECT, null=True, editable=False, related_name="+"
    )
    decided_at = models.DateTimeField(null=True, editable=False)
    why = models.CharField(max_length=200, blank=True, editable=False)

    objects = ProposalQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="identity_proposal_takes_two",
                condition=~Q(state=ProposalState.ACCEPTED)
                | Q(decided_by=None)
                | ~Q(decided_by=models.F("requested_by")),
            ),
            models.CheckConstraint(
                name="identity_proposal_open_iff_undecided",
                condition=Q(state=ProposalState.OPEN, decided_at=None)
                | (~Q(state=ProposalState.OPEN) & Q(decided_at__isnull=False)),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} as owner"

    @property
    def is_waiting(self) -> bool:
        return self.state == ProposalState.OPEN and self.expires_at > clock.now()


# Not revoked, not expired, and of somebody who may sign in.
_USABLE: Final = Q(revoked_at=None, expires_at__gt=Now(), user__is_active=True)


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    def visible_to(self, user: User) -> Self:
        return self.filter(user=user)

    def usable(self) -> Self:
        return self.filter(_USABLE)

    def judged(self) -> Self:
        """With ``is_usable`` on each token."""
        return self.annotate(is_usable=_USABLE)


class ApiToken(BaseModel):
    """A bearer token of one person. Only a keyed hash is stored; the value is shown once.

    A token may do what its owner may, within its scopes; it is never worth more than its owner.
    ``allowed_networks`` are those it is taken from, in CIDR form; none means from anywhere.
    """

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=80)
    key_id = models.CharField(max_length=16, unique=True, editable=False)
    secret_hash = models.BinaryField(max_length=32, editable=False)
    scopes = ArrayField(models.CharField(max_length=64))
    allowed_networks = ArrayField(models.CharField(max_length=43), default=list, blank=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    # Only on tokens from ``judged``.
    is_usable: bool

    objects = ApiTokenQuerySet.as_manager()

    class Meta:
        verbose_name = "API token"

    def __str__(self) -> str:
        return f"{self.name} ({self.key_id})"


class SignInQuerySet(models.QuerySet["SignIn"]):
    def visible_to(self, user: User) -> Self:
        return self.filter(user=user)

    def lasting(self) -> Self:
        """Without the browsers whose session has ended by itself."""
        return self.filter(Exists(_lasting_sessions()))

    def over(self) -> Self:
        return self.exclude(Exists(_lasting_sessions()))


def _lasting_sessions() -> models.QuerySet[Session]:
    return Session.objects.filter(session_key=OuterRef("session_key"), expire_date__gt=clock.now())


class SignIn(BaseModel):
    """A browser in which a person is signed in. Deleting the session it names signs it out."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="sign_ins")
    session_key = models.CharField(max_length=40, unique=True, editable=False)
    address = models.GenericIPAddressField(null=True)
    agent = models.CharField(max_length=200, blank=True)
    seen_at = models.DateTimeField(db_default=Now())

    objects = SignInQuerySet.as_manager()

    class Meta:
        ordering = ["-seen_at"]

    def __str__(self) -> str:
        return f"{self.user} from {self.address}"


class SecondFactor(BaseModel):
    """A person's authenticator app: the secret it shares with us, encrypted.

    Counts once it is confirmed. ``last_step`` is the time step of the last code that was taken, so
    that no code is taken twice.
    """

    user = models.OneToOneField(User, on_delete=models.CASCADE, related_name="second_factor")
    sealed_secret = models.BinaryField(editable=False)
    confirmed_at = models.DateTimeField(null=True)
    last_step = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"authenticator app of {self.user}"


class RecoveryCode(BaseModel):
    """Gets a person in once when the app is gone. Only a keyed hash is stored."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="recovery_codes")
    code_hash = models.BinaryField(max_length=32, editable=False)
    used_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="identity_recoverycode_one_each", fields=["user", "code_hash"]
            )
        ]

    def __str__(self) -> str:
        return f"recovery code of {self.user}"


class ProviderAccount(BaseModel):
    """Who a person is at an OpenID provider: its issuer, and its name for them, which never changes."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="provider_accounts")
    issuer = models.CharField(max_length=255)
    subject = models.CharField(max_length=255)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="identity_provideraccount_one_person_each", fields=["issuer", "subject"]
            ),
            models.UniqueConstraint(
                name="identity_provideraccount_one_account_each", fields=["issuer", "user"]
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} at {self.issuer}"


class Withdrawal(models.Model):
    """Somebody who lost something they may have needed: their runs are looked at by the engine.

    Triggers write the rows, in the transaction of the loss, whatever caused it.
    """

    user_id = models.UUIDField()
    due_at = models.DateTimeField(db_default=Now())
    # Looked at once already, and once more for runs whose submission was under way at the time.
    is_second_look = models.BooleanField(db_default=False)

    class Meta:
        indexes = [models.Index(fields=["due_at"], name="identity_withdrawal_due")]

    def __str__(self) -> str:
        return f"{self.user_id} at {self.due_at}"


def reaching(
    user: User,
    *,
    project_ref: str | None = None,
    agent_ref: str | None = None,
    run_ref: str | None = None,
    role: Role = Role.VIEWER,
) -> Q:
    """The condition "this person holds at least ``role`` here" on rows of the user's organization.

    Each ``..._ref`` names the column that holds the id of the row's project, agent or run, for example
    ``project_id``. They are EXISTS in the query, not lists of ids, so that it costs the same with ten
    thousand bindings.
    """
    held = Binding.objects.of(user).filter(role__in=at_least(role))
    condition = Q(Exists(held.filter(scope=Scope.ORGANIZATION)))
    refs = {Scope.PROJECT: project_ref, Scope.AGENT: agent_ref, Scope.RUN: run_ref}
    for scope, ref in refs.items():
        if ref is not None:
            condition |= Q(Exists(held.filter(scope=scope, scope_id=OuterRef(ref))))
    return condition


class Installation(models.Model):
    """Whether somebody owns this installation already: one row, closed once and never opened again.

    A trigger closes it with the first organization, whoever founds that and however; another refuses
    to change the closed row. Until then it holds the keyed hash of the present activation code.
    """

    id = models.SmallIntegerField(primary_key=True, default=1, editable=False)
    code_hash = models.BinaryField(max_length=32, null=True, editable=False)
    # Which code it is: whoever typed an earlier one starts again.
    code_number = models.PositiveIntegerField(default=0)
    closed_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(name="identity_installation_is_one_row", condition=Q(id=1))
        ]

    def __str__(self) -> str:
        return "installation"
