messages = count(*);
spam = count(*) FILTER (WHERE spam AND 'x;
