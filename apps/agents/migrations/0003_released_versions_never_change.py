"""A released version is what runs were made with: the database refuses to change or delete it."""

from __future__ import annotations

from django.db import migrations

FORWARD = """
CREATE FUNCTION agents_agentversion_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state = 'released' THEN
        RAISE EXCEPTION 'version % is released and cannot change', OLD.number
            USING ERRCODE = 'check_violation', CONSTRAINT = 'agents_agentversion_immutable';
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TRIGGER agents_agentversion_immutable BEFORE UPDATE OR DELETE ON agents_agentversion
    FOR EACH ROW EXECUTE FUNCTION agents_agentversion_refuse_change();

CREATE FUNCTION agents_agent_check_current() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.current_id IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM agents_agentversion
         WHERE id = NEW.current_id AND agent_id = NEW.id AND state = 'released'
    ) THEN
        RAISE EXCEPTION 'the current version must be a released version of the same agent'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'agents_agent_current_is_released';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER agents_agent_current_is_released BEFORE INSERT OR UPDATE OF current_id ON agents_agent
    FOR EACH ROW EXECUTE FUNCTION agents_agent_check_current();
"""
BACKWARD = """
DROP TRIGGER agents_agent_current_is_released ON agents_agent;
DROP FUNCTION agents_agent_check_current();
DROP TRIGGER agents_agentversion_immutable ON agents_agentversion;
DROP FUNCTION agents_agentversion_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("agents", "0002_owners")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
