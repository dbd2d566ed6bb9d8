package build

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func modulesWith(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestKeyChangesWithWhateverChangesTheBuild(t *testing.T) {
	files := map[string]string{"tool/go.mod": "module tool\n", "tool/go.sum": "", "other/go.mod": "module other\n"}
	component := Component{Name: "tool", Version: "v1", Module: "tool", Packages: []string{"."}}
	key := func(c Component, change map[string]string) string {
		t.Helper()
		changed := map[string]string{}
		for _, m := range []map[string]string{files, change} {
			for k, v := range m {
				changed[k] = v
			}
		}
		k, err := c.Key(modulesWith(t, changed))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	base := key(component, nil)
	if !strings.HasPrefix(base, "tool-v1-") {
		t.Errorf("key %q does not name component and version", base)
	}
	if again := key(component, nil); again != base {
		t.Errorf("same files in another clone give %q, want %q", again, base)
	}
	if other := key(component, map[string]string{"other/go.mod": "module changed\n"}); other != base {
		t.Errorf("another module's files change the key")
	}
	tagged := component
	tagged.Tags = "seccomp"
	for what, got := range map[string]string{
		"a module file": key(component, map[string]string{"tool/go.sum": "x v1 h1:\n"}),
		"a new file":    key(component, map[string]string{"tool/main.go": "package main\n"}),
		"the recipe":    key(tagged, nil),
	} {
		if got == base {
			t.Errorf("%s changes, the key does not", what)
		}
	}
}

func TestSelect(t *testing.T) {
	all, err := Select()
	if err != nil || len(all) != len(components) {
		t.Fatalf("Select() = %d components, %v; want all %d", len(all), err, len(components))
	}
	picked, err := Select(Cilium, Etcd)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{picked[0].Name, picked[1].Name}
	if want := []string{Etcd, Cilium}; !slices.Equal(names, want) {
		t.Errorf("Select returns %v, want build order %v", names, want)
	}
	if _, err := Select("docker"); err == nil || !strings.Contains(err.Error(), Containerd) {
		t.Errorf("Select(docker) = %v; want an error that lists the components", err)
	}
}

func TestEveryRecipeHasItsModule(t *testing.T) {
	dir, err := ModulesDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range components {
		mod, err := os.ReadFile(filepath.Join(dir, c.Module, "go.mod"))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, p := range c.Packages {
			if p != "." && !strings.Contains(string(mod), p+"\n") {
				t.Errorf("%s: modules/%s/go.mod does not list tool %s", c.Name, c.Module, p)
			}
		}
		if c.Module != Pause && !strings.Contains(string(mod), " "+c.Version) {
			t.Errorf("%s: modules/%s/go.mod does not require version %s", c.Name, c.Module, c.Version)
		}
	}
}

func TestEnsureBuildsOnceAndLeavesNothingHalf(t *testing.T) {
	modules := modulesWith(t, map[string]string{
		"tool/go.mod":  "module example.test/tool\n\ngo 1.26\n",
		"tool/main.go": "package main\n\nfunc main() {}\n",
	})
	var lines []string
	b := &Builder{Cache: t.TempDir(), Modules: modules, Progress: func(format string, _ ...any) { lines = append(lines, format) }}
	tool := Component{Name: "tool", Version: "v1", Module: "tool", Packages: []string{"."}, Rename: map[string]string{"tool": "renamed"}}
	keys, err := b.Ensure(context.Background(), []Component{tool})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(b.Dir(keys["tool"]), "renamed")); err != nil {
		t.Error(err)
	}
	lines = nil
	if _, err := b.Ensure(context.Background(), []Component{tool}); err != nil || len(lines) > 0 {
		t.Errorf("second Ensure: %v, progress %q; want it to do nothing", err, lines)
	}

	broken := modulesWith(t, map[string]string{
		"tool/go.mod":  "module example.test/tool\n\ngo 1.26\n",
		"tool/main.go": "package main\n\nfunc main() { undefined() }\n",
	})
	b.Modules = broken
	keys, err = b.Ensure(context.Background(), []Component{tool})
	if err == nil || !strings.Contains(err.Error(), "undefined") {
		t.Errorf("Ensure of a broken module = %v, %v; want the compiler's words", keys, err)
	}
	key, err := tool.Key(broken)
	if err != nil {
		t.Fatal(err)
	}
	if exists(b.Dir(key)) || exists(b.Dir(key)+".new") {
		t.Error("something of a failed build is in the cache")
	}
}

func TestWatcher(t *testing.T) {
	w := &watcher{}
	w.read(strings.NewReader("k8s.io/api/core/v1\ngo: downloading x v1\nnet/http\n# k8s.io/broken\nfile.go:3: undefined: x\n"))
	if w.compiled != 2 {
		t.Errorf("counted %d packages, want 2", w.compiled)
	}
	if got, want := w.tail(), "# k8s.io/broken\nfile.go:3: undefined: x"; got != want {
		t.Errorf("tail is %q, want %q", got, want)
	}
}
