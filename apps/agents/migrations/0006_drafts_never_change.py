"""A draft can be tried, so what it says is as fixed as what a released version says: changing it is the
next draft. It can still be released, or deleted where nothing ran it."""

from __future__ import annotations

from django.db import migrations

FORWARD = """
CREATE OR REPLACE FUNCTION agents_agentversion_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state = 'released' THEN
        RAISE EXCEPTION 'version % is released and cannot change', OLD.number
            USING ERRCODE = 'check_violation', CONSTRAINT = 'agents_agentversion_immutable';
    END IF;
    IF TG_OP = 'UPDATE'
       AND (OLD.agent_id, OLD.number, OLD.spec) IS DISTINCT FROM (NEW.agent_id, NEW.number, NEW.spec) THEN
        RAISE EXCEPTION 'version % may be in use; draft the next one', OLD.number
            USING ERRCODE = 'check_violation', CONSTRAINT = 'agents_agentversion_immutable';
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
"""
BACKWARD = """
CREATE OR REPLACE FUNCTION agents_agentversion_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state = 'released' THEN
        RAISE EXCEPTION 'version % is released and cannot change', OLD.number
            USING ERRCODE = 'check_violation', CONSTRAINT = 'agents_agentversion_immutable';
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("agents", "0005_functions")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
