-- The audit chain: entries get their place and their hash after the act, by one sealer.

-- name: form
-- What an entry's hash covers: every column of it, as stored. Columns that are null are left out, so
-- that a column added later leaves older hashes right. No setting of a session changes this text.
(jsonb_strip_nulls(to_jsonb(entry) - '{at,detail}'::text[])
    || jsonb_build_object('at', extract(epoch FROM entry.at), 'detail', entry.detail))::text

-- name: take
-- The oldest entries that wait, with all that their hash covers. An entry that commits late gets a
-- later place than its id suggests; the chain says in which order entries became visible.
WITH batch AS MATERIALIZED (
    SELECT entry_id FROM events_auditinbox ORDER BY entry_id LIMIT %(limit)s FOR UPDATE
), taken AS (
    DELETE FROM events_auditinbox AS inbox USING batch WHERE inbox.entry_id = batch.entry_id
    RETURNING inbox.entry_id
)
SELECT entry.id, entry.organization_id, :form: AS words
  FROM taken JOIN events_auditentry AS entry ON entry.id = taken.entry_id
 ORDER BY entry.id;

-- name: heads
SELECT DISTINCT ON (organization_id) organization_id, seq, hash
  FROM events_auditseal
 WHERE organization_id = ANY(%(organizations)s)
 ORDER BY organization_id, seq DESC;

-- name: all_heads
SELECT DISTINCT ON (organization_id) organization_id, seq, hash
  FROM events_auditseal
 ORDER BY organization_id, seq DESC;

-- name: chain
-- An organization's chain with its entries; an entry that is gone leaves its words null.
SELECT seal.seq, seal.hash, seal.entry_id,
       CASE WHEN entry.id IS NOT NULL THEN :form: END AS words
  FROM events_auditseal AS seal
  LEFT JOIN events_auditentry AS entry
       ON entry.id = seal.entry_id AND entry.organization_id = seal.organization_id
 WHERE seal.organization_id = %(organization_id)s
 ORDER BY seal.seq;

-- name: strays
-- Entries that are neither sealed nor waiting: a seal was removed, or a trigger was switched off.
SELECT entry.id
  FROM events_auditentry AS entry
 WHERE entry.organization_id = %(organization_id)s
   AND NOT EXISTS (SELECT FROM events_auditseal AS seal WHERE seal.entry_id = entry.id)
   AND NOT EXISTS (SELECT FROM events_auditinbox AS inbox WHERE inbox.entry_id = entry.id)
 ORDER BY entry.id
 LIMIT 1;

-- name: entry
SELECT id FROM events_auditentry WHERE id = %(id)s;
