-- Names of statistics and columns.
Messages = count(*) FILTER (WHERE message);
messages = count(*);
messages_1h = count(*);
9lives = count(*);
_hidden = count(*);
a_name_that_is_much_too_long_for_a_statistic = count(*);
octets = sum(sise);
spam = count(*) FILTER (WHERE spam AND weather = 'bad');
rate = cuont(*) / 60;
