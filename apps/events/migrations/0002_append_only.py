"""The event log and the audit entries are append-only; the database says so to everyone."""

from __future__ import annotations

from django.db import migrations

FORWARD = """
CREATE FUNCTION events_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME
        USING ERRCODE = 'check_violation', CONSTRAINT = TG_TABLE_NAME || '_append_only';
END $$;
CREATE TRIGGER events_event_append_only BEFORE UPDATE OR DELETE ON events_event
    FOR EACH ROW EXECUTE FUNCTION events_refuse_change();
CREATE TRIGGER events_auditentry_append_only BEFORE UPDATE OR DELETE ON events_auditentry
    FOR EACH ROW EXECUTE FUNCTION events_refuse_change();
"""
BACKWARD = """
DROP TRIGGER events_auditentry_append_only ON events_auditentry;
DROP TRIGGER events_event_append_only ON events_event;
DROP FUNCTION events_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("events", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
