-- Statements whose point is locking or bulk. Everything else uses the ORM.
-- The database clock is used on both sides of every comparison: the hosts' clocks differ.
-- Locks are taken in one order everywhere: run, then ready or scheduled, then lease.

-- name: lead
-- Take the leader's seat, or keep it. The epoch grows when the seat changes hands; no row back
-- means that somebody else holds it.
INSERT INTO runs_leader AS seat (shard, holder, epoch, expires_at)
VALUES (%(shard)s, %(holder)s, 1, clock_timestamp() + make_interval(secs => %(ttl_s)s))
    ON CONFLICT (shard) DO UPDATE
   SET holder = EXCLUDED.holder,
       epoch = seat.epoch + (seat.holder <> EXCLUDED.holder)::int,
       expires_at = EXCLUDED.expires_at
 WHERE seat.holder = EXCLUDED.holder OR seat.expires_at < clock_timestamp()
RETURNING epoch;

-- name: hold_seat
-- Prove the seat inside a transaction and keep anybody from taking it until the commit.
SELECT 1
  FROM runs_leader
 WHERE shard = %(shard)s AND holder = %(holder)s AND epoch = %(epoch)s
   AND expires_at > clock_timestamp()
   FOR SHARE;

-- name: leave
UPDATE runs_leader SET expires_at = clock_timestamp() - interval '1 second'
 WHERE shard = %(shard)s AND holder = %(holder)s AND epoch = %(epoch)s;

-- name: find_lane
-- The insert loses harmlessly when the lane is there; then the second branch finds it.
WITH made AS (
    INSERT INTO runs_lane (organization_id, queue, priority, paused)
    SELECT %(organization_id)s, %(queue)s, %(priority)s, false
     WHERE NOT EXISTS (
        SELECT 1 FROM runs_lane
         WHERE organization_id = %(organization_id)s AND queue = %(queue)s
           AND priority = %(priority)s)
        ON CONFLICT DO NOTHING
    RETURNING id
)
SELECT id FROM made
 UNION ALL
SELECT id FROM runs_lane
 WHERE organization_id = %(organization_id)s AND queue = %(queue)s AND priority = %(priority)s
 LIMIT 1;

-- name: make_ready
INSERT INTO runs_ready (run_id, lane_id, seq, dispatches)
VALUES (%(run_id)s, %(lane_id)s, nextval('runs_ready_seq'), %(dispatches)s);

-- name: promote
-- Move runs whose time has come to the end of their lanes, the longest overdue first.
WITH due AS MATERIALIZED (
    SELECT run_id, due_at, dispatches
      FROM runs_scheduled
     WHERE due_at <= clock_timestamp()
     ORDER BY due_at
     LIMIT %(limit)s
       FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM runs_scheduled AS s USING due WHERE s.run_id = due.run_id
    RETURNING s.run_id, s.due_at, s.dispatches
)
INSERT INTO runs_ready (run_id, lane_id, seq, dispatches)
SELECT gone.run_id, lane.id, nextval('runs_ready_seq'), gone.dispatches
  FROM gone
  JOIN runs_run AS run ON run.id = gone.run_id
  JOIN runs_lane AS lane ON lane.organization_id = run.organization_id
       AND lane.queue = run.queue AND lane.priority = run.priority
 ORDER BY gone.due_at;

-- name: waiting_lanes
-- Lanes that have something to run, the urgent class first.
SELECT lane.id, lane.priority
  FROM runs_lane AS lane
 WHERE NOT lane.paused AND EXISTS (SELECT 1 FROM runs_ready AS r WHERE r.lane_id = lane.id)
 ORDER BY lane.priority, lane.id;

-- name: free_slots
-- What the living workers can still take: their slots, less what is on its way or running there.
WITH alive AS (
    SELECT id, slots
      FROM runs_worker
     WHERE gone_at IS NULL AND NOT draining
       AND last_seen > clock_timestamp() - make_interval(secs => %(ttl_s)s)
)
SELECT coalesce((SELECT sum(slots) FROM alive), 0)
     - (SELECT count(*) FROM runs_lease
         WHERE state = 'd' OR worker_id IN (SELECT id FROM alive)) AS slots;

-- name: claim
-- Lease the heads of the chosen lanes. The seat is checked in the same statement, so a deposed
-- leader claims nothing; SKIP LOCKED is the seat belt should two overlap for a moment.
-- The CTE is a fence: it locks exactly the rows it returns.
WITH seat AS MATERIALIZED (
    SELECT 1
      FROM runs_leader
     WHERE shard = %(shard)s AND holder = %(holder)s AND epoch = %(epoch)s
       AND expires_at > clock_timestamp()
), pick AS MATERIALIZED (
    SELECT head.run_id
      FROM seat
     CROSS JOIN unnest(%(lanes)s::bigint[], %(shares)s::int[]) AS want(lane_id, n)
     CROSS JOIN LATERAL (
        SELECT r.run_id FROM runs_ready AS r
         WHERE r.lane_id = want.lane_id
         ORDER BY r.seq
         LIMIT want.n
           FOR UPDATE SKIP LOCKED) AS head
), gone AS (
    DELETE FROM runs_ready AS r USING pick WHERE r.run_id = pick.run_id
    RETURNING r.run_id, r.lane_id, r.dispatches
), leased AS (
    INSERT INTO runs_lease (run_id, lane_id, token, seq, state, dispatched_at, dispatch_deadline)
    SELECT run_id, lane_id, nextval('runs_token_seq'), dispatches + 1, 'd', clock_timestamp(),
           clock_timestamp() + make_interval(secs => %(deadline_s)s)
      FROM gone
    RETURNING run_id, token, seq
)
SELECT leased.run_id, leased.token, leased.seq, run.public_id, run.name, run.trace
  FROM leased JOIN runs_run AS run ON run.id = leased.run_id;

-- name: hand_back
-- Return leases that no worker has started, at no cost to the run: those whose message could not be
-- sent (`tokens`), or those that are overdue.
WITH back AS (
    DELETE FROM runs_lease
     WHERE state = 'd'
       AND (token = ANY(%(tokens)s::bigint[])
            OR (%(overdue)s AND dispatch_deadline < clock_timestamp()))
    RETURNING run_id, lane_id, seq
)
INSERT INTO runs_ready (run_id, lane_id, seq, dispatches)
SELECT run_id, lane_id, nextval('runs_ready_seq'), seq FROM back
RETURNING run_id;

-- name: start
-- A worker takes up a dispatched run: compare-and-set on the token. No row back means that the run
-- was cancelled, handed back or given to another; the caller returns quietly.
WITH held AS MATERIALIZED (
    SELECT id FROM runs_run WHERE id = %(run_id)s FOR NO KEY UPDATE
), mine AS (
    UPDATE runs_lease AS lease
       SET state = 'r', worker_id = %(worker_id)s, started_at = clock_timestamp(),
           hard_deadline = clock_timestamp() + make_interval(secs => run.timeout_s + %(grace_s)s)
      FROM held JOIN runs_run AS run ON run.id = held.id
     WHERE lease.run_id = held.id AND lease.token = %(token)s AND lease.state = 'd'
    RETURNING lease.run_id, lease.token
), run AS (
    UPDATE runs_run AS run
       SET state = 'running', attempts = run.attempts + 1,
           started_at = coalesce(run.started_at, clock_timestamp())
      FROM mine
     WHERE run.id = mine.run_id
    RETURNING run.id, run.public_id, run.organization_id, run.project_id, run.agent_version_id,
              run.attempts, run.spec, run.trace, run.timeout_s, mine.token
), attempt AS (
    INSERT INTO runs_attempt (run_id, number, token, worker_name, outcome, started_at)
    SELECT id, attempts, token, %(worker_name)s, '', clock_timestamp() FROM run
), log AS (
    INSERT INTO runs_event (run_id, seq, kind, payload)
    SELECT run.id, 1 + coalesce((SELECT max(e.seq) FROM runs_event AS e WHERE e.run_id = run.id), 0),
           'run', jsonb_build_object('state', 'running', 'attempt', run.attempts,
                                     'worker', %(worker_name)s::text)
      FROM run
    RETURNING seq
)
SELECT run.public_id, run.organization_id, run.project_id, run.attempts AS attempt, run.spec,
       run.trace, run.timeout_s, log.seq AS last_event_seq,
       version.spec AS agent_spec, agent.slug AS agent_slug
  FROM run
  JOIN log ON true
  JOIN agents_agentversion AS version ON version.id = run.agent_version_id
  JOIN agents_agent AS agent ON agent.id = version.agent_id;

-- name: append
-- Write lines to a run's own log, in the name of a lease that still holds.
WITH held AS MATERIALIZED (
    SELECT 1 FROM runs_lease
     WHERE run_id = %(run_id)s AND token = %(token)s
       FOR KEY SHARE
)
INSERT INTO runs_event (run_id, seq, kind, payload)
SELECT %(run_id)s, %(after)s + line.n, line.kind, line.payload
  FROM held
 CROSS JOIN unnest(%(kinds)s::text[], %(payloads)s::text[]::jsonb[])
       WITH ORDINALITY AS line(kind, payload, n);

-- name: log
-- Write a line for a run that no worker holds, in the transaction that has locked the run.
INSERT INTO runs_event (run_id, seq, kind, payload)
SELECT %(run_id)s, 1 + coalesce((SELECT max(seq) FROM runs_event WHERE run_id = %(run_id)s), 0),
       'run', %(payload)s::jsonb;

-- name: orphans
-- Running leases whose holder is gone or silent, or whose time is up; the oldest first.
SELECT lease.run_id, lease.token,
       CASE WHEN lease.hard_deadline < clock_timestamp() THEN 'overdue'
            WHEN lease.cancel_requested_at < clock_timestamp() - interval '10 seconds' THEN 'cancel'
            ELSE 'lost' END AS why
  FROM runs_lease AS lease
  LEFT JOIN runs_worker AS worker ON worker.id = lease.worker_id
 WHERE lease.state = 'r'
   AND (lease.hard_deadline < clock_timestamp()
        OR lease.cancel_requested_at < clock_timestamp() - interval '10 seconds'
        OR worker.id IS NULL
        OR worker.gone_at IS NOT NULL
        OR (%(trust_silence)s
            AND worker.last_seen < clock_timestamp() - make_interval(secs => %(ttl_s)s)))
 ORDER BY lease.started_at
 LIMIT %(limit)s;

-- name: overdue_in_queue
SELECT id FROM runs_run
 WHERE state = 'queued' AND attempts = 0 AND queue_deadline < clock_timestamp()
 ORDER BY queue_deadline
 LIMIT %(limit)s;

-- name: beat
-- A worker says it is alive. No row back: another incarnation has taken its name, and it must stop.
UPDATE runs_worker
   SET last_seen = clock_timestamp(), running = %(running)s
 WHERE id = %(worker_id)s AND gone_at IS NULL
RETURNING draining;

-- name: orders
-- What a worker still holds, and which of it people want cancelled.
SELECT run_id, token, cancel_requested_at IS NOT NULL AS cancelled
  FROM runs_lease
 WHERE worker_id = %(worker_id)s;
