messages count(*);
= count(*);
recipients = sum(recipient_count;
bytes = sum(size) sum(size);
empty = ;
mean =
    avg(size) +;
last = count(*)
