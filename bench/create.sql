\set i :i + 1
\set n :base + :client_id * 1000000 + :i
CREATE ROLE made_:n LOGIN PASSWORD ':verifier';
