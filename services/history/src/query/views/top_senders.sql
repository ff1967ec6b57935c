SELECT date, account, domain, count(*) AS messages, sum(recipients) AS recipients, max(recipients) AS most_recipients,
       sum(size_bytes) AS size_bytes, count(DISTINCT client_address) AS client_addresses,
       sum(CASE WHEN is_spam THEN 1 ELSE 0 END) AS spam, min(time) AS first, max(time) AS last
FROM events WHERE is_message GROUP BY date, account, domain
