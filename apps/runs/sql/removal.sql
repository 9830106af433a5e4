-- Removing runs that ended long ago. The oldest come first: keys grow with the time of submission.

-- name: window
-- How far the next look reaches: over so many runs of the organization, none of them submitted too lately. A
-- run ends after it was submitted, so nothing behind that can be due.
SELECT max(id) FILTER (WHERE created_at < %(cutoff)s) AS upto,
       count(*) < %(most)s OR bool_or(created_at >= %(cutoff)s) AS is_last
  FROM (SELECT id, created_at FROM runs_run
         WHERE organization_id = %(organization)s AND id > %(after)s
         ORDER BY id
         LIMIT %(most)s) AS next;

-- name: remove
-- Delete what is due among these, with all that is a run's own and the roles over it alone. Not a run that an
-- open one depends on; of a tree nothing while a part of it is open, and then children before their parents;
-- not one that took a dead run's place while that one's letter is there; and nothing that somebody holds at
-- this moment. What points at it from outside forgets it. Checks of references come at the commit.
WITH due AS MATERIALIZED (
    SELECT run.id
      FROM runs_run AS run
     WHERE run.organization_id = %(organization)s AND run.id > %(after)s AND run.id <= %(upto)s
       AND run.finished_at < %(cutoff)s
       AND NOT (run.linked AND EXISTS (
           SELECT FROM runs_dependency AS need JOIN runs_run AS later ON later.id = need.run_id
            WHERE need.on_id = run.id AND later.finished_at IS NULL))
       AND NOT (run.kin AND (
           EXISTS (SELECT FROM runs_child AS child WHERE child.parent_id = run.id)
           OR EXISTS (
               SELECT FROM runs_child AS own JOIN runs_run AS root ON root.id = own.root_id
                WHERE own.run_id = run.id AND root.finished_at IS NULL)
           OR EXISTS (
               SELECT FROM runs_child AS own
                 JOIN runs_child AS other ON other.root_id = own.root_id
                 JOIN runs_run AS relative ON relative.id = other.run_id
                WHERE own.run_id = run.id AND relative.finished_at IS NULL)))
       AND NOT EXISTS (SELECT FROM runs_deadletter AS letter WHERE letter.requeued_as_id = run.id)
     ORDER BY run.id
       FOR UPDATE SKIP LOCKED
), lines AS (
    DELETE FROM runs_event AS line USING due WHERE line.run_id = due.id
), attempts AS (
    DELETE FROM runs_attempt AS attempt USING due WHERE attempt.run_id = due.id
), artifacts AS (
    DELETE FROM runs_artifact AS artifact USING due WHERE artifact.run_id = due.id
), letters AS (
    DELETE FROM runs_deadletter AS letter USING due WHERE letter.run_id = due.id
), needs AS (
    DELETE FROM runs_dependency AS need USING due WHERE need.run_id = due.id OR need.on_id = due.id
), kinship AS (
    DELETE FROM runs_child AS child USING due WHERE child.run_id = due.id
), shares AS (
    DELETE FROM runs_share AS share USING due WHERE share.run_id = due.id
), budgets AS (
    DELETE FROM runs_budget AS budget USING due WHERE budget.run_id = due.id
), keys AS (
    DELETE FROM runs_idempotencykey AS key USING due WHERE key.run_id = due.id
), fires AS (
    UPDATE runs_schedule_fire AS fire SET run_id = NULL FROM due WHERE fire.run_id = due.id
), reruns AS (
    UPDATE runs_run AS again SET rerun_of_id = NULL
      FROM due
     WHERE again.rerun_of_id = due.id AND again.id NOT IN (SELECT id FROM due)
), roles AS (
    DELETE FROM identity_binding AS held USING due WHERE held.run_key = due.id RETURNING 1
), gone AS (
    DELETE FROM runs_run AS run USING due WHERE run.id = due.id RETURNING 1
)
SELECT (SELECT count(*) FROM gone) AS runs, (SELECT count(*) FROM roles) AS roles;
