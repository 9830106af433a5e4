-- The relay: waiting value events become entries of their project's log.

-- name: move
-- Take the oldest waiting events, number them in their projects, append them to the log: one
-- statement, so that there is no state in between for a crash to leave behind.
--
-- No SKIP LOCKED: two relays can meet only while the leader's seat changes hands, and the later one
-- must then wait. Stepping over the earlier one's rows would number a writer's second event before
-- its first.
--
-- `fresh` leaves out what the log already has (the same event, or a second receipt of a run): it is
-- taken from the outbox, gets no number, and cannot block everything behind it. The log is asked about each
-- event by key, never with EXISTS: that may be planned as one reading of all receipts there are. "= ANY (ARRAY[...])"
-- has its reason, see apps/runs/sql/queue.sql.
WITH batch AS MATERIALIZED (
    SELECT id FROM events_outboxentry ORDER BY id LIMIT %(limit)s FOR UPDATE
), taken AS (
    DELETE FROM events_outboxentry AS entry USING batch WHERE entry.id = ANY (ARRAY[batch.id])
    RETURNING entry.*
), judged AS MATERIALIZED (
    SELECT taken.*,
           (SELECT event.id FROM events_event AS event
             WHERE event.event_id = taken.event_id LIMIT 1) IS NULL
           AND (taken.type <> 'task.receipt'
                OR (SELECT event.id FROM events_event AS event
                     WHERE event.run_id = taken.run_id AND event.type = 'task.receipt' LIMIT 1) IS NULL)
           AS is_new
      FROM taken
), fresh AS (
    SELECT judged.*, row_number() OVER (PARTITION BY project_id ORDER BY id) AS place
      FROM judged
     WHERE is_new
), stream AS (
    INSERT INTO events_stream AS stream (project_id, last_seq)
    SELECT project_id, count(*) FROM fresh GROUP BY project_id ORDER BY project_id
        ON CONFLICT (project_id) DO UPDATE SET last_seq = stream.last_seq + excluded.last_seq
    RETURNING stream.project_id, stream.last_seq
), moved AS (
    INSERT INTO events_event (event_id, organization_id, project_id, run_id, trace_id, type,
                              severity, payload, at, seq)
    SELECT fresh.event_id, fresh.organization_id, fresh.project_id, fresh.run_id, fresh.trace_id,
           fresh.type, fresh.severity, fresh.payload, fresh.at,
           stream.last_seq - count(*) OVER (PARTITION BY fresh.project_id) + fresh.place
      FROM fresh JOIN stream USING (project_id)
     ORDER BY fresh.id
)
SELECT project_id, count(*) FILTER (WHERE is_new) AS moved,
       array_agg(event_id::text) FILTER (WHERE NOT is_new) AS refused, count(*) AS taken
  FROM judged
 GROUP BY project_id;
