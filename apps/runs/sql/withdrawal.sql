-- Runs of people who have lost what let them run. The hot tables name the open runs; the truth is not
-- searched for them.

-- name: note_ended
-- Bindings that have ended by themselves since the last look: nobody's act, so no trigger noted them.
WITH ended AS MATERIALIZED (
    SELECT user_id, department_id FROM identity_binding
     WHERE expires_at > %(since)s AND expires_at <= %(until)s
)
INSERT INTO identity_withdrawal (user_id)
SELECT user_id FROM ended WHERE user_id IS NOT NULL
 UNION
SELECT member.user_id
  FROM ended JOIN identity_user_departments AS member ON member.department_id = ended.department_id;

-- name: note_all
-- Everybody who has an open run: what a new leader begins with, as nobody may have looked before it.
INSERT INTO identity_withdrawal (user_id)
SELECT DISTINCT run.submitted_by_id
  FROM (SELECT run_id FROM runs_lease
         UNION ALL SELECT run_id FROM runs_ready
         UNION ALL SELECT run_id FROM runs_scheduled
         UNION ALL SELECT run_id FROM runs_waiting) AS hot
  JOIN runs_run AS run ON run.id = hot.run_id;

-- name: open_for
-- Where these people have open runs: person, project, agent; those first where one runs already.
SELECT run.submitted_by_id, run.project_id, version.agent_id
  FROM (SELECT run_id, 0 AS place FROM runs_lease
         UNION ALL SELECT run_id, 1 FROM runs_ready
         UNION ALL SELECT run_id, 2 FROM runs_scheduled
         UNION ALL SELECT run_id, 2 FROM runs_waiting) AS hot
  JOIN runs_run AS run ON run.id = hot.run_id
  JOIN agents_agentversion AS version ON version.id = run.agent_version_id
 WHERE run.submitted_by_id = ANY(%(users)s::uuid[]) AND run.state <> 'cancelling'
 GROUP BY run.submitted_by_id, run.project_id, version.agent_id
 ORDER BY min(hot.place);

-- name: open_of
-- The open runs of one person, project and agent; those that run before those that wait.
SELECT run.id
  FROM (SELECT run_id, 0 AS place FROM runs_lease
         UNION ALL SELECT run_id, 1 FROM runs_ready
         UNION ALL SELECT run_id, 2 FROM runs_scheduled
         UNION ALL SELECT run_id, 2 FROM runs_waiting) AS hot
  JOIN runs_run AS run ON run.id = hot.run_id
  JOIN agents_agentversion AS version ON version.id = run.agent_version_id
 WHERE run.submitted_by_id = %(user)s AND run.project_id = %(project)s
   AND version.agent_id = %(agent)s AND run.state <> 'cancelling'
 ORDER BY hot.place, run.id
 LIMIT %(limit)s;

-- name: done
-- These rows are dealt with. What was looked at for the first time is looked at once more: a submission
-- that was under way at the time had asked before the loss, and committed after the look.
WITH gone AS (
    DELETE FROM identity_withdrawal WHERE id = ANY(%(ids)s::bigint[])
    RETURNING user_id, is_second_look
)
INSERT INTO identity_withdrawal (user_id, due_at, is_second_look)
SELECT DISTINCT user_id, clock_timestamp() + make_interval(secs => %(again_s)s), true
  FROM gone WHERE NOT is_second_look;
