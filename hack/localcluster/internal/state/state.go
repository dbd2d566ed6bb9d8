// Package state knows where a cluster keeps its files and who works on it.
package state

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
)

// Cluster is the state folder of one cluster.
type Cluster struct {
	Name string
	// Root is the folder as this process sees it: the supervisor of a node sees
	// it at another place than the commands on the host do.
	Root string
}

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?$`)

// Open returns the cluster's state folder, which need not exist.
func Open(name string) (Cluster, error) {
	if !validName.MatchString(name) {
		return Cluster{}, fmt.Errorf("cluster name %q: use 1 to 30 lower-case letters, digits and dashes, with a letter or digit at both ends", name)
	}
	base, err := base()
	if err != nil {
		return Cluster{}, err
	}
	return Cluster{Name: name, Root: filepath.Join(base, name)}, nil
}

// Names lists the clusters that have state.
func Names() ([]string, error) {
	base, err := base()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(base)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list clusters: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && validName.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	sort.Strings(names)
	return names, nil
}

func base() (string, error) {
	dir := os.Getenv("XDG_STATE_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find the state folder: %w; set HOME or XDG_STATE_HOME", err)
		}
		dir = filepath.Join(home, ".local", "state")
	}
	if !filepath.IsAbs(dir) {
		return "", fmt.Errorf("XDG_STATE_HOME=%q: must be an absolute path", dir)
	}
	return filepath.Join(dir, "mcp-warden", "localcluster"), nil
}

// Path joins elements to the state folder.
func (c Cluster) Path(elem ...string) string {
	return filepath.Join(append([]string{c.Root}, elem...)...)
}

// ID tells this cluster from every other on the machine, also from one of the
// same name whose state lies elsewhere. It names what is not in the state
// folder. Only the host's view of the folder gives the right answer; others find
// it in the configuration.
func (c Cluster) ID() string {
	sum := sha256.Sum256([]byte(c.Root))
	return c.Name + "-" + hex.EncodeToString(sum[:3])
}

// PKI is where the keys and certificates lie.
func (c Cluster) PKI(elem ...string) string { return c.Path(append([]string{"pki"}, elem...)...) }

// Log is the log file of a component.
func (c Cluster) Log(component string) string { return c.Path("logs", component+".log") }

// Kubeconfig is the administrator's kubeconfig for use from the host.
func (c Cluster) Kubeconfig() string { return c.Path("kubeconfig") }

// Exists reports whether the cluster has any state.
func (c Cluster) Exists() bool {
	_, err := os.Stat(c.Root)
	return err == nil
}

// The CNIs a node can have. The empty string is a control plane without a node.
const (
	CNICilium = "cilium"
	CNIBridge = "bridge"
)

// Config is what a cluster was created with. It outlives the processes.
type Config struct {
	// ID is the cluster's id.
	ID string `json:"id"`
	// CNI is empty for a control plane without a node.
	CNI string `json:"cni,omitempty"`
	// Without names components that are left out.
	Without []string `json:"without,omitempty"`
	// Builds maps a component to its folder in the build cache.
	Builds map[string]string `json:"builds"`
	// Cache is the build cache as the host sees it.
	Cache string `json:"cache"`
	// Ports are the host's loopback ports by use. They are kept over restarts
	// where they are still free, so that kubeconfigs stay good.
	Ports map[string]int `json:"ports,omitempty"`
}

// HasNode reports whether the cluster runs pods.
func (c Config) HasNode() bool { return c.CNI != "" }

// Mode says in words what the cluster is.
func (c Config) Mode() string {
	if c.HasNode() {
		return "node with CNI " + c.CNI
	}
	return "control plane only"
}

// LoadConfig returns os.ErrNotExist for a cluster that was never configured.
func (c Cluster) LoadConfig() (Config, error) {
	var cfg Config
	err := readJSON(c.Path("config.json"), &cfg)
	return cfg, err
}

// SaveConfig replaces the configuration.
func (c Cluster) SaveConfig(cfg Config) error {
	return writeJSON(c.Path("config.json"), cfg)
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return WriteFile(path, append(b, '\n'), 0o600)
}

// WriteFile replaces a file in one step, so that a reader or a crash never
// meets half of it.
func WriteFile(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
