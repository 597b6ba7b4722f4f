package rules

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rolecall/internal/account"
	"rolecall/internal/client"
	"rolecall/internal/cluster"
	"rolecall/internal/control"
	"rolecall/internal/dbuser"
	"rolecall/internal/format"
	"rolecall/internal/identity"
	"rolecall/internal/lease"
	"rolecall/internal/pgrole"
	"rolecall/internal/secret"
	"rolecall/internal/server"
)

// TestSecretsAreNotPrinted prints, encodes and logs each struct that holds a secret, and what holds these, in every way that
// there is. A struct with a field of type secret.Text that is missing here fails the test.
func TestSecretsAreNotPrinted(t *testing.T) {
	const value = "hunter2secret"
	key := control.NewMasterKey()
	keys, err := control.ParseKeyring(key)
	if err != nil {
		t.Fatal(err)
	}
	connection := cluster.Connection{URL: "postgres://role@host/db", Password: value, Key: value}
	holders := []any{
		secret.Text(value),
		connection,
		&cluster.Cluster{DisplayName: "shop", Connection: connection},
		cluster.Rotation{Current: connection, Next: connection},
		cluster.ConnectionChange{Password: new(secret.Text(value)), Key: new(secret.Text(value))},
		account.Account{Username: "ann", PasswordHash: value},
		identity.Tokens{Access: value, Refresh: value},
		format.Login{Hosts: []format.Host{{Name: "h", Port: "5432"}}, Password: value},
		client.Tokens{Access: value, Refresh: value},
		&client.Authorization{Verifier: value},
		&client.Device{Code: value},
		client.Webhook{Name: "siem", Secret: value},
		client.User{Username: "ann", Password: value},
		client.Token{Name: "ci", Secret: value},
		client.Lease{Username: "ann", Password: value},
		client.CurrentCredential{Password: value},
		&control.DB{FingerprintKey: value},
		dbuser.NewUser{Name: "ann", Password: new(secret.Text(value))},
		identity.Credential{Value: value},
		identity.DeviceLogin{DeviceCode: value},
		identity.SignIn{Token: value},
		lease.Current{Password: value},
		&pgrole.Server{FingerprintKey: value},
		server.Config{DatabaseURL: value},
		pgrole.Credential{Name: "ann", Verifier: value},
		keys,
		struct{ Keys *control.Keyring }{keys},
		map[string]any{"list": []any{secret.Text(value), fmt.Errorf("an error with %s", secret.Text(value))}},
	}
	named := map[string]bool{}
	for _, holder := range holders {
		named[strings.TrimPrefix(fmt.Sprintf("%T", holder), "*")] = true
		var text strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "% x", "%10.3v", "%t"} {
			fmt.Fprintf(&text, verb+"\n", holder)
		}
		fmt.Fprintln(&text, holder, &holder)
		for _, encode := range []func(any) ([]byte, error){json.Marshal, xml.Marshal} {
			if encoded, err := encode(holder); err == nil {
				fmt.Fprintf(&text, "%s\n", encoded)
			}
		}
		for _, h := range []slog.Handler{slog.NewTextHandler(&text, nil), slog.NewJSONHandler(&text, nil)} {
			log := slog.New(h).With("before", holder).WithGroup("group")
			log.Info("message", "holder", holder, "many", []any{holder}, slog.Any("any", &holder))
		}
		for _, secret := range []string{value, fmt.Sprintf("%x", value), fmt.Sprintf("% x", value),
			fmt.Sprintf("%v", []byte(value)), key, fmt.Sprintf("%x", key[:8])} {
			if strings.Contains(strings.ToLower(text.String()), strings.ToLower(secret)) {
				t.Errorf("%T shows %q:\n%s", holder, secret, text.String())
			}
		}
		if !strings.Contains(text.String(), "[secret]") {
			t.Errorf("%T says nothing of its secret:\n%s", holder, text.String())
		}
	}
	for _, p := range packages(t) {
		for _, file := range p.GoFiles {
			parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(parsed, func(n ast.Node) bool {
				of, ok := n.(*ast.TypeSpec)
				if !ok {
					return true
				}
				for _, field := range secretFields(of) {
					// A type that is not exported cannot be printed here. Its field can be checked all the same.
					if !ast.IsExported(field) {
						t.Errorf("the field %s of %s.%s is a secret that fmt prints; export it", field, p.Name, of.Name)
					}
					if of.Name.IsExported() && !named[p.Name+"."+of.Name.Name] {
						t.Errorf("%s.%s holds a secret; print it here", p.Name, of.Name)
					}
				}
				return true
			})
		}
	}
}

// secretFields are the names of a struct's fields whose type is, or points to, secret.Text.
func secretFields(of *ast.TypeSpec) (names []string) {
	s, ok := of.Type.(*ast.StructType)
	if !ok {
		return nil
	}
	for _, f := range s.Fields.List {
		kind := f.Type
		if pointer, ok := kind.(*ast.StarExpr); ok {
			kind = pointer.X
		}
		if sel, ok := kind.(*ast.SelectorExpr); ok && fmt.Sprint(sel.X, ".", sel.Sel) == "secret.Text" {
			for _, name := range f.Names {
				names = append(names, name.Name)
			}
		}
	}
	return slices.Clip(names)
}
