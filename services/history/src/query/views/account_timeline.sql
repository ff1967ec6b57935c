SELECT date, time, account, domain, kind AS what, site, client_address,
       CASE kind
         WHEN 'submission' THEN concat(coalesce(cast(recipients AS varchar), '?'), ' recipients, ',
                                       coalesce(cast(size_bytes AS varchar), '?'), ' octets',
                                       CASE WHEN disposition = 'accepted' THEN '' ELSE concat(', ', disposition) END,
                                       CASE WHEN is_spam THEN ', spam' ELSE '' END,
                                       CASE WHEN subject IS NULL THEN '' ELSE concat(': ', subject) END)
         WHEN 'login' THEN concat(coalesce(login_protocol, '?'), CASE WHEN login_success THEN ' succeeded' ELSE ' failed' END)
         ELSE concat(delivery_outcome, ' to ', coalesce(delivery_domain, '?'), ' ', coalesce(delivery_status, ''))
       END AS detail,
       CAST(NULL AS varchar) AS actor, CAST(NULL AS varchar) AS lock_id
FROM events
UNION ALL
SELECT date, time, account, domain, coalesce(change, status) AS what, CAST(NULL AS varchar), CAST(NULL AS varchar),
       concat(coalesce(rule || ': ', ''), coalesce(reason, ''), coalesce(' ' || evidence, '')) AS detail,
       actor, lock_id
FROM account_changes
UNION ALL
SELECT date, time, account, domain, CASE WHEN allowed THEN 'asked' ELSE 'denied' END AS what, CAST(NULL AS varchar), peer,
       concat(method, coalesce(': ' || reason, ''), coalesce(' (' || result || ')', '')) AS detail,
       actor, lock_id
FROM audit WHERE account IS NOT NULL
