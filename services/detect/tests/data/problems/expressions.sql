-- What is no statistic.
row_value = size;
mixed = count(*) + size;
constant = 1 + 1;
truth = count(*) > 5;
text = max('x');
nested = sum(count(*));
counted = count(distinct client_ip);
ordered = count(*) OVER ();
scalar = sum(random());
subquery = (SELECT 1);
casted = sum(cast(size AS int));
parameter = sum($1);
list_sum = sum(recipient_hashes);
arguments = stddev(size, size);
typed = sum(spam);
listed = sum(size) FILTER (WHERE recipient_domains = 5);
wide = distinct(size, size);
plain = abs(size);
