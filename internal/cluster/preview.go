package cluster

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"time"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/secret"
)

// Preview is what was found at a connection before its cluster is registered. Nothing of it is stored.
type Preview struct {
	Facts
	Capabilities pgrole.Capabilities
	// Refusal is why the cluster cannot be registered as it is; nil if it can.
	Refusal error
	// Sealed is the connection with its secrets, encrypted for Previewed: who has read the preview does not have to give the
	// password again.
	Sealed string
}

// previewFor is how long a preview can be continued: as long as somebody may take to run a few statements.
const previewFor = 15 * time.Minute

// sealedConnection is what Preview.Sealed holds.
type sealedConnection struct {
	URL           string
	TLS           TLS
	Password, Key string
	Expires       time.Time
}

// previewPlace binds a preview to the account that made it, by its guid.
func previewPlace(by string) string { return "clusters/preview/" + by }

// Preview finds out what is behind a connection, as Register does, and changes nothing. by is the guid of the account that
// may continue with it. The faults are those of Register, except that a cluster which cannot be managed is a Refusal.
func (r *Registry) Preview(ctx context.Context, settings Settings, to Connection, by string) (*Preview, error) {
	purpose, err := settings.ofNew()
	if err == nil {
		err = r.nameIsFree(ctx, *settings.DisplayName)
	}
	if err != nil {
		return nil, err
	}
	found, err := r.inspect(ctx, &to, purpose)
	if err != nil {
		return nil, err
	}
	opened, err := json.Marshal(sealedConnection{to.URL, to.TLS, string(to.Password), string(to.Key),
		time.Now().Add(previewFor)})
	if err != nil {
		return nil, err
	}
	sealed := base64.RawURLEncoding.EncodeToString(r.db.Keys.Seal(previewPlace(by), opened))
	return &Preview{found.Facts, found.Capabilities, found.refusal(), sealed}, nil
}

// Previewed returns the connection of a preview that an account has made. The fault is Invalid if there is none, or if it is
// older than 15 minutes.
func (r *Registry) Previewed(sealed, by string) (Connection, error) {
	var c sealedConnection
	encrypted, err := base64.RawURLEncoding.DecodeString(sealed)
	if err == nil {
		encrypted, err = r.db.Keys.Open(previewPlace(by), encrypted)
	}
	if err == nil {
		err = json.Unmarshal(encrypted, &c)
	}
	if err != nil || time.Now().After(c.Expires) {
		return Connection{}, fault.New(fault.Invalid, "The password was kept for 15 minutes, and only for you. Type it again.").
			At("connection.password").Because(err)
	}
	return Connection{URL: c.URL, TLS: c.TLS, Password: secret.Text(c.Password), Key: secret.Text(c.Key)}, nil
}
