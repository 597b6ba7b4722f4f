package identity

import (
	"context"
	"crypto/rand"
	"errors"
	"math/big"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/remote"
	"rolecall/internal/secret"
)

// GrantDevice is the grant of RFC 8628: a device without a browser shows a code, which a person types in the console.
const GrantDevice = "urn:ietf:params:oauth:grant-type:device_code"

const (
	deviceLifetime = 10 * time.Minute
	// pollInterval is how long a device waits between two polls. One that polls earlier waits pollInterval longer each time.
	pollInterval = 5 * time.Second
	longestPoll  = time.Minute
	// pollSlack is how much earlier a poll may come: the one before may have been slow on its way.
	pollSlack = time.Second
	// maxPendingDevices is how many requests of one network wait at once. Anybody may make them.
	maxPendingDevices = 100
	// maxLooks is how often a user code may be typed, by all accounts together. To approve takes two.
	maxLooks = 20
)

// The causes of a device's refused poll, which RFC 8628, 3.5 has words for. A denial is ErrDenied.
var (
	ErrPending  = errors.New("the person has not answered yet")
	ErrSlowDown = errors.New("the device polls too often")
	ErrExpired  = errors.New("the device code has expired")
)

var (
	errPending = fault.New(fault.Invalid, "The sign-in was not approved yet. Ask again after the interval.").
			Because(ErrPending)
	errSlowDown = fault.New(fault.Invalid, "This was too early: wait 5 seconds longer between two requests from now on.").
			Because(ErrSlowDown)
	errDeviceExpired = fault.New(fault.Invalid, "The device code has expired. Begin again.").Because(ErrExpired)
	errDeviceDenied  = fault.New(fault.Invalid, "The sign-in was denied.").Because(ErrDenied)
	errDevice        = fault.New(fault.Invalid, "The device code is unknown or used, or another client's. Begin again.").
				Because(ErrGrant)
)

// userLetters are those of user codes: no vowels, so that no code is a word (RFC 8628, 6.1).
const userLetters = "BCDFGHJKLMNPQRSTVWXZ"

const userCodeLength = 8

func newUserCode() string {
	code := make([]byte, userCodeLength)
	for i := range code {
		n, _ := rand.Int(rand.Reader, big.NewInt(int64(len(userLetters)))) // never fails since Go 1.24
		code[i] = userLetters[n.Int64()]
	}
	return string(code)
}

// showUserCode is how people read a user code.
func showUserCode(code string) string { return code[:userCodeLength/2] + "-" + code[userCodeLength/2:] }

// plainUserCode is a user code as it is stored, from however a person types it; "" if it is none.
func plainUserCode(typed string) string {
	var code strings.Builder
	for _, r := range strings.ToUpper(typed) {
		switch {
		case strings.ContainsRune(userLetters, r):
			code.WriteRune(r)
		case r != '-' && r != ' ':
			return ""
		}
	}
	if code.Len() != userCodeLength {
		return ""
	}
	return code.String()
}

// DeviceLogin is what a device shows and polls with.
type DeviceLogin struct {
	DeviceCode         secret.Text
	UserCode           string // as people read it
	Lifetime, Interval time.Duration
}

// StartDeviceLogin begins the sign-in of a person at a device.
func (s *Service) StartDeviceLogin(ctx context.Context, c *Client, scopes []string, address string) (*DeviceLogin, error) {
	if err := c.may(GrantDevice); err != nil {
		return nil, err
	}
	asked := []string{}
	if len(scopes) > 0 {
		var err error
		if asked, err = narrow(account.Scopes, scopes); err != nil {
			return nil, err
		}
	}
	now, network := s.now(), remote.Network(address)
	var pending int
	err := s.db.Pool.QueryRow(ctx, `SELECT count(*) FROM device_codes WHERE network = $1 AND expires_at > $2`, network, now).
		Scan(&pending)
	if err != nil {
		return nil, control.Fault(err)
	}
	if pending >= maxPendingDevices {
		return nil, fault.New(fault.TooMany, "%d sign-ins from your network wait for an approval. Finish one of them, or wait "+
			"until they expire.", pending).After(time.Minute)
	}
	device, user := randomID()+randomID(), newUserCode()
	// A user code that is in use already is an error: of 25,600,000,000 that does not happen.
	_, err = s.db.Pool.Exec(ctx, `
		INSERT INTO device_codes (code_hash, user_hash, client_id, scopes, address, network, created_at, expires_at, poll_seconds)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		tokenHash(device), tokenHash(user), c.id, asked, address, network, now, now.Add(deviceLifetime),
		int(pollInterval.Seconds()))
	if err != nil {
		return nil, control.Fault(err)
	}
	return &DeviceLogin{secret.Text(device), showUserCode(user), deviceLifetime, pollInterval}, nil
}

// The states of a device's request.
const (
	devicePending  = "pending"
	deviceApproved = "approved"
	deviceDenied   = "denied"
)

// DeviceRequest is what a person sees of a device's request before they approve or deny it.
type DeviceRequest struct {
	UserCode string // as people read it
	Client   string
	Address  string // of the device
	Asked    time.Time
	Expires  time.Time

	hash   []byte
	scopes []string
	state  string
}

// DeviceRequest returns the pending request with the user code that a person typed. It is NotFound if there is none, Exists
// if it has its answer, and TooMany after wrong codes of the person or of the address.
func (s *Service) DeviceRequest(ctx context.Context, p *account.Principal, typed string) (*DeviceRequest, error) {
	guesser := "user code\x00" + p.GUID
	if err := s.throttle.wait(guesser, p.Address); err != nil {
		return nil, err
	}
	code := plainUserCode(typed)
	d := DeviceRequest{hash: tokenHash(code)}
	err := s.db.Pool.QueryRow(ctx, `
		UPDATE device_codes SET looks = looks + 1 WHERE user_hash = $1 AND expires_at > $2 AND looks < $3
		RETURNING client_id, address, created_at, expires_at, scopes, state`, d.hash, s.now(), maxLooks).
		Scan(&d.Client, &d.Address, &d.Asked, &d.Expires, &d.scopes, &d.state)
	if errors.Is(err, pgx.ErrNoRows) {
		s.throttle.failed(guesser, p.Address)
		return nil, fault.New(fault.NotFound, "No device waits with the code %.20q. Compare it with the one that the device "+
			"shows; codes expire after %d minutes.", typed, int(deviceLifetime.Minutes()))
	}
	if err != nil {
		return nil, control.Fault(err)
	}
	d.UserCode = showUserCode(code)
	if d.state != devicePending {
		return nil, errAnswered(d.UserCode)
	}
	return &d, nil
}

func errAnswered(code string) error {
	return fault.New(fault.Exists, "The request with the code %s was approved or denied before. To sign in another device, "+
		"begin there again.", code)
}

// ApproveDevice gives the device that shows the user code a sign-in of the principal.
func (s *Service) ApproveDevice(ctx context.Context, p *account.Principal, typed string) error {
	d, err := s.DeviceRequest(ctx, p, typed)
	if err != nil {
		return err
	}
	return s.answerDevice(ctx, p, d, deviceApproved, audit.ApproveLogin, d.scopes)
}

// DenyDevice denies the device that shows the user code a sign-in.
func (s *Service) DenyDevice(ctx context.Context, p *account.Principal, typed string) error {
	d, err := s.DeviceRequest(ctx, p, typed)
	if err != nil {
		return err
	}
	return s.answerDevice(ctx, p, d, deviceDenied, audit.DenyLogin, nil)
}

func (s *Service) answerDevice(ctx context.Context, p *account.Principal, d *DeviceRequest, state, action string,
	asked []string) error {
	return s.db.Tx(ctx, func(tx pgx.Tx) error {
		scopes, err := s.mayApprove(ctx, tx, p, asked)
		if err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `
			UPDATE device_codes SET state = $2, account_id = (SELECT id FROM accounts WHERE guid = $3), epoch = $4, session_id = $5,
			  scopes = $6
			WHERE user_hash = $1 AND state = 'pending'`, d.hash, state, p.GUID, p.Epoch, p.Session, scopes)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return errAnswered(d.UserCode)
		}
		return s.audit.Record(ctx, tx, p.Entry(action, p.GUID,
			loginDetail{Client: d.Client, Grant: GrantDevice, Device: d.Address}))
	})
}

// deviceCode is a stored one.
type deviceCode struct {
	approval
	hash     []byte
	state    string
	polled   time.Time
	interval time.Duration
}

// GrantWithDevice gives the device the sign-in of the person who approved it, once.
func (s *Service) GrantWithDevice(ctx context.Context, c *Client, code, address string) (*Tokens, error) {
	if err := c.may(GrantDevice); err != nil {
		return nil, err
	}
	d, err := s.findDevice(ctx, code)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && d.client != c.id {
		return nil, errDevice
	}
	switch {
	case err != nil:
		return nil, control.Fault(err)
	case !s.now().Before(d.expires):
		return nil, errDeviceExpired
	case d.state == deviceDenied:
		return nil, errDeviceDenied
	case d.state == devicePending:
		return nil, s.polled(ctx, d)
	}
	a, err := s.approver(ctx, &d.approval)
	if errors.Is(err, errEnded) {
		return nil, also(errDeviceDenied, err)
	}
	if err != nil {
		return nil, err
	}
	l := &login{a, c, GrantDevice, common(a.Scopes, d.scopes), uuid.New(), address}
	t, taken, err := s.fetch(ctx, l, `DELETE FROM device_codes WHERE code_hash = $1`, d.hash)
	if err == nil && !taken {
		err = errDevice
	}
	return t, err
}

// findDevice returns a stored device code; pgx.ErrNoRows if there is none.
func (s *Service) findDevice(ctx context.Context, code string) (*deviceCode, error) {
	d := deviceCode{hash: tokenHash(code)}
	var seconds int
	err := s.db.Pool.QueryRow(ctx, `
		SELECT coalesce(a.guid, ''), coalesce(d.epoch, '00000000-0000-0000-0000-000000000000'),
		  EXISTS (SELECT FROM console_sessions WHERE id = d.session_id), d.client_id, d.scopes, d.expires_at, d.state,
		  coalesce(d.polled_at, '0001-01-01'), d.poll_seconds
		FROM device_codes d LEFT JOIN accounts a ON a.id = d.account_id WHERE d.code_hash = $1`, d.hash).
		Scan(&d.guid, &d.epoch, &d.session, &d.client, &d.scopes, &d.expires, &d.state, &d.polled, &seconds)
	d.interval = time.Duration(seconds) * time.Second
	return &d, err
}

// polled notes a poll of a device whose person has not answered, and returns the answer.
func (s *Service) polled(ctx context.Context, d *deviceCode) error {
	now, interval, answer := s.now(), d.interval, errPending
	if now.Sub(d.polled) < interval-pollSlack {
		interval, answer = min(interval+pollInterval, longestPoll), errSlowDown
	}
	_, err := s.db.Pool.Exec(ctx, `UPDATE device_codes SET polled_at = $2, poll_seconds = $3 WHERE code_hash = $1`, d.hash, now,
		int(interval.Seconds()))
	if err != nil {
		return control.Fault(err)
	}
	return answer
}
