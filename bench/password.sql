\set n 1 + :client_id + :clients * random(0, :count / :clients - 1)
ALTER ROLE user_:n PASSWORD ':verifier';
