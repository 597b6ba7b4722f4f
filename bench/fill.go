package main

import (
	"context"
	"fmt"
	"time"

	"rolecall/internal/scram"

	"github.com/jackc/pgx/v5"
)

// The names of roles and accounts are a prefix and a number, so that pgbench can make them as well.
const (
	baseRole  = "user_"  // that are there from the beginning, and stay
	madeRole  = "made_"  // by what is measured
	stockRole = "stock_" // to be deleted by what is measured
	// accountGUID is a prefix as well; 12 digits follow.
	accountGUID = "00000000-0000-4000-8000-"
	// apollo is the number of accounts with this label, whatever the total. Every second account has env=prod.
	apollo = 500
)

// roles makes roles from first to last, with the comment that says who made them, like those that Rolecall makes.
func (s *site) roles(ctx context.Context, prefix string, first, last int) error {
	// PostgreSQL tries the verifier of each new role against the empty password. One of a single iteration costs it
	// nothing, where one of 4096 costs 3 ms, and looks the same to all that is measured.
	verifier, err := scram.NewVerifier("a password nobody has", 1)
	if err != nil {
		return err
	}
	conn, err := s.connect(ctx, s.adminRole)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	const batch = 1000 // a comment takes a lock, and a transaction has room for 6,400
	for ; first <= last; first += batch {
		err := execFormat(ctx, conn, `
			SELECT string_agg(format('CREATE ROLE %1$I LOGIN PASSWORD %2$L; COMMENT ON ROLE %1$I IS %3$L;', $1::text || n, $2::text,
			  format('rolecall:v1 {"created":"%1$s","createdBy":"%2$s","modified":"%1$s","modifiedBy":"%2$s","revision":1,' ||
			    '"attempt":"%3$s"}',
			    to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), $3::text, gen_random_uuid())), '')
			FROM generate_series($4::int, $5::int) n`, prefix, verifier, s.account, first, min(last, first+batch-1))
		if err != nil {
			return err
		}
	}
	return nil
}

// dropRoles drops what a measurement has made or left over.
func (s *site) dropRoles(ctx context.Context, prefixes ...string) error {
	conn, err := s.connect(ctx, s.superuser)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, prefix := range prefixes {
		for {
			err := execFormat(ctx, conn, `
				SELECT string_agg(format('DROP ROLE %I;', rolname), '')
				FROM (SELECT rolname FROM pg_roles WHERE starts_with(rolname::text, $1) LIMIT 1000) r`, prefix)
			if err != nil {
				return err
			}
			var left bool
			if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_roles WHERE starts_with(rolname::text, $1))`, prefix).
				Scan(&left); err != nil {
				return err
			}
			if !left {
				break
			}
		}
	}
	return nil
}

// oids returns what the peer knows the roles prefix1 to prefix<n> by.
func (s *site) oids(ctx context.Context, prefix string, n int) ([]uint32, error) {
	conn, err := s.connect(ctx, s.superuser)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, `SELECT r.oid FROM generate_series(1, $2::int) n JOIN pg_roles r ON r.rolname = $1::text || `+
		`n ORDER BY n`, prefix, n)
	if err != nil {
		return nil, err
	}
	oids, err := pgx.CollectRows(rows, pgx.RowTo[uint32])
	if err == nil && len(oids) != n {
		err = fmt.Errorf("of the roles %s1 to %[1]s%d there are %d", prefix, n, len(oids))
	}
	return oids, err
}

// accounts creates accounts from first to last, each with its identity and platform user.
func (i *installation) accounts(ctx context.Context, first, last int) error {
	conn, err := i.site.connect(ctx, i.controlRole)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, `
		INSERT INTO rolecall.accounts (guid, username, origin, emails, scopes, password_hash, identity_created_at,
		  identity_updated_at,
		  platform_created_at, platform_updated_at, labels)
		SELECT $1::text || lpad(n::text, 12, '0'), 'account_' || n, 'uaa', ARRAY['account_' || n || '@example.org'],
		  ARRAY['cloud_controller.read', 'cloud_controller.write'], '$argon2id$v=19$m=19456,t=2,p=1$' || md5(n::text) || '$' ||
		    md5('a' || n),
		  now(), now(), now(), now(),
		  jsonb_build_object('team', 'team-' || n % 100, 'env', CASE n % 2 WHEN 0 THEN 'prod' ELSE 'test' END)
		    || CASE WHEN n <= $2 THEN '{"project": "apollo"}'::jsonb ELSE '{}' END
		FROM generate_series($3::int, $4::int) n`, accountGUID, apollo, first, last)
	return err
}

// vacuum is what autovacuum would have come to do within minutes.
func (s *site) vacuum(ctx context.Context) error {
	databases := []string{"postgres"}
	for _, i := range s.installations() {
		databases = append(databases, i.controlRole.database)
	}
	for _, database := range databases {
		if err := s.exec(ctx, login{s.superuser.role, s.superuser.password, database}, `VACUUM ANALYZE`); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until what was done before has no more consequences: the sealer of the audit log is through, and, before
// something that writes, dead rows are removed and a checkpoint is behind.
func (s *site) settle(ctx context.Context, writes bool) error {
	for _, i := range s.installations() {
		if err := i.sealed(ctx); err != nil {
			return err
		}
	}
	if !writes {
		return nil
	}
	if err := s.vacuum(ctx); err != nil {
		return err
	}
	return s.exec(ctx, s.superuser, `CHECKPOINT`)
}

// sealed waits until the sealer of the audit log is through.
func (i *installation) sealed(ctx context.Context) error {
	conn, err := i.site.connect(ctx, i.controlRole)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for end := time.Now().Add(2 * time.Minute); ; {
		var left bool
		if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM rolecall.audit_unsealed)`).Scan(&left); err != nil || !left {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("the audit log of %s is not sealed", i.name)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
