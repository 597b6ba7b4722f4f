package doctor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"rolecall/internal/server"
)

func TestClock(t *testing.T) {
	t.Parallel()
	for skew, want := range map[time.Duration]Finding{
		0:                        {OK, "clock", "It differs by 0s"},
		-1900 * time.Millisecond: {OK, "clock", "It differs by 1.9s"},
		3 * time.Second:          {Warning, "clock", "is 3s ahead of that of the control database. Synchronize"},
		-3 * time.Second:         {Warning, "clock", "is 3s behind"},
		-2 * time.Hour:           {Error, "clock", "is 2h0m0s behind"},
	} {
		if got := clock(skew, nil); got.Level != want.Level || !strings.Contains(got.Text, want.Text) {
			t.Errorf("%s: %+v", skew, got)
		}
	}
	if got := clock(0, errors.New("lost\n\tconnection")); got.Level != Error || got.Text != "lost connection" {
		t.Errorf("without an answer: %+v", got)
	}
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	config := func(from, until time.Duration, host string) *tls.Config {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(from), NotAfter: now.Add(until),
			DNSNames: []string{host}}
		der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}}}}
	}
	const day = 24 * time.Hour
	for _, test := range []struct {
		tls   *tls.Config
		level Level
		says  string
	}{
		{nil, OK, "plain HTTP"},
		{config(-day, 90*day, "rolecall.example.org"), OK, "valid until 2027-02-27 12:00 UTC"},
		{config(-day, 20*day, "rolecall.example.org"), Warning, "expires at 2026-12-19"},
		{config(-2*day, -day, "rolecall.example.org"), Error, "has expired at 2026-11-28"},
		{config(day, 2*day, "rolecall.example.org"), Error, "not valid before 2026-11-30 12:00 UTC. Check the clock"},
		{config(-day, 90*day, "other.example.org"), Warning, "is not for rolecall.example.org"},
		{&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{{1}}}}}, Error, "cannot be read"},
		{&tls.Config{}, Error, "it is empty"},
	} {
		got := certificate(server.Config{TLS: test.tls, PublicURL: "https://rolecall.example.org"}, now)
		if len(got) != 1 || got[0].Level != test.level || !strings.Contains(got[0].Text, test.says) {
			t.Errorf("%q: %+v", test.says, got)
		}
	}
}
