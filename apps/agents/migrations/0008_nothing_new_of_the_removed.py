"""Nothing that would act for an agent is stored once it is deleted, also not at the same moment.

A deletion holds the agent's row. The key lock here waits for it, as a foreign key's does, and then sees the
row as it is. What deletions left behind before goes as well.
"""

from __future__ import annotations

from django.db import migrations

FORWARD = """
CREATE FUNCTION agents_refuse_removed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    named uuid := to_jsonb(NEW) ->> TG_ARGV[0];
BEGIN
    PERFORM FROM agents_agent WHERE id = named AND removed_at IS NULL FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'agent % is deleted', named
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'agents_agent_not_removed';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER agents_refuse_removed BEFORE INSERT ON identity_binding
    FOR EACH ROW WHEN (NEW.scope = 'agent') EXECUTE FUNCTION agents_refuse_removed('scope_id');

-- Nobody decides this, so it has no audit entry.
SELECT set_config('aos.audited', pg_current_xact_id()::text, true);
DELETE FROM identity_binding AS held USING agents_agent AS agent
 WHERE held.scope = 'agent' AND held.scope_id = agent.id AND agent.removed_at IS NOT NULL;
"""
BACKWARD = """
DROP TRIGGER agents_refuse_removed ON identity_binding;
DROP FUNCTION agents_refuse_removed();
"""


class Migration(migrations.Migration):
    dependencies = [("agents", "0007_removed"), ("identity", "0010_keys_of_runs")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
