SELECT one.date, one.client_address, one.account, other.account AS other_account, one.messages,
       other.messages AS other_messages, one.first, one.last, other.first AS other_first, other.last AS other_last
FROM (SELECT date, client_address, account, count(*) AS messages, min(time) AS first, max(time) AS last
      FROM events WHERE is_message AND client_address IS NOT NULL GROUP BY date, client_address, account) AS one
JOIN (SELECT date, client_address, account, count(*) AS messages, min(time) AS first, max(time) AS last
      FROM events WHERE is_message AND client_address IS NOT NULL GROUP BY date, client_address, account) AS other
  ON other.date = one.date AND other.client_address = one.client_address AND other.account <> one.account
