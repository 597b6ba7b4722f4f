package identity

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// issuersInFile is the file of --oidc-file.
type issuersInFile struct {
	Issuers []issuerInFile `yaml:"issuers"`
}

type issuerInFile struct {
	Name             string        `yaml:"name"`
	URL              string        `yaml:"url"`
	Audience         string        `yaml:"audience"`
	ClientID         string        `yaml:"clientId"`
	ClientSecretFile string        `yaml:"clientSecretFile"`
	Username         string        `yaml:"username"`
	Link             string        `yaml:"link"`
	Labels           []labelInFile `yaml:"labels"`
}

type labelInFile struct {
	Key    string `yaml:"key"`
	Claim  string `yaml:"claim"`
	Prefix string `yaml:"prefix"`
}

var (
	fileKeys   = []string{"issuers"}
	issuerKeys = []string{"name", "url", "audience", "clientId", "clientSecretFile", "username", "link", "labels"}
	labelKeys  = []string{"key", "claim", "prefix"}
)

// ReadOIDCIssuers reads a file of issuers in YAML, with the settings of --oidc-issuer. Errors name the line.
func ReadOIDCIssuers(file io.Reader) ([]OIDCIssuer, error) {
	d := yaml.NewDecoder(file)
	var root yaml.Node
	if err := d.Decode(&root); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("it is empty; begin it with the line \"issuers:\", and list the issuers below")
		}
		return nil, err
	}
	if d.Decode(&yaml.Node{}) != io.EOF {
		return nil, errors.New("it has several documents; keep one, and remove the lines ---")
	}
	if err := checkFileKeys(root.Content[0], fileKeys); err != nil {
		return nil, err
	}
	places := entriesOf(root.Content[0], "issuers")
	for _, place := range places {
		if err := checkFileKeys(place, issuerKeys); err != nil {
			return nil, err
		}
		for _, l := range entriesOf(place, "labels") {
			if err := checkFileKeys(l, labelKeys); err != nil {
				return nil, err
			}
		}
	}
	var read issuersInFile
	if err := root.Decode(&read); err != nil { // values of other types, and keys that are given twice, with their lines
		return nil, err
	}
	issuers := make([]OIDCIssuer, len(read.Issuers))
	for n, f := range read.Issuers {
		i, err := f.issuer()
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", places[n].Line, err)
		}
		issuers[n] = i
	}
	return issuers, nil
}

func (f issuerInFile) issuer() (OIDCIssuer, error) {
	i := OIDCIssuer{Name: f.Name, URL: f.URL, Audience: f.Audience, ClientID: f.ClientID,
		ClientSecretFile: f.ClientSecretFile, UsernameClaim: f.Username}
	for _, l := range f.Labels {
		if l.Claim == "" {
			return i, fmt.Errorf("the label %q of %s has no claim; write claim: groups, for example", l.Key, f.URL)
		}
		i.Labels = append(i.Labels, LabelClaim(l))
	}
	return i.complete(f.Link)
}

// checkFileKeys refuses a node that is no mapping, and keys that it must not have: a setting that is misspelled would be
// missing without a word.
func checkFileKeys(n *yaml.Node, known []string) error {
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: this must be a mapping with the keys %s", n.Line, strings.Join(known, ", "))
	}
	for k := 0; k < len(n.Content); k += 2 {
		if key := n.Content[k]; !slices.Contains(known, key.Value) {
			return fmt.Errorf("line %d: the key %q is unknown; known are %s", key.Line, key.Value, strings.Join(known, ", "))
		}
	}
	return nil
}

// entriesOf are the entries of a list in a mapping; none if it is no list, which decoding reports.
func entriesOf(mapping *yaml.Node, key string) []*yaml.Node {
	for k := 0; k < len(mapping.Content); k += 2 {
		if v := mapping.Content[k+1]; mapping.Content[k].Value == key && v.Kind == yaml.SequenceNode {
			return v.Content
		}
	}
	return nil
}
