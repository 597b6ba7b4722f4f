package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// tlsFiles makes the TLS configuration from files. It looks for changed files at most once a second. While the new files are
// invalid, it keeps the configuration of the last valid ones.
type tlsFiles struct {
	cert, key, clientCA string // clientCA "": clients need no certificate
	log                 *slog.Logger

	mu      sync.Mutex
	current *tls.Config
	checked time.Time
	changed [3]time.Time
}

// TLS returns the TLS configuration of a certificate, its key and the authorities of client certificates, each a file in
// PEM; nil if none is given.
func TLS(cert, key, clientCA string, log *slog.Logger) (*tls.Config, error) {
	if cert == "" && key == "" && clientCA == "" {
		return nil, nil
	}
	if cert == "" || key == "" {
		return nil, errors.New("--tls-cert and --tls-key are needed together, and with --tls-client-ca")
	}
	f := &tlsFiles{cert: cert, key: key, clientCA: clientCA, log: log}
	current, err := f.get(nil)
	if err != nil {
		return nil, err
	}
	config := current.Clone()
	config.GetConfigForClient = f.get
	return config, nil
}

func (f *tlsFiles) get(*tls.ClientHelloInfo) (*tls.Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.current != nil && time.Since(f.checked) < time.Second {
		return f.current, nil
	}
	f.checked = time.Now()
	err := f.load()
	if err != nil && f.current == nil {
		return nil, err
	}
	if err != nil {
		f.log.Error("the TLS certificate could not be read again; the previous one is served", "error", err)
	}
	return f.current, nil
}

// load reads the files if one of them has changed.
func (f *tlsFiles) load() error {
	var changed [3]time.Time
	for i, file := range [][2]string{{"tls-cert", f.cert}, {"tls-key", f.key}, {"tls-client-ca", f.clientCA}} {
		if file[1] == "" {
			continue
		}
		info, err := os.Stat(file[1])
		if err != nil {
			return fmt.Errorf("--%s: %w", file[0], err)
		}
		changed[i] = info.ModTime()
	}
	if f.current != nil && changed == f.changed {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return fmt.Errorf("--tls-cert %s and --tls-key %s: %w", f.cert, f.key, err)
	}
	config := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{pair},
		NextProtos:   []string{"h2", "http/1.1"}, // net/http adds these only to the configuration that it was given
	}
	if f.clientCA != "" {
		authorities, err := os.ReadFile(f.clientCA)
		if err != nil {
			return fmt.Errorf("--tls-client-ca: %w", err)
		}
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(authorities) {
			return fmt.Errorf("--tls-client-ca %s holds no certificate in PEM", f.clientCA)
		}
		// A resumed session was verified against the authorities of its beginning, which may have changed since.
		config.SessionTicketsDisabled = true
	}
	f.current, f.changed = config, changed
	return nil
}
