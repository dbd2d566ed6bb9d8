// Package internet plays the outside world of a cluster: names, web servers, an
// echo server and a cloud's metadata service, on addresses of its own.
package internet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
)

// The addresses of the internet.
const (
	DNSAddress      = "203.0.113.53"
	MetadataAddress = "169.254.169.254"
	firstWeb        = 10
	lastWeb         = 20
)

// Addresses lists every address that the internet answers on.
func Addresses() []string {
	addresses := []string{DNSAddress, MetadataAddress}
	for host := firstWeb; host <= lastWeb; host++ {
		addresses = append(addresses, fmt.Sprintf("203.0.113.%d", host))
	}
	return addresses
}

const presetZone = `# The names of this cluster's internet: an address and its names per line, as in
# /etc/hosts. A name may stand on several lines. Changes count within two seconds.
203.0.113.10     api.example.test
203.0.113.11     files.example.test
203.0.113.12     evil.test
203.0.113.13     www.example.test example.test

# The cluster's own registry, on the node.
172.30.0.2       registry.localcluster

# Names that point where nobody should be led.
169.254.169.254  metadata.google.internal metadata.example.test
10.96.0.1        rebind.example.test
10.0.0.1         private.example.test
203.0.113.15     mixed.example.test
10.0.0.1         mixed.example.test
127.0.0.1        loopback.example.test
`

// Files is what the internet keeps in the state folder.
type Files struct{ Dir string }

// Zone holds the names; tests may edit it.
func (f Files) Zone() string { return filepath.Join(f.Dir, "zone") }

// CA is the base name of the authority that signs the web servers' certificates:
// ca.crt is for those who are to trust them.
func (f Files) CA() string { return filepath.Join(f.Dir, "ca") }

// Corefile configures the DNS server.
func (f Files) Corefile() string { return filepath.Join(f.Dir, "Corefile") }

// Ensure writes what is missing. An edited zone stays as it is.
func (f Files) Ensure(makeCA func(base string) error) error {
	if err := os.MkdirAll(f.Dir, 0o755); err != nil {
		return err
	}
	if !exists(f.Zone()) {
		if err := state.WriteFile(f.Zone(), []byte(presetZone), 0o644); err != nil {
			return err
		}
	}
	if !exists(f.CA() + ".key") {
		if err := makeCA(f.CA()); err != nil {
			return fmt.Errorf("make the internet's CA: %w", err)
		}
	}
	corefile := fmt.Sprintf(`.:53 {
    bind %s
    errors
    hosts %s . {
        ttl 1
        reload 500ms
        no_reverse
    }
}
`, DNSAddress, f.Zone())
	return state.WriteFile(f.Corefile(), []byte(corefile+turningZone()), 0o644)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
