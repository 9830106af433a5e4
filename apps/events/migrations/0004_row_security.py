"""Web requests see one organization's records; the trigger that queues entries works for the platform."""

from __future__ import annotations

from django.db import migrations

from apps.core.rowsecurity import ADD, READ, grant, owned, role

DEFINER = """
ALTER FUNCTION events_auditentry_queue() SECURITY DEFINER;
ALTER FUNCTION events_auditentry_queue() SET search_path = pg_catalog, public;
"""
INVOKER = """
ALTER FUNCTION events_auditentry_queue() SECURITY INVOKER;
ALTER FUNCTION events_auditentry_queue() RESET search_path;
"""


class Migration(migrations.Migration):
    dependencies = [("events", "0003_audit_chain")]

    operations = [
        role(),
        owned("events_outboxentry", ADD),
        owned("events_event", READ),
        owned("events_auditentry", ADD),
        owned("events_auditseal", READ),
        # Names entries by number only; and what it holds for seconds is in the entries themselves.
        grant("events_auditinbox", READ),
        # Signatures over all chains: no row of it belongs to one organization.
        grant("events_auditcheckpoint", READ),
        migrations.RunSQL(DEFINER, INVOKER),
    ]
