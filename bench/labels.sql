\set n 1 + :client_id + :clients * random(0, :count / :clients - 1)
\set i :i + 1
WITH changed AS (
  UPDATE rolecall.accounts
  SET labels = labels || jsonb_build_object('round', 'p' || :base || '-' || :client_id || '-' || :i), revision = revision + 1, platform_updated_at = clock_timestamp()
  WHERE guid = '00000000-0000-4000-8000-' || lpad(:n::text, 12, '0') AND platform_created_at IS NOT NULL
  RETURNING guid
)
INSERT INTO bench.audit (attempt, phase, action, outcome, account_guid, account_name, target, request_id, address, detail)
SELECT gen_random_uuid(), 'outcome', 'account.update', 'done', 'bench', 'bench', guid, gen_random_uuid(), '127.0.0.1',
  '{"facet": "platform user", "labels": {"round": {"from": null, "to": "p"}}}'
FROM changed;
