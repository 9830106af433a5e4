"""What the ORM cannot say: the fencing sequence, the transition trigger, and how hot tables live."""

from __future__ import annotations

from django.db import migrations

# Spelt out, not imported from types.py: a migration must not change when the code does.
# tests/db/runs/test_transitions.py compares the two.
TRANSITIONS = {
    "queued": ("running", "cancelled", "expired"),
    "running": ("succeeded", "failed", "cancelling", "queued", "expired", "dead"),
    "cancelling": ("cancelled", "succeeded", "failed", "expired"),
}
_ALLOWED = ", ".join(
    f"('{old}', '{new}')" for old, targets in TRANSITIONS.items() for new in targets
)

FORWARD = f"""
CREATE SEQUENCE runs_token_seq;
CREATE SEQUENCE runs_ready_seq;

CREATE FUNCTION runs_run_check_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.state, NEW.state) NOT IN ({_ALLOWED}) THEN
        RAISE EXCEPTION 'a run cannot go from % to %', OLD.state, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'runs_run_transition';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER runs_run_transition BEFORE UPDATE OF state ON runs_run
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state)
    EXECUTE FUNCTION runs_run_check_transition();

CREATE FUNCTION runs_run_check_birth() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state <> 'queued' THEN
        RAISE EXCEPTION 'a run begins queued, not %', NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'runs_run_transition';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER runs_run_birth BEFORE INSERT ON runs_run
    FOR EACH ROW EXECUTE FUNCTION runs_run_check_birth();

CREATE FUNCTION runs_event_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the log of a run is append-only'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'runs_event_append_only';
END $$;
CREATE TRIGGER runs_event_append_only BEFORE UPDATE ON runs_event
    FOR EACH ROW EXECUTE FUNCTION runs_event_refuse_change();

-- Rows of the hot tables live for seconds: leave room on the page for the one update a lease gets,
-- and let vacuum come by count rather than by share.
ALTER TABLE runs_lease SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02,
                            autovacuum_vacuum_threshold = 50, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE runs_ready SET (autovacuum_vacuum_scale_factor = 0.02,
                            autovacuum_vacuum_threshold = 50, autovacuum_vacuum_cost_delay = 0);
"""
BACKWARD = """
DROP TRIGGER runs_event_append_only ON runs_event;
DROP FUNCTION runs_event_refuse_change();
DROP TRIGGER runs_run_birth ON runs_run;
DROP FUNCTION runs_run_check_birth();
DROP TRIGGER runs_run_transition ON runs_run;
DROP FUNCTION runs_run_check_transition();
DROP SEQUENCE runs_ready_seq;
DROP SEQUENCE runs_token_seq;
"""


class Migration(migrations.Migration):
    dependencies = [("runs", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
