package build

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// CacheDir is where the builds of all clones on this machine lie.
func CacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w; set HOME or XDG_CACHE_HOME", err)
	}
	return filepath.Join(dir, "mcp-warden", "localcluster"), nil
}

// ModulesDir finds the module files. They cannot be embedded, since a folder
// with a go.mod is not part of this module; so they are looked up in the clone
// that this program was built from, or the one it runs in.
func ModulesDir() (string, error) {
	var candidates []string
	if _, source, _, ok := runtime.Caller(0); ok && filepath.IsAbs(source) {
		candidates = append(candidates, filepath.Join(filepath.Dir(source), "..", "..", "modules"))
	}
	if wd, err := os.Getwd(); err == nil {
		for ; ; wd = filepath.Dir(wd) {
			candidates = append(candidates,
				filepath.Join(wd, "hack", "localcluster", "modules"), filepath.Join(wd, "modules"))
			if wd == filepath.Dir(wd) {
				break
			}
		}
	}
	for _, dir := range candidates {
		if _, err := os.Stat(filepath.Join(dir, "kubernetes", "go.mod")); err == nil {
			return filepath.Clean(dir), nil
		}
	}
	return "", errors.New("cannot find hack/localcluster/modules: run this from within a clone of the repository")
}

// Key is the name of a component's folder in the cache. It changes with
// whatever changes the build: the recipe and the module files.
func (c Component) Key(modulesDir string) (string, error) {
	h := sha256.New()
	recipe, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("hash recipe of %s: %w", c.Name, err)
	}
	fmt.Fprintf(h, "%s/%s\n%s\n", runtime.GOOS, runtime.GOARCH, recipe)
	root := os.DirFS(filepath.Join(modulesDir, c.Module))
	err = fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %d\n", path, len(b))
		h.Write(b)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("hash module files of %s: %w", c.Name, err)
	}
	return fmt.Sprintf("%s-%s-%s", c.Name, c.Version, hex.EncodeToString(h.Sum(nil))[:12]), nil
}
