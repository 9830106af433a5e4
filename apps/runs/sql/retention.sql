-- The tables of the runs' log. They are only named inside the functions that the migration made.

-- name: bound
-- Attaching and detaching lock the log for a moment; whoever waits for the lock holds up all who come after.
SET LOCAL lock_timeout = '500ms';

-- name: make
SELECT runs_log_make_month(%(month)s) AS made;

-- name: past
SELECT month FROM runs_log_months()
 WHERE upper <= %(cutoff)s::timestamp AT TIME ZONE 'UTC'
 ORDER BY upper;

-- name: drop
SELECT runs_log_drop_month(%(month)s) AS kept;

-- name: clear_rest
DELETE FROM runs_event_rest AS line
 USING runs_run AS run
 WHERE run.id = line.run_id AND run.finished_at IS NOT NULL
   AND line.at < %(cutoff)s::timestamp AT TIME ZONE 'UTC';
