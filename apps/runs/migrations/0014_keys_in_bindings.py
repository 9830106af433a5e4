"""Write the key of its run into each role over a run, for lists of somebody who holds very many."""

from __future__ import annotations

from django.db import migrations

FORWARD = """
CREATE FUNCTION runs_write_key_of_binding() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.run_key := (SELECT run.id FROM runs_run AS run WHERE run.public_id = NEW.scope_id);
    RETURN NEW;
END $$;
CREATE TRIGGER identity_binding_run_key BEFORE INSERT OR UPDATE OF scope, scope_id ON identity_binding
    FOR EACH ROW WHEN (NEW.scope = 'run') EXECUTE FUNCTION runs_write_key_of_binding();

-- Those that are there already. Nobody decides this, so it has no audit entry.
SELECT set_config('aos.audited', pg_current_xact_id()::text, true);
UPDATE identity_binding AS held SET run_key = run.id
  FROM runs_run AS run WHERE held.scope = 'run' AND run.public_id = held.scope_id;
"""
BACKWARD = """
DROP TRIGGER identity_binding_run_key ON identity_binding;
DROP FUNCTION runs_write_key_of_binding();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("runs", "0013_worker_labels"),
        ("identity", "0010_keys_of_runs"),
    ]

    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
