"""A change to what people decide cannot be committed without an audit entry in its transaction."""

from __future__ import annotations

from django.db import migrations

# Table -> what is watched: a whole act, or an update of these columns, or a condition on the update.
# Spelt out here: tests/db/events/test_watched_tables.py holds it against the models.
WATCHED = {
    "identity_organization": ("INSERT", "DELETE", "UPDATE"),
    "identity_department": ("INSERT", "DELETE", "UPDATE"),
    "identity_binding": ("INSERT", "DELETE", "UPDATE"),
    "identity_user_departments": ("INSERT", "DELETE", "UPDATE"),
    # Not last_login: that somebody signed in is an entry of its own.
    "identity_user": (
        "INSERT",
        "DELETE",
        "UPDATE OF username, password, email, first_name, last_name, is_active, organization_id",
    ),
    # Not last_used_at.
    "identity_apitoken": (
        "INSERT",
        "DELETE",
        "UPDATE OF user_id, name, key_id, secret_hash, scopes, expires_at, revoked_at",
    ),
    # Not when a browser was last seen.
    "identity_signin": ("INSERT", "DELETE"),
    # Not the step of the last code.
    "identity_secondfactor": ("INSERT", "DELETE", "UPDATE OF sealed_secret, confirmed_at"),
    "identity_recoverycode": ("INSERT", "DELETE", "UPDATE"),
    "projects_project": ("INSERT", "DELETE", "UPDATE"),
    "projects_workspacefile": ("INSERT", "DELETE", "UPDATE"),
    "agents_agent": ("INSERT", "DELETE", "UPDATE"),
    "agents_agentversion": ("INSERT", "DELETE", "UPDATE"),
    # What happens to a run between its start and its end is its log.
    "runs_run": ("INSERT", "DELETE"),
    "runs_lane": ("UPDATE OF paused",),
}
CANCELLED_BY_SOMEBODY = """
CREATE CONSTRAINT TRIGGER audited_cancel AFTER UPDATE OF state ON runs_run
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NEW.state = 'cancelling' OR (OLD.state = 'queued' AND NEW.state = 'cancelled'))
    EXECUTE FUNCTION events_require_audit();
"""

FORWARD = (
    """
-- As before, and marks the transaction. The mark is a setting of the transaction, so a savepoint that
-- is rolled back takes it along with the entry.
CREATE OR REPLACE FUNCTION events_auditentry_queue() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    INSERT INTO events_auditinbox (entry_id) VALUES (NEW.id);
    PERFORM set_config('aos.audited', pg_current_xact_id()::text, true);
    RETURN NULL;
END $$;

CREATE FUNCTION events_require_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('aos.audited', true) IS DISTINCT FROM pg_current_xact_id()::text THEN
        RAISE EXCEPTION 'a change of % has no audit entry in its transaction', TG_TABLE_NAME
            USING ERRCODE = 'check_violation', CONSTRAINT = 'events_audited';
    END IF;
    RETURN NULL;
END $$;
"""
    + "".join(
        f"""
CREATE CONSTRAINT TRIGGER audited_{number} AFTER {act} ON {table}
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION events_require_audit();
"""
        for table, acts in WATCHED.items()
        for number, act in enumerate(acts)
    )
    + CANCELLED_BY_SOMEBODY
)
BACKWARD = (
    "DROP TRIGGER audited_cancel ON runs_run;"
    + "".join(
        f"DROP TRIGGER audited_{number} ON {table};"
        for table, acts in WATCHED.items()
        for number, _ in enumerate(acts)
    )
    + """
DROP FUNCTION events_require_audit();
CREATE OR REPLACE FUNCTION events_auditentry_queue() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    INSERT INTO events_auditinbox (entry_id) VALUES (NEW.id);
    RETURN NULL;
END $$;
"""
)


class Migration(migrations.Migration):
    dependencies = [
        ("events", "0004_row_security"),
        ("identity", "0003_row_security"),
        ("projects", "0002_row_security"),
        ("agents", "0004_row_security"),
        ("runs", "0003_row_security"),
    ]

    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
