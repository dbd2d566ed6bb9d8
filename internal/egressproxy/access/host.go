package access

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/idna"
)

// maxHost and maxLabel bound a host name and each of its labels, in bytes (RFC 1035).
const (
	maxHost  = 253
	maxLabel = 63
)

var (
	// ErrAddress says that an address stands where a host name has to: rules are about names.
	ErrAddress = errors.New("is an address in one of its notations, not a host name")
	// ErrHost says that a host name is malformed.
	ErrHost = errors.New("is not a host name of two or more labels")
)

// NormalizeHost returns the normal form of a host name: lower-case, without the dot at the end, and
// with labels beyond ASCII as what goes over the wire ("xn--..."). Errors are ErrAddress for an address,
// in whatever notation some resolver may read one (IPv6, 127.1, 0x7f.1, 2130706433, 0177.0.0.1),
// and ErrHost for all else that is not a host name.
func NormalizeHost(host string) (string, error) {
	const maxRaw = 4 * maxHost // as long as a name beyond ASCII can be and still have a normal form
	if host == "" || len(host) > maxRaw {
		return "", ErrHost
	}
	if strings.ContainsAny(host, ":[]%") {
		return "", ErrAddress
	}
	host = strings.ToLower(host)
	if !ascii(host) || strings.Contains(host, "xn--") {
		normal, err := idna.Lookup.ToASCII(host)
		if err != nil {
			return "", ErrHost
		}
		host = normal
	}
	host = strings.TrimSuffix(host, ".")
	if len(host) > maxHost {
		return "", ErrHost
	}
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if !validLabel(label) {
			return "", ErrHost
		}
	}
	if numeric(labels[len(labels)-1]) {
		return "", ErrAddress
	}
	if len(labels) < 2 {
		return "", ErrHost
	}
	return host, nil
}

// ValidateHostRule tells what is wrong with the host of a rule.
func ValidateHostRule(host string) error {
	name := strings.TrimPrefix(host, "*.")
	normal, err := NormalizeHost(name)
	if err != nil {
		return fmt.Errorf("%.300q %w", host, err)
	}
	if normal != name {
		return fmt.Errorf("%.300q must be written %q", host, strings.TrimSuffix(host, name)+normal)
	}
	return nil
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// validLabel holds for letters, digits and hyphens, the latter not at an end.
func validLabel(label string) bool {
	if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for _, c := range []byte(label) {
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// numeric holds for a label that makes an address of the name that it ends, as the URL standard has
// it: digits alone, or 0x and hexadecimal digits. There is no such top-level domain.
func numeric(label string) bool {
	if rest, hex := strings.CutPrefix(label, "0x"); hex {
		return strings.Trim(rest, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}
