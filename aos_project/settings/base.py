"""Settings shared by every environment. Read from the environment through ``env`` only."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import django_stubs_ext
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from aos_project import env

# Lets ModelAdmin[Run] and friends be written as they are typed.
django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parents[2]
VERSION = "0.1.0"
# Shown in the shell, so that nobody mistakes production for a laptop.
AOS_ENVIRONMENT = env.text("AOS_ENVIRONMENT", default="dev")
AOS_INSTANCE = env.text("AOS_INSTANCE", default="aos")
AOS_PUBLIC_URL = env.text("AOS_PUBLIC_URL", default="http://127.0.0.1:8000").rstrip("/")
AOS_DATA_DIR = Path(env.text("AOS_DATA_DIR", default=str(BASE_DIR / ".aos"))).resolve()

DEBUG = False
SECRET_KEY = env.secret("AOS_SECRET_KEY", default="")
# Former keys: what they signed and sealed is still read, and nothing new is made with them.
SECRET_KEY_FALLBACKS = env.secrets("AOS_SECRET_KEY_FALLBACKS", default=())
ALLOWED_HOSTS = env.words("AOS_ALLOWED_HOSTS", default=("127.0.0.1", "localhost", "[::1]"))
CSRF_TRUSTED_ORIGINS = env.words("AOS_TRUSTED_ORIGINS", default=(AOS_PUBLIC_URL,))

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_htmx",
    "csp",
    "channels",
    "axes",
    "apps.core",
    "apps.events",
    "apps.identity",
    "apps.projects",
    "apps.sandboxes",
    "apps.agents",
    "apps.runs",
    "apps.hub",
    # Only for its management commands (engine, images); the web process never imports its rooms.
    "workers",
]
MIDDLEWARE = [
    "apps.core.middleware.TenancyMiddleware",
    "apps.core.middleware.TraceMiddleware",
    "apps.identity.middleware.DenialMiddleware",
    "apps.core.middleware.MemoryMiddleware",
    "apps.core.metrics.MetricsMiddleware",
    "apps.core.headers.HeadersMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "apps.core.origins.OriginMiddleware",
    "apps.hub.middleware.FirstStartMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    # Before the CSRF check: a flood of forged forms is a flood too.
    "apps.identity.limiting.LimitMiddleware",
    "apps.core.networks.AdminNetworkMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "apps.identity.middleware.ActivityMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "apps.hub.middleware.StepUpMiddleware",
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "aos_project.urls"
ASGI_APPLICATION = "aos_project.asgi.application"
APPEND_SLASH = False
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# --- Data -----------------------------------------------------------------------------------------
# Connections are pooled per process: a web process answers on short-lived threads, each of which
# would otherwise keep a session of its own for ever. A worker holds one per run it executes.
AOS_WORKER_SLOTS = env.integer("AOS_WORKER_SLOTS", default=4, minimum=1)
AOS_DB_POOL_SIZE = env.integer("AOS_DB_POOL_SIZE", default=max(20, AOS_WORKER_SLOTS + 8), minimum=4)
DATABASES = {"default": env.database("DATABASE_URL", default="postgresql://aos@127.0.0.1:5432/aos")}
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
DATABASES["default"]["OPTIONS"]["pool"] = {
    "min_size": 1,
    "max_size": AOS_DB_POOL_SIZE,
    "timeout": 10,
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# Redis and the broker are doorbells: what they hold may be emptied at any moment.
AOS_REDIS_URL = env.secret("REDIS_URL", default="redis://127.0.0.1:6379/0")
CHANNEL_LAYERS = {
    "default": {
        # The pub/sub layer: the core layer silently drops messages in bursts.
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        # redis-py 8 caps a pool at 100 connections by default.
        "CONFIG": {
            "hosts": [{"address": AOS_REDIS_URL, "max_connections": 1000}],
            "prefix": f"{AOS_INSTANCE}:layer",
        },
    }
}

# --- People ---------------------------------------------------------------------------------------
AUTH_USER_MODEL = "identity.User"
AUTHENTICATION_BACKENDS = [
    # First: it refuses who is locked out before any password is looked at.
    "axes.backends.AxesStandaloneBackend",
    "apps.identity.authentication.PasswordBackend",
]
# How long a sign-in counts as fresh for what the matrix flags with step_up.
AOS_STEP_UP = timedelta(minutes=env.integer("AOS_STEP_UP_MINUTES", default=15, minimum=1))
# Somebody who guesses is locked out of one account from one address; the owner at home is not.
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_FAILURE_LIMIT = env.integer("AOS_SIGN_IN_FAILURES", default=10, minimum=3)
AXES_COOLOFF_TIME = timedelta(minutes=env.integer("AOS_LOCKOUT_MINUTES", default=15, minimum=1))
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_LOCKOUT_CALLABLE = "apps.hub.account.locked_out"
# Sign-ins are audit entries of ours, and the admin has its own windows.
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False
AXES_CLIENT_IP_CALLABLE = "apps.core.client.address"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "apps.identity.validators.KnownPasswordValidator"},
    {"NAME": "apps.identity.validators.PlaceWordValidator"},
    {"NAME": "apps.identity.validators.BreachedPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]
# Words of your own of which no password is made: projects, products, the town you sit in.
AOS_PASSWORD_WORDS = env.words("AOS_PASSWORD_WORDS", default=())
# The list of Pwned Passwords, in order of the SHA-1; empty looks into the built-in list only.
AOS_BREACHED_PASSWORDS = env.text("AOS_BREACHED_PASSWORDS", default="")
if AOS_BREACHED_PASSWORDS and not Path(AOS_BREACHED_PASSWORDS).is_file():
    raise ImproperlyConfigured(f"AOS_BREACHED_PASSWORDS={AOS_BREACHED_PASSWORDS} is not a file.")
# An OpenID provider at which people sign in; without an issuer there is none.
AOS_OIDC_ISSUER = env.text("AOS_OIDC_ISSUER", default="")
AOS_OIDC_NAME = env.text("AOS_OIDC_NAME", default="single sign-on")
AOS_OIDC_CLIENT_ID = env.text("AOS_OIDC_CLIENT_ID", default="")
AOS_OIDC_CLIENT_SECRET = env.secret("AOS_OIDC_CLIENT_SECRET", default="")
AOS_OIDC_SCOPES = env.text("AOS_OIDC_SCOPES", default="openid profile email")
AOS_OIDC_USERNAME_CLAIM = env.text("AOS_OIDC_USERNAME_CLAIM", default="preferred_username")
AOS_OIDC_EMAIL_CLAIM = env.text("AOS_OIDC_EMAIL_CLAIM", default="email")
AOS_OIDC_GROUPS_CLAIM = env.text("AOS_OIDC_GROUPS_CLAIM", default="groups")
# The organization its people belong to, whether strangers become people of it, and which of its
# groups give which role: {"group": "role"} or {"group": "role@project"}.
AOS_OIDC_ORGANIZATION = env.text("AOS_OIDC_ORGANIZATION", default="")
AOS_OIDC_CREATE_PEOPLE = env.flag("AOS_OIDC_CREATE_PEOPLE", default=False)
AOS_OIDC_ROLES = env.mapping("AOS_OIDC_ROLES", default="")
# Without it only owners get in with a password, through a door for emergencies.
AOS_PASSWORD_SIGN_IN = env.flag("AOS_PASSWORD_SIGN_IN", default=True)

# Whether acts that the permission matrix flags two-person need somebody else's consent before they
# take place. Off by default: whoever is alone in an installation would have nobody to ask.
AOS_TWO_PERSON = env.flag("AOS_TWO_PERSON", default=False)
if AOS_OIDC_ISSUER and not (AOS_OIDC_CLIENT_ID and AOS_OIDC_ORGANIZATION):
    raise ImproperlyConfigured(
        "AOS_OIDC_ISSUER needs AOS_OIDC_CLIENT_ID and AOS_OIDC_ORGANIZATION."
    )
# An owner is made by people: a mistake at the provider must not give the house away.
if odd := {role.partition("@")[0] for role in AOS_OIDC_ROLES.values()} - {
    "viewer",
    "operator",
    "admin",
}:
    raise ImproperlyConfigured(
        f"AOS_OIDC_ROLES may give viewer, operator or admin, not {sorted(odd)}."
    )
if not AOS_PASSWORD_SIGN_IN and not AOS_OIDC_ISSUER:
    raise ImproperlyConfigured("AOS_PASSWORD_SIGN_IN=0 needs AOS_OIDC_ISSUER, or nobody gets in.")
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "login"
SESSION_ENGINE = "apps.identity.sessionstore"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
# How long a password that somebody else set can be exchanged for one's own.
AOS_FIRST_PASSWORD = timedelta(hours=env.integer("AOS_FIRST_PASSWORD_HOURS", default=72, minimum=1))
# Nobody gets in with a password alone: who has no authenticator app sets one up at the door.
AOS_REQUIRE_SECOND_FACTOR = env.flag("AOS_REQUIRE_SECOND_FACTOR", default=False)
# A browser is signed out this long after the person's last act, and this long after the sign-in in
# any case; ``apps.identity.lifetime`` says what an act is.
AOS_SESSION_IDLE = timedelta(minutes=env.integer("AOS_SESSION_IDLE_MINUTES", default=60, minimum=1))
AOS_SESSION_LIFETIME = timedelta(hours=env.integer("AOS_SESSION_HOURS", default=12, minimum=1))
CSRF_COOKIE_SAMESITE = "Lax"
# Mixed into the hash of every API token, so that a copy of the database alone verifies none.
AOS_TOKEN_PEPPER = env.secret("AOS_TOKEN_PEPPER", default=SECRET_KEY)

# --- Web ------------------------------------------------------------------------------------------
LANGUAGE_CODE = "en"
FORMAT_MODULE_PATH = ["aos_project.formats"]
USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "/static/"
STATIC_ROOT = Path(env.text("AOS_STATIC_ROOT", default=str(BASE_DIR / "staticfiles")))
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}
# Largest JSON body, and largest uploaded input file, in bytes.
AOS_JSON_LIMIT_BYTES = env.integer("AOS_JSON_LIMIT_BYTES", default=1024 * 1024, minimum=1024)
AOS_FILE_LIMIT_BYTES = env.integer("AOS_FILE_LIMIT_BYTES", default=10 * 1024 * 1024, minimum=1024)
# How long a body may take to arrive.
AOS_BODY_SECONDS = env.integer("AOS_BODY_SECONDS", default=120, minimum=1)
DATA_UPLOAD_MAX_MEMORY_SIZE = AOS_JSON_LIMIT_BYTES
# Our largest form has a few dozen fields, and takes a few files.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 1_000
DATA_UPLOAD_MAX_NUMBER_FILES = 20

# Who may connect at all, and who may open admin and Flower. Empty is everybody.
AOS_ALLOWED_NETWORKS = env.networks("AOS_ALLOWED_NETWORKS", default=())
AOS_ADMIN_NETWORKS = env.networks("AOS_ADMIN_NETWORKS", default=())
# How often somebody may ask, by kind of request; ``apps.identity.limiting`` says which is which.
AOS_LIMITS = {
    # By address: those who have not said who they are, or said it wrong.
    "anonymous": env.rate("AOS_LIMIT_ANONYMOUS", default="300/m"),
    "sign-in": env.rate("AOS_LIMIT_SIGN_IN", default="30/m"),
    # By person; their browsers and their programs apart.
    "read": env.rate("AOS_LIMIT_READ", default="1200/m"),
    "write": env.rate("AOS_LIMIT_WRITE", default="300/m"),
    "submit": env.rate("AOS_LIMIT_SUBMIT", default="600/m"),
    "export": env.rate("AOS_LIMIT_EXPORT", default="30/m"),
    "stream": env.rate("AOS_LIMIT_STREAM", default="120/m"),
    # By organization: all its people together.
    "organization": env.rate("AOS_LIMIT_ORGANIZATION", default="12000/m"),
    "submit-organization": env.rate("AOS_LIMIT_SUBMIT_ORGANIZATION", default="3000/m"),
}
AOS_STREAMS_PER_PERSON = env.integer("AOS_STREAMS_PER_PERSON", default=100, minimum=1)

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "apps.identity.authentication.TokenAuthentication",
        "apps.identity.authentication.CookieAuthentication",
    ],
    # Deny by default: a view says which action of the matrix it is.
    "DEFAULT_PERMISSION_CLASSES": ["apps.identity.permissions.MatrixPermission"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["apps.core.rest.parsers.BoundedJSONParser"],
    "DEFAULT_PAGINATION_CLASS": "apps.core.rest.pagination.KeysetPagination",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "apps.core.rest.exceptions.handle",
    "URL_FORMAT_OVERRIDE": None,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "AOS",
    "DESCRIPTION": (
        "Submit agent runs, follow them, and fetch what they leave behind. Lists are paginated by "
        "cursor and begin at what you may see; what you may not see answers 404. Unknown fields "
        "are refused. Errors are RFC 9457 problems whose `code` is stable. Every answer carries "
        "`X-Trace-Id`."
    ),
    "ENUM_NAME_OVERRIDES": {
        "RunStateEnum": "apps.runs.api.serializers.STATES",
        "VersionStateEnum": "apps.agents.types.VersionState",
        "AgentKindEnum": "apps.agents.types.AgentKind",
        "RunEventKindEnum": "apps.runs.types.EventKind",
        "SeverityEnum": "apps.events.types.Severity",
        "EventTypeEnum": "apps.events.types.EventType",
        "RoleEnum": "apps.identity.types.Role",
        "ScopeEnum": "apps.identity.types.Scope",
        "UserKindEnum": "apps.identity.types.UserKind",
    },
    "VERSION": VERSION,
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": True,
}

# --- Engine and workers ---------------------------------------------------------------------------
CELERY_BROKER_URL = env.secret("BROKER_URL", default=AOS_REDIS_URL)
# How long a dead leader keeps the seat. A standby takes over within this plus one second.
AOS_LEADER_TTL = timedelta(seconds=env.integer("AOS_LEADER_TTL_SECONDS", default=3, minimum=1))
# How often a worker says it is alive, and how long it may stay silent before its runs go to others.
AOS_HEARTBEAT = timedelta(seconds=env.integer("AOS_HEARTBEAT_SECONDS", default=10, minimum=1))
AOS_WORKER_TTL = timedelta(seconds=env.integer("AOS_WORKER_TTL_SECONDS", default=45, minimum=3))
# A worker that cannot renew for this long stops its sandboxes by itself; below the TTL, so that it
# has stopped before anybody else starts.
AOS_SELF_FENCE = AOS_WORKER_TTL * 2 / 3
# A message not taken up within this time is taken back and sent again; costs the run no attempt.
AOS_DISPATCH_DEADLINE = timedelta(
    seconds=env.integer("AOS_DISPATCH_DEADLINE_SECONDS", default=20, minimum=1)
)
AOS_WORKER_QUEUE = f"{AOS_INSTANCE}.runs"
# What a worker says of itself, so that runs may require it: gpu=true,zone=eu. The version is a label as well.
AOS_WORKER_LABELS = env.labels("AOS_WORKER_LABELS", default="")
AOS_WORKER_VERSION = env.word("AOS_WORKER_VERSION", default=VERSION)
# A schedule's time that is noticed this late still counts as on time: an engine took over in between.
AOS_SCHEDULE_GRACE = timedelta(
    seconds=env.integer("AOS_SCHEDULE_GRACE_SECONDS", default=120, minimum=1)
)
# About how much work one message carries, in runs that are shorter than that; 0: always one run.
AOS_MESSAGE_WORK = timedelta(milliseconds=env.integer("AOS_MESSAGE_WORK_MS", default=20, minimum=0))
# Who has waited this long for a slot stands one class higher; 0: classes are strict for ever.
AOS_AGEING = timedelta(minutes=env.integer("AOS_AGEING_MINUTES", default=15, minimum=0))
# The share of all slots up to which an organization's urgent runs go before everybody else's.
AOS_URGENT_PERCENT = env.integer("AOS_URGENT_PERCENT", default=50, minimum=1)
# So many runs of an organization may wait, unless a limit of its own says otherwise; more are refused.
AOS_QUEUE_LIMIT = env.integer("AOS_QUEUE_LIMIT", default=1_000_000, minimum=1)
# By then a run must have ended, counted from its submission, where neither it nor its agent says; 0: none.
AOS_TOTAL_DEADLINE = timedelta(
    seconds=env.integer("AOS_TOTAL_DEADLINE_SECONDS", default=0, minimum=0)
)
# So many generations of children below a run that has no parent, and so many runs in all.
AOS_CHILD_DEPTH = env.integer("AOS_CHILD_DEPTH", default=5, minimum=0)
AOS_CHILDREN = env.integer("AOS_CHILDREN", default=1000, minimum=0)
# What agents of kind function may call: name=module:attribute, one word each, importable by workers.
AOS_FUNCTIONS = {"aos.echo": "workers.functions:echo"} | env.pairs("AOS_FUNCTIONS", default="")
# Months of the runs' logs that are kept beside the one we are in; 0 keeps all.
AOS_RUN_LOG_MONTHS = env.integer("AOS_RUN_LOG_MONTHS", default=0, minimum=0)
# Days after its end that a run is kept, unless its organization says otherwise; 0 keeps all.
AOS_RUN_DAYS = env.integer("AOS_RUN_DAYS", default=0, minimum=0)
# Idempotency keys of submissions are remembered this long.
AOS_IDEMPOTENCY_TTL = timedelta(days=7)

AOS_SANDBOX_DRIVER = env.text("AOS_SANDBOX_DRIVER", default="docker")
AOS_SANDBOX_IMAGE = env.text("AOS_SANDBOX_IMAGE", default="aos/sandbox-base:latest")
# Sandboxes of the profile base that each worker keeps waiting for runs; 0 makes each when it is needed.
AOS_SANDBOX_WARM = env.integer("AOS_SANDBOX_WARM", default=1, minimum=0)
# A TOML file with the profiles of this host, besides the built-in ones.
AOS_SANDBOX_PROFILES = env.text("AOS_SANDBOX_PROFILES", default="")
# A sandbox nobody asks anything stands still after this long, and only its workspace is kept after that
# long, if it is an attempt's; 0: never.
AOS_SANDBOX_IDLE_PAUSE_SECONDS = env.integer(
    "AOS_SANDBOX_IDLE_PAUSE_SECONDS", default=300, minimum=0
)
AOS_SANDBOX_SNAPSHOT_SECONDS = env.integer("AOS_SANDBOX_SNAPSHOT_SECONDS", default=600, minimum=0)
# The most that is kept of one workspace, in megabytes.
AOS_SANDBOX_SNAPSHOT_MB = env.integer("AOS_SANDBOX_SNAPSHOT_MB", default=512, minimum=1)
AOS_ALLOW_LOCAL_SANDBOX = False
# Where tests arm places to crash at (``apps.core.failpoints``); there is no variable for it.
AOS_FAILPOINTS: str | None = None
# The most of the network that an agent version may ask for on this host: none, allowlist, open.
AOS_SANDBOX_EGRESS = env.choice(
    "AOS_SANDBOX_EGRESS", default="allowlist", among=("none", "allowlist", "open")
)
# Where the sockets of sandboxes' proxies lie, and where the engine sees them if it lives elsewhere.
AOS_EGRESS_FOLDER = Path(env.text("AOS_EGRESS_FOLDER", default=str(AOS_DATA_DIR / "egress")))
AOS_EGRESS_HOST_FOLDER = env.text("AOS_EGRESS_HOST_FOLDER", default="")
# Networks no sandbox may reach, besides all that are not public: your own public addresses.
AOS_EGRESS_DENY = env.networks("AOS_EGRESS_DENY", default=())

# --- Artifacts ------------------------------------------------------------------------------------
# Where contents of files are: file: (in the data folder), file:///folder, s3://bucket/prefix?endpoint=...
AOS_ARTIFACT_STORE = env.text("AOS_ARTIFACT_STORE", default="file:")
AOS_ARTIFACT_S3_ACCESS_KEY = env.secret("AOS_ARTIFACT_S3_ACCESS_KEY", default="")
AOS_ARTIFACT_S3_SECRET_KEY = env.secret("AOS_ARTIFACT_S3_SECRET_KEY", default="")
# How long the contents of artifacts are kept; 0: as long as their runs.
AOS_ARTIFACT_DAYS = env.integer("AOS_ARTIFACT_DAYS", default=0, minimum=0)

# --- Flower ---------------------------------------------------------------------------------------
AOS_FLOWER_URL = env.text("AOS_FLOWER_URL", default="http://127.0.0.1:5555")
AOS_FLOWER_BASIC_AUTH = env.secret("AOS_FLOWER_BASIC_AUTH", default="")

# --- Audit ----------------------------------------------------------------------------------------
# Where the key that signs checkpoints of the audit chains lies, and the sink ``file:``; best on
# another volume or host.
AOS_AUDIT_FOLDER = Path(env.text("AOS_AUDIT_FOLDER", default=str(AOS_DATA_DIR / "audit")))
# Places outside the database that get every checkpoint: file:, https://host/path, s3://bucket/prefix.
AOS_AUDIT_SINKS = env.words("AOS_AUDIT_SINKS", default=("file:",))
AOS_AUDIT_WEBHOOK_SECRET = env.secret("AOS_AUDIT_WEBHOOK_SECRET", default="")
AOS_AUDIT_S3_ACCESS_KEY = env.secret("AOS_AUDIT_S3_ACCESS_KEY", default="")
AOS_AUDIT_S3_SECRET_KEY = env.secret("AOS_AUDIT_S3_SECRET_KEY", default="")

# --- What is said ---------------------------------------------------------------------------------
OTLP_ENDPOINT = env.text("OTEL_EXPORTER_OTLP_ENDPOINT", default="")
# The exporter reads it itself. It is known here to be kept out of logs.
OTLP_HEADERS = env.text("OTEL_EXPORTER_OTLP_HEADERS", default="")
LOGGING_CONFIG = "apps.core.logs.configure"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "apps.core.logs.LineFormatter"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env.text("AOS_LOG_LEVEL", default="INFO")},
    "loggers": {
        # Uvicorn brings handlers of its own, which would print past the formatter.
        "uvicorn": {"handlers": [], "propagate": True},
        "uvicorn.error": {"handlers": [], "propagate": True},
        # Each request is a span already; its access line would say it twice.
        "uvicorn.access": {"handlers": [], "propagate": True, "level": "WARNING"},
        "httpx": {"level": "WARNING"},
        # A line for each message when it comes and when it is done: its runs have logs of their own.
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
        # It prints a traceback whenever Redis goes away; the feed says so in one line.
        "channels_redis.pubsub": {"level": "CRITICAL"},
    },
}

# --- Celery carries messages and nothing else -----------------------------------------------------
# Acknowledged early: a lost message is sent again from PostgreSQL, a doubled one finds its lease
# taken. Never retry, eta, countdown, chord or beat: time and order live in the database.
CELERY_TASK_ACKS_LATE = False
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_DEFAULT_QUEUE = AOS_WORKER_QUEUE
CELERY_TASK_CREATE_MISSING_QUEUES = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_DISABLE_PREFETCH = CELERY_BROKER_URL.startswith(("redis", "unix"))
CELERY_WORKER_SEND_TASK_EVENTS = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
if CELERY_BROKER_URL.startswith(("redis", "unix")):
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "socket_keepalive": True,
        "health_check_interval": 25,
        # The leader decides who goes first, so messages have no priorities: one list a queue, not four.
        "priority_steps": [0],
    }
else:
    # RabbitMQ: queues that outlive a host of its cluster, and a word that a message has arrived. Without
    # it, what is sent into a connection that just broke is missed only at the dispatch deadline.
    CELERY_BROKER_TRANSPORT_OPTIONS = {"confirm_publish": True}
    CELERY_TASK_DEFAULT_QUEUE_TYPE = CELERY_TASK_CREATE_MISSING_QUEUE_TYPE = "quorum"
    CELERY_TASK_DEFAULT_EXCHANGE_TYPE = "direct"
# How long a worker that is told to stop lets its runs go on before it gives them back.
AOS_DRAIN = timedelta(seconds=env.integer("AOS_DRAIN_SECONDS", default=30, minimum=0))
