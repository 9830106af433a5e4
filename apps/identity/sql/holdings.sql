-- What people hold.

-- name: held
-- The bindings that hold for a person now, own or through a department. ``Binding.objects.of`` says the same
-- to Django, for queries that are built on it; this is asked before nearly every act, and to have Django
-- write it takes four times as long as to run it. Those over single runs come last: whoever gets one has all
-- that are wider.
SELECT role, scope, scope_id
  FROM identity_binding
 WHERE organization_id = %(organization_id)s
   AND (user_id = %(user_id)s
        OR department_id = ANY (ARRAY(
           SELECT department_id FROM identity_user_departments WHERE user_id = %(user_id)s)))
   AND (expires_at IS NULL OR expires_at > statement_timestamp())
 ORDER BY scope = 'run'
 LIMIT %(limit)s;
