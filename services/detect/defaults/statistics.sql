-- Statistics of one account's events. Each becomes a column for every window: 1m, 5m, 15m, 1h, 6h and 24h, as in
-- messages_15m. An entry is `name = expression;` over the columns of one event; the comment right above it describes
-- it. Functions: count, sum, avg, min, max, stddev, stddev_pop, var, distinct (how many different values), top_share
-- (share of the most frequent value), each with an optional FILTER (WHERE ...), and arithmetic between them.
-- What is unknown, or not a finite number, is NULL, and a rule's comparison with NULL does not hold.

-- Messages that the account submitted; refused ones too.
messages = count(*) FILTER (WHERE message);

-- Recipients of all messages: a message to three people counts three times.
recipients = coalesce(sum(recipient_count), 0);

-- Recipients outside the provider's own domains.
external_recipients = coalesce(sum(external_recipients), 0);

-- External recipients of messages that are not a mailing list's: what a person writes, or a thief.
personal_recipients = coalesce(sum(external_recipients) FILTER (WHERE NOT list), 0);

-- Octets submitted.
bytes = coalesce(sum(size), 0);

-- Mean size of a message in octets.
size_mean = avg(size);

-- How much sizes differ: standard deviation by mean. 0 when all are of one size; people's mail is far above 0.5.
size_cv = stddev(size) / avg(size);

-- Messages that a spam filter called spam, refused or not.
spam = count(*) FILTER (WHERE spam);

-- Messages that a spam filter refused.
spam_refused = count(*) FILTER (WHERE refused_by_filter);

-- Different client addresses: IPv4 addresses and IPv6 /64 networks.
client_ips = distinct(client_ip);

-- Different domains written to.
recipient_domains = distinct(recipient_domains);

-- Share of the messages that have the most frequent content; NULL when no content was seen.
same_content = top_share(fingerprint);

-- Messages whose envelope sender is not the account.
sender_mismatches = count(*) FILTER (WHERE sender_mismatch);

-- Messages that answer another one.
replies = count(*) FILTER (WHERE reply);

-- Messages of mailing lists, and those that say that a program sent them.
bulk_messages = count(*) FILTER (WHERE list OR automatic);

-- Different hours of the clock in which the account sent.
hours_active = distinct(hour);
