SELECT begun.account, begun.domain, begun.lock_id, begun.status, begun.time AS since,
       ended.time AS ended, ended.change AS how_it_ended,
       coalesce(ended.time, now()) - begun.time AS lasted,
       begun.rule, begun.actor AS locked_by, begun.reason, begun.evidence, begun.client_addresses, begun.subjects,
       ended.actor AS unlocked_by, ended.reason AS unlock_reason, ended.unlock_evidence, ended.password_changed,
       begun.date
FROM (SELECT *, row_number() OVER (PARTITION BY account, lock_id ORDER BY version) AS nth
      FROM account_changes WHERE change IN ('locked', 'throttled')) AS begun
LEFT JOIN (SELECT *, row_number() OVER (PARTITION BY account, lock_id ORDER BY version) AS nth
           FROM account_changes WHERE change IN ('unlocked', 'expired')) AS ended
  ON ended.account = begun.account AND ended.lock_id = begun.lock_id AND ended.nth = 1
WHERE begun.nth = 1
