// Package access decides what the egress proxy may let through: the access list that the operator
// writes and the proxy reads, the normal form and matching of host names, and the guard over
// addresses. It is pure: no client, no clock, no file, no network, so that the operator and the proxy
// share it.
package access

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	kjson "sigs.k8s.io/json"
)

// Version of the form of an access list.
const Version = 1

// The bounds of an access list. MaxBytes is what a Kubernetes Secret can hold.
const (
	MaxBytes   = 1 << 20
	maxServers = 4096
	maxRules   = 256
	maxPorts   = 64
	maxDenied  = 8192
	maxName    = 253
)

// What a rule says about an encrypted client hello.
const (
	// ECHRefuse refuses it: the name inside could not be checked. Leaving the field out means the same.
	ECHRefuse = "Refuse"
	// ECHAllow lets it pass: what is checked is the outer name only.
	ECHAllow = "Allow"
)

// List is an access list: which server may reach which hosts through the proxy.
type List struct {
	// Version is the constant Version.
	Version int `json:"version"`
	// Denied are ranges that no connection may go to, besides those that are always forbidden; in their
	// normal form. At most 8192.
	Denied []netip.Prefix `json:"denied,omitempty"`
	// Servers by unique names, at most 4096. A server that is not in the list may reach nothing.
	Servers []Server `json:"servers"`
}

// Server is what one server may reach.
type Server struct {
	// Name is the user name that the server shows to the proxy: 1 to 253 of a-z, 0-9, '-' and '.'.
	Name string `json:"name"`
	// CredentialSHA256 is the SHA-256 of the password that the server shows, as 64 lower-case
	// hexadecimal digits (Digest). The password itself is never in the list.
	CredentialSHA256 string `json:"credentialSHA256"`
	// Rules add up: what one of them allows is allowed. At most 256.
	Rules []Rule `json:"rules"`
}

// Rule opens some ports of a host.
type Rule struct {
	// Host is a name in its normal form (NormalizeHost), or "*." and such a name for every name
	// below it at any depth, but not itself.
	Host string `json:"host"`
	// Ports are TCP ports from 1 to 65535: 1 to 64 of them.
	Ports []int32 `json:"ports"`
	// EncryptedClientHello is ECHRefuse or ECHAllow; empty means ECHRefuse.
	EncryptedClientHello string `json:"encryptedClientHello,omitempty"`
}

// Digest is the form in which a list carries a password.
func Digest(password string) string {
	sum := sha256.Sum256([]byte(password))
	return hex.EncodeToString(sum[:])
}

// Encode writes a list, the same bytes for the same list. It fails where Parse would refuse them.
func Encode(list List) ([]byte, error) {
	if _, err := compile(&list); err != nil {
		return nil, err
	}
	data, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("encode access list: %w", err)
	}
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("access list: has %d bytes, at most %d fit", len(data), MaxBytes)
	}
	return data, nil
}

// Parse reads a list strictly: an unknown or repeated field, another version, anything out of bounds
// or not in its normal form refuses the whole list. Errors never carry what the list says of
// credentials.
func Parse(data []byte) (*Policy, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("access list: more than %d bytes", MaxBytes)
	}
	var list List
	strict, err := kjson.UnmarshalStrict(data, &list)
	if err = errors.Join(append(strict, err)...); err != nil {
		return nil, fmt.Errorf("access list: not in the form that was agreed: %w", err)
	}
	if bytes.Equal(bytes.TrimSpace(data), []byte("null")) {
		return nil, errors.New("access list: empty")
	}
	return compile(&list)
}

// compile checks a list and makes it ready to be asked.
func compile(list *List) (*Policy, error) {
	switch {
	case list.Version != Version:
		return nil, fmt.Errorf("access list: version %d: this proxy reads version %d", list.Version, Version)
	case len(list.Servers) > maxServers:
		return nil, fmt.Errorf("access list: %d servers: at most %d", len(list.Servers), maxServers)
	case len(list.Denied) > maxDenied:
		return nil, fmt.Errorf("access list: %d denied ranges: at most %d", len(list.Denied), maxDenied)
	}
	for i, prefix := range list.Denied {
		if !prefix.IsValid() || prefix != prefix.Masked() {
			return nil, fmt.Errorf("access list: denied[%d]: %s is not an address range in its normal form", i, prefix)
		}
	}
	p := &Policy{servers: make(map[string]*Grants, len(list.Servers)), forbidden: forbidden(list.Denied)}
	for i := range list.Servers {
		s := &list.Servers[i]
		grants, err := compileServer(s)
		if err != nil {
			return nil, fmt.Errorf("access list: servers[%d]: %w", i, err)
		}
		if _, twice := p.servers[s.Name]; twice {
			return nil, fmt.Errorf("access list: servers[%d]: %s is there twice", i, s.Name)
		}
		p.servers[s.Name] = grants
	}
	return p, nil
}

func compileServer(s *Server) (*Grants, error) {
	if !validServerName(s.Name) {
		return nil, fmt.Errorf("name %.64q: must be 1 to %d of a-z, 0-9, '-' and '.'", s.Name, maxName)
	}
	if len(s.Rules) > maxRules {
		return nil, fmt.Errorf("%d rules: at most %d", len(s.Rules), maxRules)
	}
	g := &Grants{Server: s.Name, exact: map[string][]grant{}, below: map[string][]grant{}}
	if len(s.CredentialSHA256) != hex.EncodedLen(len(g.credential)) {
		return nil, errors.New("credentialSHA256: must be 64 lower-case hexadecimal digits")
	}
	if _, err := hex.Decode(g.credential[:], []byte(s.CredentialSHA256)); err != nil || hex.EncodeToString(g.credential[:]) != s.CredentialSHA256 {
		return nil, errors.New("credentialSHA256: must be 64 lower-case hexadecimal digits")
	}
	for i := range s.Rules {
		if err := g.add(&s.Rules[i]); err != nil {
			return nil, fmt.Errorf("rules[%d]: %w", i, err)
		}
	}
	return g, nil
}

// validServerName holds for the names that Kubernetes gives, which can stand in a URL, a header and
// a log line as they are.
func validServerName(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	for _, c := range []byte(name) {
		if c != '-' && c != '.' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}
