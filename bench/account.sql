\set n random(1, :count)
SELECT id, guid, username, origin, presentation_name, labels, annotations, platform_created_at, platform_updated_at, revision
FROM rolecall.accounts WHERE guid = '00000000-0000-4000-8000-' || lpad(:n::text, 12, '0') AND platform_created_at IS NOT NULL;
