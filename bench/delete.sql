\set i :i + 1
\set n :base + :client_id * :per + :i
DROP ROLE stock_:n;
