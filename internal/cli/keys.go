package cli

import (
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
)

func keysCommand() *cobra.Command {
	return term.Group("keys", "The keys of the server", keysRotateCommand())
}

func keysRotateCommand() *cobra.Command {
	var signingKey bool
	cmd := printing(&cobra.Command{
		Use:   "rotate",
		Short: "Re-encrypt all stored secrets with the first master key",
		Long: `Rotate re-encrypts every stored secret of the server (signing keys, credentials of
clusters, stored credentials, keys of the audit log) with the first key of its master
key file. After that the other keys in the file are no longer needed. With --signing-key
it also creates a new key for tokens, which is used an hour from now; tokens of the
previous key stay valid until they expire. Only admins may do this, and it is recorded in
the audit log.`,
		Example: `  rolecall keys rotate
  rolecall keys rotate --signing-key`,
		Args: term.NoArguments,
	})
	cmd.Flags().BoolVar(&signingKey, "signing-key", false, "also create a new key that signs tokens")
	return onServer(cmd, func(c *call) error {
		answer, err := c.send(http.MethodPost, client.KeysPath+"/rotate", map[string]any{"signingKey": signingKey})
		if err != nil {
			return err
		}
		done, err := term.Decode[client.KeyRotation](answer)
		if err != nil {
			return err
		}
		c.report("All stored secrets are encrypted with the master key %s.", done.MasterKey)
		return printOne(c, answer, keyRotationFields)
	})
}

func keyRotationFields(_ *call, k *client.KeyRotation) [][]string {
	fields := [][]string{{"master key", k.MasterKey}, {"re-encrypted", strconv.Itoa(k.Resealed)}}
	if k.SigningKey != "" {
		fields = append(fields, []string{"new signing key", k.SigningKey})
	}
	return fields
}
