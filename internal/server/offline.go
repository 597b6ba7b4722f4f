package server

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/identity"
)

// Work on a control database without a running server. Of Config it needs DatabaseURL, Keys, PublicURL (to issue tokens) and
// PasswordCost.

// OpenIdentity opens the control database and the identity service on it. It fails if the master key is a wrong one.
func OpenIdentity(ctx context.Context, config Config) (*control.DB, *identity.Service, error) {
	db, err := control.Open(ctx, string(config.DatabaseURL), config.Keys, control.Waits{})
	if err != nil {
		return nil, nil, err
	}
	id, err := newIdentity(ctx, db, config)
	if err != nil {
		db.Close()
		return nil, nil, err
	}
	return db, id, nil
}

func newIdentity(ctx context.Context, db *control.DB, config Config) (*identity.Service, error) {
	return identity.New(ctx, db, identity.Config{
		Issuer:       Issuer(config.PublicURL),
		PublicURL:    config.PublicURL,
		OIDC:         config.OIDC,
		PasswordCost: config.PasswordCost,
		Log:          cmp.Or(config.Log, slog.New(slog.DiscardHandler)),
	})
}

// Mint returns a token of a local account. It leaves the schema to the server that runs on the control database.
func Mint(ctx context.Context, config Config, username string, lifetime time.Duration) (string, error) {
	db, err := control.OpenUnchanged(ctx, string(config.DatabaseURL), config.Keys)
	if err != nil {
		return "", err
	}
	defer db.Close()
	id, err := newIdentity(ctx, db, config)
	if err != nil {
		return "", err
	}
	return id.MintFor(ctx, username, lifetime)
}

// Recover ends all tokens after the control database was restored from a backup.
func Recover(ctx context.Context, config Config, keepPersonalTokens bool) (account.Ended, error) {
	db, id, err := OpenIdentity(ctx, config)
	if err != nil {
		return account.Ended{}, err
	}
	defer db.Close()
	return id.Accounts().EndAllTokens(ctx, keepPersonalTokens, audit.Entry{
		AccountGUID: audit.ActorRestored,
		AccountName: audit.ActorRestored,
		Target:      db.Identity.Database,
	})
}
