"""No schedule and no limit of an agent that is deleted, also not at the same moment."""

from __future__ import annotations

from django.db import migrations

FORWARD = """
CREATE TRIGGER agents_refuse_removed BEFORE INSERT ON runs_schedule
    FOR EACH ROW EXECUTE FUNCTION agents_refuse_removed('agent_id');
CREATE TRIGGER agents_refuse_removed_later BEFORE UPDATE ON runs_schedule
    FOR EACH ROW WHEN (OLD.agent_id <> NEW.agent_id) EXECUTE FUNCTION agents_refuse_removed('agent_id');
CREATE TRIGGER agents_refuse_removed BEFORE INSERT ON runs_limit
    FOR EACH ROW WHEN (NEW.agent_id IS NOT NULL) EXECUTE FUNCTION agents_refuse_removed('agent_id');

-- What deletions left behind before. Nobody decides this, so it has no audit entry.
SELECT set_config('aos.audited', pg_current_xact_id()::text, true);
DELETE FROM runs_limit AS held USING agents_agent AS agent
 WHERE held.agent_id = agent.id AND agent.removed_at IS NOT NULL;
"""
BACKWARD = """
DROP TRIGGER agents_refuse_removed ON runs_schedule;
DROP TRIGGER agents_refuse_removed_later ON runs_schedule;
DROP TRIGGER agents_refuse_removed ON runs_limit;
"""


class Migration(migrations.Migration):
    dependencies = [("runs", "0019_indexes_once"), ("agents", "0008_nothing_new_of_the_removed")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
