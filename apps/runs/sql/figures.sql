-- Counting what moves. Only the narrow tables are counted in full: they are as small as the backlog.

-- name: platform
-- The oldest waiting run is the oldest among the heads of the lanes: one index look-up a lane.
SELECT (SELECT count(*) FROM runs_ready) AS ready,
       (SELECT count(*) FROM runs_scheduled) AS scheduled,
       (SELECT count(*) FROM runs_lease WHERE state = 'd') AS dispatched,
       (SELECT count(*) FROM runs_lease
         WHERE state = 'r' AND cancel_requested_at IS NULL) AS running,
       (SELECT count(*) FROM runs_lease
         WHERE state = 'r' AND cancel_requested_at IS NOT NULL) AS cancelling,
       (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(run.created_at)), 0)::float
          FROM runs_lane lane
         CROSS JOIN LATERAL (
               SELECT run_id FROM runs_ready WHERE lane_id = lane.id AND gate IS NULL
                ORDER BY seq LIMIT 1) head
          JOIN runs_run run ON run.id = head.run_id) AS oldest_waiting_s,
       (SELECT count(*) FROM events_outboxentry) AS outbox,
       workers.alive AS workers,
       workers.slots AS slots,
       seat.epoch AS leader_epoch,
       coalesce(seat.expires_at > clock_timestamp(), false) AS leader_alive
  FROM (SELECT count(*) AS alive, coalesce(sum(slots), 0) AS slots
          FROM runs_worker
         WHERE gone_at IS NULL
           AND last_seen > clock_timestamp() - make_interval(secs => %(worker_ttl_s)s)) workers
  LEFT JOIN runs_leader seat ON seat.shard = 0;

-- name: failed_since
-- Looks at the newest runs only, so that a long history costs nothing.
SELECT count(*) AS failed
  FROM (SELECT state, finished_at
          FROM runs_run
         WHERE organization_id = %(organization_id)s
         ORDER BY id DESC
         LIMIT %(newest)s) recent
 WHERE state IN ('failed', 'dead', 'expired') AND finished_at >= %(since)s;

-- name: open_in_organization
SELECT (SELECT count(*) FROM runs_ready ready JOIN runs_lane lane ON lane.id = ready.lane_id
         WHERE lane.organization_id = %(organization_id)s)
     + (SELECT count(*) FROM runs_scheduled scheduled JOIN runs_run run ON run.id = scheduled.run_id
         WHERE run.organization_id = %(organization_id)s)
     + (SELECT count(*) FROM runs_waiting WHERE organization_id = %(organization_id)s) AS queued,
       (SELECT count(*) FROM runs_lease lease JOIN runs_lane lane ON lane.id = lease.lane_id
         WHERE lane.organization_id = %(organization_id)s) AS running;

-- name: backlog
-- How many runs of an organization wait, parked or not, or are held back by others; counted up to the number
-- that matters.
SELECT count(*) AS waiting
  FROM (SELECT
          FROM runs_lane AS lane
         CROSS JOIN LATERAL (
               SELECT FROM runs_ready AS ready WHERE ready.lane_id = lane.id AND ready.gate IS NULL
                UNION ALL
               SELECT FROM runs_ready AS ready WHERE ready.lane_id = lane.id AND ready.gate IS NOT NULL
               ) AS ready
         WHERE lane.organization_id = %(organization_id)s
         UNION ALL
        SELECT FROM runs_waiting WHERE organization_id = %(organization_id)s
         LIMIT %(most)s) AS counted;

-- name: standing
-- How many places of each gate are taken, how far its bucket is from full, and how many runs are parked at it.
SELECT asked.gate,
       (SELECT count(*) FROM runs_hold AS hold WHERE hold.gate = asked.gate) AS places,
       (SELECT extract(epoch FROM full_at - clock_timestamp())::float FROM runs_bucket AS bucket
         WHERE bucket.gate = asked.gate) AS ahead_s,
       (SELECT count(*) FROM (SELECT FROM runs_ready WHERE gate = asked.gate LIMIT %(most)s) AS parked
       ) AS parked
  FROM unnest(%(gates)s::uuid[]) AS asked (gate);

-- name: lanes
-- The head of a lane is its oldest run, found by one index look-up.
SELECT lane.queue, lane.priority, lane.paused, lane.cap,
       (SELECT count(*) FROM runs_ready WHERE lane_id = lane.id AND gate IS NULL) AS ready,
       (SELECT count(*) FROM runs_ready WHERE lane_id = lane.id AND gate IS NOT NULL) AS parked,
       (SELECT count(*) FROM runs_lease WHERE lane_id = lane.id AND state = 'd') AS dispatched,
       (SELECT count(*) FROM runs_lease WHERE lane_id = lane.id AND state = 'r') AS running,
       (SELECT extract(epoch FROM clock_timestamp() - run.created_at)::float
          FROM runs_ready ready JOIN runs_run run ON run.id = ready.run_id
         WHERE ready.lane_id = lane.id AND ready.gate IS NULL ORDER BY ready.seq LIMIT 1) AS oldest_s
  FROM runs_lane lane
 WHERE lane.organization_id = %(organization_id)s
 ORDER BY lane.priority, lane.queue;

-- name: ended_by_minute
-- Among the newest runs only, so that a long history costs nothing.
SELECT minutes_ago, count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
       count(*) FILTER (WHERE state <> 'succeeded') AS others
  FROM (SELECT state, floor(extract(epoch FROM clock_timestamp() - finished_at) / 60)::int AS minutes_ago
          FROM (SELECT state, finished_at FROM runs_run
                 WHERE organization_id = %(organization_id)s ORDER BY id DESC LIMIT %(newest)s) newest
         WHERE finished_at > clock_timestamp() - make_interval(mins => %(minutes)s)) ended
 GROUP BY minutes_ago;

-- name: place_in_lane
SELECT lane.paused, ready.run_id IS NOT NULL AS is_ready,
       (SELECT count(*) FROM (SELECT FROM runs_ready ahead
                               WHERE ahead.lane_id = lane.id AND ahead.gate IS NULL
                                 AND ahead.seq < ready.seq
                               LIMIT %(most)s) counted) AS ahead
  FROM runs_run run
  JOIN runs_lane lane ON lane.organization_id = run.organization_id AND lane.queue = run.queue
                     AND lane.priority = run.priority
  LEFT JOIN runs_ready ready ON ready.run_id = run.id
 WHERE run.id = %(run_id)s;
