-- What still refers to stored contents.

-- name: referred
-- Those of the sums that somebody may still ask for. An artifact whose time is over keeps its row, as a
-- record of what there was, and lets go of its content. So does a sandbox that is not put away any more.
SELECT sum.sha256
FROM unnest(%(sums)s::text[]) AS sum (sha256)
WHERE EXISTS (
        SELECT FROM runs_artifact a
        WHERE a.sha256 = sum.sha256
          AND (%(days)s = 0 OR a.created_at > statement_timestamp() - make_interval(days => %(days)s)))
   OR EXISTS (SELECT FROM projects_workspacefile f WHERE f.sha256 = sum.sha256)
   OR EXISTS (SELECT FROM sandboxes_sandbox s WHERE s.sha256 = sum.sha256 AND s.state = 'snapshotted')
   OR EXISTS (
        SELECT FROM runs_run r
        WHERE r.spec -> 'files' <> '[]'::jsonb
          AND r.spec -> 'files' @> jsonb_build_array(jsonb_build_object('sha256', sum.sha256)))

-- name: others_since
-- Transactions that were under way at that moment and still are: they may be about to refer to a content.
SELECT count(*) AS others
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start <= %(moment)s

-- name: moment
SELECT clock_timestamp() AS moment
