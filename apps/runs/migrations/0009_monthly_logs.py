"""The log of runs in monthly partitions: what is old goes as a table, not row by row.

Safe with rows in it, and while others write: the table as it is becomes the first partition, checked
beforehand without a lock that anybody waits for. What is left is a change of names.
"""

from __future__ import annotations

from typing import Any

from django.db import migrations

from apps.core.rowsecurity import ADD, through

# Everything written so far lies before this.
BEGIN = "date_trunc('month', (clock_timestamp() + interval '1 day') AT TIME ZONE 'UTC') + interval '1 month'"

# Checked here row by row while others read and write, so that the attaching below need not.
CHECK = f"""
DO $$ BEGIN
    ALTER TABLE runs_event DROP CONSTRAINT IF EXISTS runs_event_bound;
    EXECUTE format('ALTER TABLE runs_event ADD CONSTRAINT runs_event_bound CHECK (at < %L) NOT VALID',
                   ({BEGIN}) AT TIME ZONE 'UTC');
END $$
"""
VALIDATE = "ALTER TABLE runs_event VALIDATE CONSTRAINT runs_event_bound"

# PostgreSQL 15 and 16 know no identity columns in partitioned tables: a sequence stands in.
SWITCH = """
DROP TRIGGER runs_event_append_only ON runs_event;
DROP POLICY organization ON runs_event;
DROP POLICY platform ON runs_event;
ALTER TABLE runs_event NO FORCE ROW LEVEL SECURITY;
ALTER TABLE runs_event DISABLE ROW LEVEL SECURITY;
REVOKE ALL ON runs_event FROM aos_app;
ALTER TABLE runs_event ALTER id DROP IDENTITY;
ALTER TABLE runs_event RENAME TO runs_event_first;

CREATE TABLE runs_event (LIKE runs_event_first INCLUDING DEFAULTS) PARTITION BY RANGE (at);
CREATE SEQUENCE runs_event_id_seq OWNED BY runs_event.id;
SELECT setval('runs_event_id_seq', coalesce((SELECT max(id) FROM runs_event_first), 0) + 1, false);
ALTER TABLE runs_event ALTER id SET DEFAULT nextval('runs_event_id_seq');
GRANT USAGE ON SEQUENCE runs_event_id_seq TO aos_app;
ALTER TABLE runs_event ADD CONSTRAINT runs_event_seq_check CHECK (seq >= 0);
ALTER TABLE runs_event ADD CONSTRAINT runs_event_of_run
    FOREIGN KEY (run_id) REFERENCES runs_run (id) DEFERRABLE INITIALLY DEFERRED;
CREATE TRIGGER runs_event_append_only BEFORE UPDATE ON runs_event
    FOR EACH ROW EXECUTE FUNCTION runs_event_refuse_change();
CREATE TABLE runs_event_rest PARTITION OF runs_event DEFAULT;
CREATE UNIQUE INDEX runs_event_rest_once ON runs_event_rest (run_id, seq);
"""

FUNCTIONS = """
CREATE FUNCTION runs_log_make_month(first date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    name text := 'runs_event_' || to_char(first, 'YYYY_MM');
    since timestamptz := first::timestamp AT TIME ZONE 'UTC';
    until timestamptz := (first + interval '1 month') AT TIME ZONE 'UTC';
BEGIN
    IF to_regclass(name) IS NOT NULL OR since < (
        SELECT max(upper) FROM runs_log_months() WHERE month = 'runs_event_first') THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE runs_event INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
    EXECUTE format('CREATE UNIQUE INDEX %I ON %I (run_id, seq)', name || '_once', name);
    -- What came while nobody had made the month.
    EXECUTE format('WITH moved AS (DELETE FROM runs_event_rest WHERE at >= $1 AND at < $2 RETURNING *)
                    INSERT INTO %I SELECT * FROM moved', name) USING since, until;
    EXECUTE format('ALTER TABLE runs_event ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   name, since, until);
    RETURN true;
END $$;

CREATE FUNCTION runs_log_months() RETURNS TABLE (month text, upper timestamptz) LANGUAGE sql AS $$
    SELECT part.relname::text,
           substring(pg_get_expr(part.relpartbound, part.oid) FROM 'TO [(]''([^'']+)''[)]')::timestamptz
      FROM pg_inherits AS link JOIN pg_class AS part ON part.oid = link.inhrelid
     WHERE link.inhparent = 'runs_event'::regclass AND part.relname <> 'runs_event_rest'
$$;

-- The lines of open runs go to the rest, which takes what no month is there for.
CREATE FUNCTION runs_log_drop_month(month text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    kept bigint;
BEGIN
    EXECUTE format('ALTER TABLE runs_event DETACH PARTITION %I', month);
    EXECUTE format('INSERT INTO runs_event SELECT line.* FROM %I AS line
                      JOIN runs_run AS run ON run.id = line.run_id
                     WHERE run.finished_at IS NULL', month);
    GET DIAGNOSTICS kept = ROW_COUNT;
    EXECUTE format('DROP TABLE %I', month);
    RETURN kept;
END $$;
"""

ATTACH = f"""
DO $$ BEGIN
    EXECUTE format('ALTER TABLE runs_event ATTACH PARTITION runs_event_first
                    FOR VALUES FROM (MINVALUE) TO (%L)', ({BEGIN}) AT TIME ZONE 'UTC');
END $$;
ALTER TABLE runs_event_first DROP CONSTRAINT runs_event_bound;
SELECT runs_log_make_month((({BEGIN}) + months * interval '1 month')::date)
  FROM generate_series(0, 1) AS months;
"""


# Back to one table, row by row: it takes as long as the log is large, and nobody writes meanwhile.
UNSWITCH = """
DROP FUNCTION runs_log_make_month(date);
DROP FUNCTION runs_log_drop_month(text);
DROP FUNCTION runs_log_months();
ALTER TABLE runs_event RENAME TO runs_event_months;
CREATE TABLE runs_event (LIKE runs_event_months INCLUDING DEFAULTS);
ALTER TABLE runs_event ALTER id DROP DEFAULT;
INSERT INTO runs_event SELECT * FROM runs_event_months;
DROP TABLE runs_event_months;
ALTER TABLE runs_event ALTER id ADD GENERATED BY DEFAULT AS IDENTITY;
SELECT setval('runs_event_id_seq', coalesce((SELECT max(id) FROM runs_event), 0) + 1, false);
ALTER TABLE runs_event ADD PRIMARY KEY (id);
ALTER TABLE runs_event ADD CONSTRAINT runs_event_seq_check CHECK (seq >= 0);
ALTER TABLE runs_event ADD CONSTRAINT runs_event_numbered_once UNIQUE (run_id, seq);
ALTER TABLE runs_event ADD CONSTRAINT runs_event_of_run
    FOREIGN KEY (run_id) REFERENCES runs_run (id) DEFERRABLE INITIALLY DEFERRED;
CREATE TRIGGER runs_event_append_only BEFORE UPDATE ON runs_event
    FOR EACH ROW EXECUTE FUNCTION runs_event_refuse_change();
"""


def unswitch(_apps: Any, schema_editor: Any) -> None:
    schema_editor.execute(UNSWITCH, params=None)
    schema_editor.execute(through("runs_run", "runs_event", ADD, column="run_id").sql, params=None)


def switch(_apps: Any, schema_editor: Any) -> None:
    """All or nothing, in one transaction of a moment."""
    for statements in (SWITCH, FUNCTIONS):
        schema_editor.execute(statements, params=None)
    schema_editor.execute(through("runs_run", "runs_event", ADD, column="run_id").sql, params=None)
    schema_editor.execute(ATTACH, params=None)


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("runs", "0008_dead_letters")]
    operations = [
        migrations.RunSQL(CHECK, migrations.RunSQL.noop),
        migrations.RunSQL(VALIDATE, migrations.RunSQL.noop),
        migrations.RunPython(switch, unswitch, atomic=True),
    ]
