-- Statements whose point is locking or bulk. Everything else uses the ORM.
-- The database clock is used on both sides of every comparison: the hosts' clocks differ.
-- Locks are taken in one order everywhere: run, then ready or scheduled, then lease.
--
-- "key = ANY (ARRAY[other])" is an equality of which PostgreSQL makes one thing only: a look-up in the index for
-- each of the others. Plans are kept here (apps/core/postgres/direct.py), and tables of a queue are often vacuumed
-- while they are nearly empty. Of a plain equality it then makes a plan that reads the whole index in its order and
-- compares each row with each of the others, and keeps it when the table fills.

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

-- name: accept
-- Store new runs, queue them, write the first line of their logs and their acceptance, and what goes on record
-- of it: four statements in one round trip. Not one, because row security looks at the run before it lets a web
-- request write beside it, and a statement sees only what earlier ones wrote.
INSERT INTO runs_run (public_id, organization_id, project_id, agent_version_id, submitted_by_id,
                      rerun_of_id, name, queue, priority, spec, retry, labels, concurrency_key, trace,
                      trace_id, state, run_at, queue_deadline, total_deadline, timeout_s, requires,
                      pool_gate, attempts, crash_count, isolation)
SELECT public_id, organization_id, project_id, agent_version_id, submitted_by_id, rerun_of_id, name,
       queue, priority, spec, retry, labels, concurrency_key, trace, trace_id, 'queued', run_at,
       queue_deadline,
       least(greatest(run_at, clock_timestamp()) + make_interval(secs => total_deadline_s), latest_end),
       timeout_s, requires, pool_gate, 0, 0, ''
  FROM jsonb_to_recordset(%(runs)s::jsonb) AS r (
       place int, public_id uuid, organization_id uuid, project_id uuid, agent_version_id uuid,
       submitted_by_id uuid, rerun_of_id bigint, name text, queue text, priority smallint, spec jsonb,
       retry jsonb, labels jsonb, concurrency_key text, trace jsonb, trace_id text,
       run_at timestamptz, queue_deadline timestamptz, total_deadline_s int,
       latest_end timestamptz, timeout_s int, requires jsonb, pool_gate uuid)
 ORDER BY place
RETURNING id, public_id, created_at, total_deadline;

INSERT INTO runs_lane (organization_id, queue, priority, paused)
SELECT DISTINCT organization_id, queue, priority, false
  FROM jsonb_to_recordset(%(runs)s::jsonb) AS r (organization_id uuid, queue text, priority smallint)
 WHERE NOT EXISTS (
       SELECT FROM runs_lane AS lane
        WHERE lane.organization_id = r.organization_id AND lane.queue = r.queue
          AND lane.priority = r.priority)
 ORDER BY queue, priority
    ON CONFLICT DO NOTHING;

WITH new AS MATERIALIZED (
    SELECT run.id, run.public_id, run.organization_id, run.project_id, run.trace_id,
           run.queue_deadline, run.pool_gate, lane.id AS lane_id, n.due_at, n.event_id, n.line, n.news
      FROM jsonb_to_recordset(%(runs)s::jsonb) AS n (
           public_id uuid, due_at timestamptz, event_id uuid, line jsonb, news jsonb)
      JOIN runs_run AS run USING (public_id)
      JOIN runs_lane AS lane ON lane.organization_id = run.organization_id
           AND lane.queue = run.queue AND lane.priority = run.priority
), ready AS (
    INSERT INTO runs_ready (run_id, lane_id, seq, dispatches, ready_at, queue_deadline, gate)
    SELECT id, lane_id, nextval('runs_ready_seq'), 0, clock_timestamp(), queue_deadline, pool_gate
      FROM (SELECT * FROM new WHERE due_at IS NULL ORDER BY id) AS now
), scheduled AS (
    INSERT INTO runs_scheduled (run_id, due_at, dispatches)
    SELECT id, due_at, 0 FROM new WHERE due_at IS NOT NULL
), log AS (
    INSERT INTO runs_event (run_id, seq, kind, payload) SELECT id, 1, 'run', line FROM new
)
INSERT INTO events_outboxentry (event_id, organization_id, project_id, run_id, trace_id, type,
                                severity, payload)
SELECT event_id, organization_id, project_id, public_id, trace_id, 'task.acceptance', 'info', news
  FROM new
 ORDER BY id;

INSERT INTO events_auditentry (organization_id, actor_kind, actor_id, actor_name, token_id, agent_id, run_id,
                               action, resource_type, resource_id, detail, trace_id)
SELECT entry.*
  FROM jsonb_to_recordset(%(entries)s::jsonb) AS entry (
       organization_id uuid, actor_kind text, actor_id uuid, actor_name text, token_id uuid, agent_id uuid,
       run_id uuid, action text, resource_type text, resource_id text, detail jsonb, trace_id text);

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
INSERT INTO runs_ready (run_id, lane_id, seq, dispatches, ready_at, queue_deadline, gate)
SELECT id, %(lane_id)s, nextval('runs_ready_seq'), %(dispatches)s, clock_timestamp(),
       CASE WHEN attempts = 0 THEN queue_deadline END, pool_gate
  FROM runs_run
 WHERE id = %(run_id)s;

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
    DELETE FROM runs_scheduled AS s USING due WHERE s.run_id = ANY (ARRAY[due.run_id])
    RETURNING s.run_id, s.due_at, s.dispatches
)
INSERT INTO runs_ready (run_id, lane_id, seq, dispatches, ready_at, queue_deadline, gate)
SELECT gone.run_id, lane.id, nextval('runs_ready_seq'), gone.dispatches, clock_timestamp(),
       CASE WHEN run.attempts = 0 THEN run.queue_deadline END, run.pool_gate
  FROM gone
  JOIN runs_run AS run ON run.id = ANY (ARRAY[gone.run_id])
  JOIN runs_lane AS lane ON lane.organization_id = run.organization_id
       AND lane.queue = run.queue AND lane.priority = run.priority
 ORDER BY gone.due_at;

-- name: heads
-- The first few runs of each lane that is neither paused nor closed, and of those that are parked at a gate
-- that is open again. Costs one index look-up for each lane and row, however many wait behind them.
SELECT head.lane_id, head.lane_gate, head.organization_id, head.priority, head.seq, head.run_id,
       head.gate, extract(epoch FROM clock_timestamp() - head.ready_at)::float AS waited_s,
       run.agent_version_id AS version_id, run.project_id, run.concurrency_key, run.requires,
       run.pool_gate AS home
  FROM (
    SELECT lane.id AS lane_id, lane.gate AS lane_gate, lane.organization_id, lane.priority, r.*
      FROM runs_lane AS lane
     CROSS JOIN LATERAL (
           SELECT ready.run_id, ready.seq, ready.ready_at, ready.gate FROM runs_ready AS ready
            WHERE ready.lane_id = lane.id AND ready.gate IS NULL
            ORDER BY ready.seq
            LIMIT %(reach)s) AS r
     WHERE NOT lane.paused AND lane.gate <> ALL(%(closed)s::uuid[])
       AND lane.organization_id <> ALL(%(closed)s::uuid[])
    UNION ALL
    SELECT lane.id, lane.gate, lane.organization_id, lane.priority, r.*
      FROM unnest(%(open)s::uuid[], %(free)s::int[]) AS open (gate, free)
     CROSS JOIN LATERAL (
           SELECT home.organization_id
             FROM runs_ready AS ready JOIN runs_lane AS home ON home.id = ready.lane_id
            WHERE ready.gate = open.gate
            LIMIT 1) AS home
      JOIN runs_lane AS lane ON lane.organization_id = home.organization_id
     CROSS JOIN LATERAL (
           SELECT ready.run_id, ready.seq, ready.ready_at, ready.gate FROM runs_ready AS ready
            WHERE ready.gate = open.gate AND ready.lane_id = lane.id
            ORDER BY ready.seq
            LIMIT open.free) AS r
     WHERE NOT lane.paused AND lane.gate <> ALL(%(closed)s::uuid[])
       AND lane.organization_id <> ALL(%(closed)s::uuid[])
  ) AS head
  JOIN runs_run AS run ON run.id = ANY (ARRAY[head.run_id]);

-- name: rules
-- All limits, with the number that grows at each change of one: read together, so that they belong together.
SELECT (SELECT rules FROM runs_leader WHERE shard = %(shard)s) AS version, limits.*
  FROM (VALUES (1)) AS once
  LEFT JOIN (
       SELECT gate, organization_id, scope, cap, rate_count, rate_seconds,
              paused_at IS NOT NULL AS paused
         FROM runs_limit
        UNION ALL
       SELECT gate, organization_id, 'queue', cap, NULL, NULL, false FROM runs_lane WHERE cap IS NOT NULL
       ) AS limits ON true;

-- name: urgent
-- How many slots the urgent runs of each organization take up.
SELECT lane.organization_id, count(DISTINCT lease.message) AS taken
  FROM runs_lease AS lease JOIN runs_lane AS lane ON lane.id = lease.lane_id
 WHERE lane.priority = 0
 GROUP BY lane.organization_id;

-- name: agents_of
SELECT id AS version_id, agent_id FROM agents_agentversion WHERE id = ANY(%(versions)s::uuid[]);

-- name: usage
-- How full these gates are, and on request all those at which runs are parked: found by hopping from one to
-- the next in the index, however many wait at each. ahead_s: how long until the bucket is full again.
WITH RECURSIVE hop AS (
    (SELECT gate FROM runs_ready WHERE %(parked)s AND gate IS NOT NULL ORDER BY gate LIMIT 1)
    UNION ALL
    SELECT (SELECT next.gate FROM runs_ready AS next
             WHERE next.gate IS NOT NULL AND next.gate > hop.gate ORDER BY next.gate LIMIT 1)
      FROM hop
     WHERE hop.gate IS NOT NULL
), asked AS (
    SELECT gate, bool_or(parked) AS parked
      FROM (SELECT gate, true AS parked FROM hop WHERE gate IS NOT NULL
             UNION ALL
            SELECT gate, false FROM unnest(%(gates)s::uuid[]) AS named (gate)) AS all_of_them
     GROUP BY gate
)
SELECT gate, parked,
       ARRAY(SELECT number FROM runs_hold AS hold WHERE hold.gate = asked.gate) AS places,
       (SELECT extract(epoch FROM full_at - statement_timestamp())::float FROM runs_bucket AS bucket
         WHERE bucket.gate = asked.gate) AS ahead_s
  FROM asked;

-- name: required
-- What the runs require that wait for a worker at these gates: all of a gate require the same.
SELECT gate.id AS gate, run.requires
  FROM unnest(%(gates)s::uuid[]) AS gate (id)
 CROSS JOIN LATERAL (
       SELECT requires FROM runs_ready AS ready JOIN runs_run AS run ON run.id = ready.run_id
        WHERE ready.gate = gate.id
        LIMIT 1) AS run;

-- name: pools
-- The living workers by their labels, and how many messages each kind of them can take. What was sent to any
-- worker and has not arrived counts for none: it goes to whoever is free first.
WITH alive AS (
    SELECT id, pool, labels || jsonb_build_object('version', version) AS labels, slots
      FROM runs_worker
     WHERE gone_at IS NULL AND NOT draining
       AND last_seen > clock_timestamp() - make_interval(secs => %(ttl_s)s)
), busy AS (
    SELECT coalesce(lease.pool, alive.pool) AS pool, count(DISTINCT lease.message) AS taken
      FROM runs_lease AS lease
      LEFT JOIN alive ON alive.id = lease.worker_id
     WHERE alive.id IS NOT NULL OR (lease.state = 'd' AND lease.pool IS NOT NULL)
     GROUP BY 1
)
SELECT alive.pool, (array_agg(alive.labels))[1] AS labels,
       greatest(0, sum(alive.slots) - coalesce(max(busy.taken), 0))::int AS free
  FROM alive LEFT JOIN busy USING (pool)
 GROUP BY alive.pool;

-- name: park
-- Move runs out of their lanes to the gates that do not let them through. Not one that somebody is
-- cancelling at this moment, and only while we lead.
WITH seat AS MATERIALIZED (
    SELECT 1
      FROM runs_leader
     WHERE shard = %(shard)s AND holder = %(holder)s AND epoch = %(epoch)s
       AND expires_at > clock_timestamp()
       FOR SHARE
), pick AS MATERIALIZED (
    SELECT r.run_id, want.gate
      FROM seat
     CROSS JOIN unnest(%(runs)s::bigint[], %(gates)s::uuid[]) AS want (run_id, gate)
      JOIN runs_ready AS r ON r.run_id = ANY (ARRAY[want.run_id])
       FOR UPDATE OF r SKIP LOCKED
)
UPDATE runs_ready AS r SET gate = pick.gate FROM pick WHERE r.run_id = ANY (ARRAY[pick.run_id]);

-- name: look
-- One glance at all that a leader may have to do, so that a round with nothing to do is one statement.
-- slots: of the living workers. taken: messages on their way, or in work there; leases sent in one message
-- share its number.
WITH alive AS (
    SELECT id, slots
      FROM runs_worker
     WHERE gone_at IS NULL AND NOT draining
       AND last_seen > clock_timestamp() - make_interval(secs => %(ttl_s)s)
)
SELECT coalesce((SELECT sum(slots) FROM alive), 0)::int AS slots,
       (SELECT count(DISTINCT message) FROM runs_lease
         WHERE state = 'd' OR worker_id IN (SELECT id FROM alive))::int AS taken,
       EXISTS (SELECT FROM runs_ready WHERE gate IS NULL) AS has_ready,
       EXISTS (SELECT FROM runs_ready WHERE gate IS NOT NULL) AS has_parked,
       (SELECT rules FROM runs_leader WHERE shard = %(shard)s) AS rules,
       EXISTS (SELECT FROM runs_scheduled WHERE due_at <= clock_timestamp()) AS has_due,
       EXISTS (SELECT FROM events_outboxentry) AS has_news,
       EXISTS (SELECT FROM events_auditinbox) AS has_unsealed;

-- name: paces
-- How long a run of each version takes, as far as it was measured.
SELECT pace.version_id, pace.mean_s, agent.kind
  FROM runs_pace AS pace
  JOIN agents_agentversion AS version ON version.id = pace.version_id
  JOIN agents_agent AS agent ON agent.id = version.agent_id;

-- name: note_pace
-- A worker tells how long its last runs of a version took. The more runs, the more they count; what
-- was known fades by a fifth with each.
INSERT INTO runs_pace AS pace (version_id, mean_s, runs, measured_at)
VALUES (%(version_id)s, %(mean_s)s, %(runs)s, clock_timestamp())
    ON CONFLICT (version_id) DO UPDATE
   SET mean_s = excluded.mean_s
              + (pace.mean_s - excluded.mean_s) * power(0.8, least(excluded.runs, 50)),
       runs = pace.runs + excluded.runs,
       measured_at = excluded.measured_at;

-- name: claim
-- Lease the chosen runs, in their order, with the places they take behind their gates and the tokens they
-- spend there. The seat is proved and held in the same statement, so a deposed leader claims nothing, and
-- nobody claims by limits that have changed; SKIP LOCKED steps over a run that somebody is cancelling at this
-- moment, and is the seat belt should two leaders overlap: then the index over places refuses the statement
-- of one of them. The CTE is a fence: it locks exactly the rows it returns.
--
-- Its commit does not wait for the disk, which START waits for in any case, with all that was written before. A
-- claim that a crash takes back was not started: its runs are ready again, and its messages find no lease.
WITH hasty AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true)
), seat AS MATERIALIZED (
    SELECT 1
      FROM runs_leader
     WHERE shard = %(shard)s AND holder = %(holder)s AND epoch = %(epoch)s
       AND expires_at > clock_timestamp() AND rules = %(rules)s
       FOR SHARE
), pick AS MATERIALIZED (
    SELECT r.run_id, want.message, want.passes, want.pool, want.place
      FROM seat
     CROSS JOIN unnest(%(runs)s::bigint[], %(messages)s::bigint[], %(passes)s::text[], %(pools)s::text[])
           WITH ORDINALITY AS want (run_id, message, passes, pool, place)
      JOIN runs_ready AS r ON r.run_id = ANY (ARRAY[want.run_id])
       FOR UPDATE OF r SKIP LOCKED
), gone AS (
    DELETE FROM runs_ready AS r USING pick WHERE r.run_id = ANY (ARRAY[pick.run_id])
    RETURNING r.run_id, r.lane_id, r.dispatches, pick.message, pick.passes, pick.pool, pick.place
), pass AS (
    SELECT gone.run_id, pass.*
      FROM gone
     CROSS JOIN LATERAL jsonb_to_recordset(gone.passes::jsonb) AS pass (
           gate uuid, organization uuid, number int, step_s float)
), taken AS (
    INSERT INTO runs_hold (gate, number, run_id)
    SELECT gate, number, run_id FROM pass WHERE number IS NOT NULL
), spent AS (
    INSERT INTO runs_bucket AS bucket (gate, organization_id, full_at)
    SELECT gate, organization, statement_timestamp() + make_interval(secs => sum(step_s))
      FROM pass
     WHERE step_s IS NOT NULL
     GROUP BY gate, organization
        ON CONFLICT (gate) DO UPDATE
       SET full_at = greatest(bucket.full_at, statement_timestamp())
                   + (excluded.full_at - statement_timestamp())
), leased AS (
    INSERT INTO runs_lease (run_id, lane_id, token, seq, state, message, pool, gated, dispatched_at,
                            dispatch_deadline)
    SELECT run_id, lane_id, nextval('runs_token_seq'), dispatches + 1, 'd', message, pool,
           passes IS NOT NULL, clock_timestamp(), clock_timestamp() + make_interval(secs => %(deadline_s)s)
      FROM gone
     ORDER BY place
    RETURNING run_id, token, seq
)
SELECT leased.run_id, leased.token, leased.seq, run.public_id, run.name, run.trace
  FROM leased JOIN runs_run AS run ON run.id = ANY (ARRAY[leased.run_id]) CROSS JOIN hasty;

-- name: hand_back
-- Return leases that no worker has started, at no cost to the run: those whose message could not be
-- sent (`tokens`), or those that are overdue, or were sent to workers of a kind that is gone.
WITH back AS (
    DELETE FROM runs_lease
     WHERE state = 'd'
       AND (token = ANY(%(tokens)s::bigint[])
            OR (%(overdue)s AND dispatch_deadline < clock_timestamp())
            OR (%(overdue)s AND pool IS NOT NULL AND NOT EXISTS (
                SELECT FROM runs_worker AS worker
                 WHERE worker.pool = runs_lease.pool AND worker.gone_at IS NULL
                   AND NOT worker.draining)))
    RETURNING run_id, lane_id, seq
)
INSERT INTO runs_ready (run_id, lane_id, seq, dispatches, ready_at, queue_deadline, gate)
SELECT back.run_id, back.lane_id, nextval('runs_ready_seq'), back.seq, clock_timestamp(),
       CASE WHEN run.attempts = 0 THEN run.queue_deadline END, run.pool_gate
  FROM back JOIN runs_run AS run ON run.id = back.run_id
RETURNING run_id;

-- name: start
-- A worker takes up dispatched runs, one or a message full: compare-and-set on each token. No row back
-- means that the run was cancelled, handed back or given to another; the caller drops it quietly.
WITH held AS MATERIALIZED (
    SELECT run.id, run.timeout_s, wanted.token
      FROM unnest(%(run_ids)s::bigint[], %(tokens)s::bigint[]) AS wanted (run_id, token)
      JOIN runs_run AS run ON run.id = ANY (ARRAY[wanted.run_id])
     ORDER BY run.id
       FOR NO KEY UPDATE OF run
), mine AS (
    UPDATE runs_lease AS lease
       SET state = 'r', worker_id = %(worker_id)s, started_at = clock_timestamp(),
           hard_deadline = clock_timestamp() + make_interval(secs => held.timeout_s + %(grace_s)s)
      FROM held
     WHERE lease.run_id = ANY (ARRAY[held.id]) AND lease.token = ANY (ARRAY[held.token]) AND lease.state = 'd'
       AND (lease.pool IS NULL OR lease.pool = %(pool)s)
    RETURNING lease.run_id, lease.token, lease.seq
), run AS (
    UPDATE runs_run AS run
       SET state = 'running', attempts = run.attempts + 1,
           started_at = coalesce(run.started_at, clock_timestamp())
      FROM mine
     WHERE run.id = ANY (ARRAY[mine.run_id])
    RETURNING run.id, run.public_id, run.organization_id, run.project_id, run.agent_version_id,
              run.attempts, run.spec, run.trace, run.timeout_s, run.name, mine.token, mine.seq,
              1 + coalesce((SELECT max(e.seq) FROM runs_event AS e WHERE e.run_id = run.id), 0)
                  AS last_event_seq
), attempt AS (
    INSERT INTO runs_attempt (run_id, number, token, worker_name, outcome, started_at)
    SELECT id, attempts, token, %(worker_name)s::text, '', clock_timestamp() FROM run
), log AS (
    INSERT INTO runs_event (run_id, seq, kind, payload)
    SELECT id, last_event_seq, 'run',
           jsonb_build_object('state', 'running', 'attempt', attempts, 'worker', %(worker_name)s::text)
      FROM run
)
SELECT id AS run_id, token, public_id, organization_id, project_id, attempts AS attempt, spec, trace,
       timeout_s, agent_version_id AS version_id, name, seq, last_event_seq
  FROM run;

-- name: finish
-- Bring runs to a final state, one or a message full: lease, run, attempt, log and receipt in one
-- statement, so that there is no state in between for a crash to leave behind. This is the one
-- place that writes receipts.
--
-- A worker's report proves its lease by the token, never by a state; no row back means that the lease is
-- not the worker's any more. A report without a token comes from a transaction that has locked the run
-- and taken away what it held.
WITH held AS MATERIALIZED (
    SELECT report.*
      FROM jsonb_to_recordset(%(reports)s::jsonb) AS report (
           run_id bigint, token bigint, after int, state text, result jsonb, error jsonb,
           isolation text, lines jsonb, artifacts jsonb, receipt_id uuid, recovery_id uuid)
      JOIN runs_run AS run ON run.id = ANY (ARRAY[report.run_id])
     ORDER BY run.id
       FOR NO KEY UPDATE OF run
), gone AS (
    DELETE FROM runs_lease AS lease
     USING held
     WHERE lease.run_id = ANY (ARRAY[held.run_id]) AND lease.token = ANY (ARRAY[held.token])
    RETURNING held.*
), ended AS (
    UPDATE runs_run AS run
       SET state = report.state, result = report.result, error = report.error,
           isolation = coalesce(report.isolation, run.isolation), finished_at = clock_timestamp()
      FROM (SELECT * FROM gone UNION ALL SELECT * FROM held WHERE token IS NULL) AS report
     WHERE run.id = ANY (ARRAY[report.run_id])
    RETURNING run.id, run.public_id, run.organization_id, run.project_id, run.trace_id, run.name,
              run.state, run.attempts, run.isolation, run.started_at, run.finished_at, run.result,
              run.error, report.lines, report.artifacts, report.receipt_id, report.recovery_id,
              coalesce(report.after, (SELECT coalesce(max(e.seq), 0) FROM runs_event AS e
                                       WHERE e.run_id = run.id)) AS after
), attempt AS (
    UPDATE runs_attempt AS attempt
       SET finished_at = ended.finished_at, outcome = ended.state, error = ended.error
      FROM ended
     WHERE attempt.run_id = ANY (ARRAY[ended.id]) AND attempt.number = ANY (ARRAY[ended.attempts])
       AND attempt.finished_at IS NULL
), log AS (
    INSERT INTO runs_event (run_id, seq, kind, payload)
    SELECT ended.id, ended.after + line.place, line.item ->> 'kind', line.item -> 'payload'
      FROM ended
     CROSS JOIN jsonb_array_elements(ended.lines || jsonb_build_array(jsonb_build_object(
                'kind', 'run',
                'payload', jsonb_build_object('state', ended.state, 'attempt', ended.attempts,
                                              'error', ended.error))))
           WITH ORDINALITY AS line (item, place)
), told AS (
    INSERT INTO events_outboxentry (event_id, organization_id, project_id, run_id, trace_id, type,
                                    severity, payload)
    SELECT event_id, organization_id, project_id, public_id, trace_id, type, severity, payload
      FROM (
        SELECT ended.*, recovery_id AS event_id, 0 AS place, 'recovery.done' AS type,
               'success' AS severity,
               jsonb_build_object('title', name || ': recovered',
                                  'detail', 'Attempt ' || attempts || ' succeeded.') AS payload
          FROM ended
         WHERE state = 'succeeded' AND attempts > 1
        UNION ALL
        SELECT ended.*, receipt_id, 1, 'task.receipt',
               CASE state WHEN 'succeeded' THEN 'success' WHEN 'cancelled' THEN 'warning'
                          ELSE 'error' END,
               jsonb_build_object(
                   'state', state, 'title', name,
                   'summary', coalesce(nullif(result ->> 'summary', ''), error ->> 'detail',
                                       'Run ' || state || '.'),
                   'facts', coalesce(result -> 'facts', '{}'::jsonb),
                   'error', error, 'attempts', attempts,
                   'duration_s', extract(epoch FROM finished_at - started_at),
                   'isolation', isolation, 'artifacts', artifacts)
          FROM ended) AS news
     ORDER BY id, place
)
SELECT id AS run_id, public_id FROM ended;

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
-- Running leases whose holder is gone or silent, or whose time is up; the oldest first. A run that somebody
-- acts on at this moment is stepped over: it must not keep its place in the share of a sweep.
SELECT lease.run_id, lease.token,
       CASE WHEN lease.hard_deadline < clock_timestamp() THEN 'overdue'
            WHEN lease.cancel_requested_at < clock_timestamp() - interval '10 seconds' THEN 'cancel'
            ELSE 'lost' END AS why
  FROM runs_lease AS lease
  JOIN runs_run AS run ON run.id = lease.run_id
  LEFT JOIN runs_worker AS worker ON worker.id = lease.worker_id
 WHERE lease.state = 'r'
   AND (lease.hard_deadline < clock_timestamp()
        OR lease.cancel_requested_at < clock_timestamp() - interval '10 seconds'
        OR worker.id IS NULL
        OR worker.gone_at IS NOT NULL
        OR (%(trust_silence)s
            AND worker.last_seen < clock_timestamp() - make_interval(secs => %(ttl_s)s)))
 ORDER BY lease.started_at
 LIMIT %(limit)s
   FOR NO KEY UPDATE OF run SKIP LOCKED;

-- name: overdue_in_queue
-- The deadline lies beside the waiting run and not on the run alone: an index over runs would have to
-- be kept for each that starts.
SELECT run_id
  FROM (SELECT run_id, queue_deadline FROM runs_ready WHERE queue_deadline < clock_timestamp()
        UNION ALL
        SELECT run_id, queue_deadline FROM runs_waiting WHERE queue_deadline < clock_timestamp()
       ) AS overdue
 ORDER BY queue_deadline
 LIMIT %(limit)s;

-- name: past_deadline
-- Open runs whose total deadline has passed, in whatever state they are. Not one that somebody acts on at this
-- moment: the next sweep sees it.
SELECT run.id
  FROM runs_deadline AS due JOIN runs_run AS run ON run.id = due.run_id
 WHERE due.at < clock_timestamp()
 ORDER BY due.at
 LIMIT %(limit)s
   FOR NO KEY UPDATE OF run SKIP LOCKED;

-- name: beat
-- A worker says it is alive. No row back: another incarnation has taken its name, and it must stop. It is told
-- whether a run was sent three times by now, the last one a while ago, and nobody took it up.
UPDATE runs_worker
   SET last_seen = clock_timestamp(), running = %(running)s
 WHERE id = %(worker_id)s AND gone_at IS NULL
RETURNING draining, EXISTS (
    SELECT FROM runs_lease AS lease JOIN runs_run AS run ON run.id = lease.run_id
     WHERE lease.state = 'd' AND lease.seq - run.attempts > 2
       AND (lease.pool IS NULL OR lease.pool = runs_worker.pool)
       AND lease.dispatched_at < clock_timestamp() - make_interval(secs => %(deadline_s)s / 2)
       ) AS unread;

-- name: orders
-- What a worker still holds, and which of it people want cancelled.
SELECT run_id, token, cancel_requested_at IS NOT NULL AS cancelled
  FROM runs_lease
 WHERE worker_id = %(worker_id)s;

-- name: vacuum
-- The pages stay with the tables: to give them back would need a lock that everybody waits for.
VACUUM (SKIP_LOCKED, TRUNCATE false)
       runs_ready, runs_scheduled, runs_lease, runs_hold, events_outboxentry, events_auditinbox;
