package main

import (
	"net/http"
	"strconv"

	"github.com/spf13/cobra"
)

func keysCommand() *cobra.Command {
	return group("keys", "The keys of the server", keysRotateCommand())
}

type keyRotation struct {
	MasterKey  string `json:"masterKey"`
	Resealed   int    `json:"resealed"`
	SigningKey string `json:"signingKey"`
}

func keysRotateCommand() *cobra.Command {
	var o output
	var signingKey bool
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Seal all stored secrets with the first master key",
		Long: `Rotate seals every stored secret of the server (signing keys, credentials of clusters,
keys of the audit log) with the first key of its master key file, so that the other keys
there are no longer needed. With --signing-key it also makes a new key for tokens, which
signs an hour from now; tokens of the previous one stay good until they expire. It is for
admins, and recorded.`,
		Example: `  rolecall keys rotate
  rolecall keys rotate --signing-key`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			answer, err := c.Do(cmd.Context(), http.MethodPost, "/rolecall/v1/keys/rotate", nil, map[string]any{"signingKey": signingKey})
			if err != nil {
				return err
			}
			done, err := decode[keyRotation](answer)
			if err != nil {
				return err
			}
			did(cmd, "All stored secrets are sealed with the master key %s.", done.MasterKey)
			return printOne(cmd, o, answer, func(k *keyRotation) [][]string {
				fields := [][]string{{"master key", k.MasterKey}, {"sealed anew", strconv.Itoa(k.Resealed)}}
				if k.SigningKey != "" {
					fields = append(fields, []string{"new signing key", k.SigningKey})
				}
				return fields
			})
		},
	}
	cmd.Flags().BoolVar(&signingKey, "signing-key", false, "also make a new key that signs tokens")
	o.bind(cmd)
	return cmd
}
