-- name: claim
-- One statement, so that the row is found, locked and given away without a moment in between.
UPDATE sandboxes_sandbox
   SET state = 'claimed', claimed_at = statement_timestamp(), updated_at = statement_timestamp(),
       organization_id = %(organization_id)s, project_id = %(project_id)s,
       run_id = %(run_id)s, attempt = %(attempt)s
 WHERE id = (SELECT id FROM sandboxes_sandbox
              WHERE state = 'warm' AND incarnation = %(incarnation)s AND mould = %(mould)s
              ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id
