-- Statistics of one account's events. Each becomes a column for every window: 1m, 5m, 15m, 1h, 6h and 24h, as in
-- messages_15m. An entry is `name = expression;` over the columns of one event; the comment right above it describes
-- it. Functions: count, sum, avg, min, max, stddev, stddev_pop, var, distinct (how many different values), top_share
-- (share of the most frequent value), each with an optional FILTER (WHERE ...), and arithmetic between them.
-- What is unknown, or not a finite number, is NULL, and a rule's comparison with NULL does not hold.

-- Messages that the account submitted; those that a filter refused too.
messages = count(*) FILTER (WHERE message);

-- Envelope recipients of all messages: a message to three people counts three times.
recipients = coalesce(sum(recipient_count), 0);

-- Envelope recipients outside the provider's own domains.
external_recipients = coalesce(sum(external_recipients), 0);

-- External recipients of messages that no mailing list and no program sent: what a person writes, or a thief.
personal_recipients = coalesce(sum(external_recipients) FILTER (WHERE NOT list AND NOT automatic), 0);

-- Different people written to, each counted once.
different_recipients = distinct(recipient_hashes);

-- Different domains written to.
recipient_domains = distinct(recipient_domains);

-- Octets submitted.
bytes = coalesce(sum(size), 0);

-- Mean size of a message in octets.
size_mean = avg(size);

-- How much sizes differ: standard deviation by mean. 0 when all are of one size; people's mail is far above 0.5.
size_cv = stddev(size) / avg(size);

-- Largest share of the messages that are within 10 % of each other in size, 0 to 1. One large message of the owner's
-- among a thief's spoils size_cv, not this. Two grids of size classes, set off by half a class: what lies on a border
-- of one lies within a class of the other.
same_size = greatest(top_share(floor(ln(size) * 10)), top_share(floor(ln(size) * 10 + 0.5)));

-- Share of the messages that have the most frequent content, 0 to 1; NULL when no content was seen.
same_content = top_share(fingerprint);

-- Messages that a spam filter called spam, refused or not.
spam = count(*) FILTER (WHERE spam);

-- Messages that a spam filter refused.
spam_refused = count(*) FILTER (WHERE refused_by_filter);

-- Different client addresses: IPv4 addresses and IPv6 /64 networks.
client_ips = distinct(client_ip);

-- Messages whose envelope sender is not the account.
sender_mismatches = count(*) FILTER (WHERE sender_mismatch);

-- Messages that answer another one.
replies = count(*) FILTER (WHERE reply);

-- Messages of mailing lists (List-Id).
list_messages = count(*) FILTER (WHERE list);

-- Messages of mailing lists, and those that say that a program sent them (Auto-Submitted).
bulk_messages = count(*) FILTER (WHERE list OR automatic);

-- Different hours of the clock in which the account sent.
hours_active = distinct(hour);
