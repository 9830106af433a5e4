"""Who loses something is noted for the engine by triggers, so that no service can forget it; and the new
columns that people decide are watched."""

from __future__ import annotations

from django.db import migrations

FORWARD = """
CREATE CONSTRAINT TRIGGER audited_kind AFTER UPDATE OF kind ON identity_user
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION events_require_audit();
CREATE CONSTRAINT TRIGGER audited_networks AFTER UPDATE OF allowed_networks ON identity_apitoken
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION events_require_audit();

-- As the platform: a web request sees its own organization only, and not this table.
CREATE FUNCTION identity_note_withdrawal() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    IF TG_TABLE_NAME = 'identity_user' THEN
        INSERT INTO identity_withdrawal (user_id) VALUES (NEW.id);
    ELSIF TG_TABLE_NAME = 'identity_user_departments' THEN
        INSERT INTO identity_withdrawal (user_id) VALUES (OLD.user_id);
    ELSIF OLD.user_id IS NOT NULL THEN
        INSERT INTO identity_withdrawal (user_id) VALUES (OLD.user_id);
    ELSE
        INSERT INTO identity_withdrawal (user_id)
        SELECT member.user_id FROM identity_user_departments AS member
         WHERE member.department_id = OLD.department_id;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER withdrawn_0 AFTER UPDATE OF is_active ON identity_user
    FOR EACH ROW WHEN (OLD.is_active AND NOT NEW.is_active)
    EXECUTE FUNCTION identity_note_withdrawal();
CREATE TRIGGER withdrawn_0 AFTER DELETE ON identity_user_departments
    FOR EACH ROW EXECUTE FUNCTION identity_note_withdrawal();
CREATE TRIGGER withdrawn_0 AFTER DELETE ON identity_binding
    FOR EACH ROW EXECUTE FUNCTION identity_note_withdrawal();
-- A better role or a later end comes here too, and harms nothing: the engine asks what is held now.
CREATE TRIGGER withdrawn_1
    AFTER UPDATE OF role, scope, scope_id, expires_at, user_id, department_id ON identity_binding
    FOR EACH ROW EXECUTE FUNCTION identity_note_withdrawal();
"""
BACKWARD = """
DROP TRIGGER withdrawn_1 ON identity_binding;
DROP TRIGGER withdrawn_0 ON identity_binding;
DROP TRIGGER withdrawn_0 ON identity_user_departments;
DROP TRIGGER withdrawn_0 ON identity_user;
DROP FUNCTION identity_note_withdrawal;
DROP TRIGGER audited_networks ON identity_apitoken;
DROP TRIGGER audited_kind ON identity_user;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("identity", "0004_bindings_over_more"),
        ("events", "0005_watched_tables"),
    ]

    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
