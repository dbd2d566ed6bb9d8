package build

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
)

// Builder builds components into a cache that all clones share.
type Builder struct {
	Cache   string
	Modules string
	// Progress takes one line per event.
	Progress func(format string, args ...any)
}

// New finds cache and module files.
func New(progress func(format string, args ...any)) (*Builder, error) {
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	modules, err := ModulesDir()
	if err != nil {
		return nil, err
	}
	return &Builder{Cache: cache, Modules: modules, Progress: progress}, nil
}

// Ensure builds what is missing and returns each component's folder in the
// cache, by name.
func (b *Builder) Ensure(ctx context.Context, components []Component) (map[string]string, error) {
	keys := make(map[string]string, len(components))
	var missing []Component
	for _, c := range components {
		key, err := c.Key(b.Modules)
		if err != nil {
			return nil, err
		}
		keys[c.Name] = key
		if !exists(b.Dir(key)) {
			missing = append(missing, c)
		}
	}
	if len(missing) == 0 {
		return keys, nil
	}
	if _, err := exec.LookPath("go"); err != nil {
		return nil, errors.New("the go command is not on PATH: install Go to build the components")
	}
	for i, c := range missing {
		step := fmt.Sprintf("%s %s (%d of %d)", c.Name, c.Version, i+1, len(missing))
		if err := b.one(ctx, c, keys[c.Name], step); err != nil {
			return nil, fmt.Errorf("build %s: %w", c.Name, err)
		}
	}
	return keys, nil
}

// Dir is the folder of the build with this key.
func (b *Builder) Dir(key string) string { return filepath.Join(b.Cache, "builds", key) }

// one builds a component beside its place and moves it there when complete. The
// lock keeps two clones from building the same at once.
func (b *Builder) one(ctx context.Context, c Component, key, step string) error {
	lock, err := state.LockFile(ctx, filepath.Join(b.Cache, "locks", key), func() {
		b.Progress("%s: waiting for another build of it", step)
	})
	if err != nil {
		return err
	}
	defer lock.Release(true)
	if exists(b.Dir(key)) {
		return nil
	}
	if err := EnsureDebian(ctx, b.Progress, c.Debian...); err != nil {
		return err
	}
	tmp := b.Dir(key) + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // what is left of a failure
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return err
	}
	start := time.Now()
	b.Progress("%s: building", step)
	if err := b.compile(ctx, c, tmp, step, start); err != nil {
		return err
	}
	if err := b.copyTrees(ctx, c, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, b.Dir(key)); err != nil {
		return err
	}
	b.Progress("%s: built in %s", step, since(start))
	return nil
}

func (b *Builder) compile(ctx context.Context, c Component, out, step string, start time.Time) error {
	args := []string{"build", "-v", "-mod=readonly", "-trimpath", "-buildvcs=false",
		"-tags=" + c.Tags, "-ldflags=" + c.LDFlags, "-o", out + string(filepath.Separator)}
	cmd := b.goCommand(ctx, c, append(args, c.Packages...)...)
	pipe, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	watch := &watcher{}
	stop := watch.report(func(compiled int, doing string) {
		b.Progress("%s: %d packages compiled, %s elapsed%s", step, compiled, since(start), doing)
	})
	watch.read(pipe)
	err = cmd.Wait()
	stop()
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w\n%s", err, watch.tail())
	}
	for from, to := range c.Rename {
		if err := os.Rename(filepath.Join(out, from), filepath.Join(out, to)); err != nil {
			return err
		}
	}
	return nil
}

// goCommand runs go in the component's module, free of settings that would
// change the result.
func (b *Builder) goCommand(ctx context.Context, c Component, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Join(b.Modules, c.Module)
	cgo := "0"
	if c.CGO {
		cgo = "1"
	}
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo, "GOFLAGS=", "GOWORK=off")
	return cmd
}

func (b *Builder) copyTrees(ctx context.Context, c Component, out string) error {
	for _, t := range c.Trees {
		dir, err := b.goCommand(ctx, c, "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", t.Module).Output()
		if err != nil {
			return fmt.Errorf("find module %s: %w", t.Module, err)
		}
		from := filepath.Join(strings.TrimSpace(string(dir)), filepath.FromSlash(t.From))
		if err := os.CopyFS(filepath.Join(out, t.To), os.DirFS(from)); err != nil {
			return fmt.Errorf("copy %s: %w", path.Join(t.Module, t.From), err)
		}
	}
	return nil
}

// watcher follows the output of `go build -v`: a line per package, and errors.
type watcher struct {
	mu       sync.Mutex
	compiled int
	doing    string
	last     []string
}

var packageLine = regexp.MustCompile(`^[\w./~+-]+$`)

const tailLines = 30

func (w *watcher) read(r io.Reader) {
	scan := bufio.NewScanner(r)
	for scan.Scan() {
		w.line(scan.Text())
	}
	// What the scanner does not take (a line of unusual length) must still be
	// read, or the compiler would block on a full pipe.
	_, _ = io.Copy(io.Discard, r)
}

func (w *watcher) line(line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if packageLine.MatchString(line) {
		w.compiled++
		w.doing = ""
		return
	}
	if name, ok := strings.CutPrefix(line, "go: downloading "); ok {
		w.doing = ", downloading " + name
		return
	}
	w.last = append(w.last, line)
	if len(w.last) > tailLines {
		w.last = w.last[1:]
	}
}

func (w *watcher) tail() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b bytes.Buffer
	for _, l := range w.last {
		fmt.Fprintln(&b, l)
	}
	return strings.TrimRight(b.String(), "\n")
}

// report calls f every few seconds until stop is called.
func (w *watcher) report(f func(compiled int, doing string)) (stop func()) {
	const interval = 8 * time.Second
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				w.mu.Lock()
				compiled, doing := w.compiled, w.doing
				w.mu.Unlock()
				f(compiled, doing)
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func since(t time.Time) time.Duration { return time.Since(t).Round(time.Second) }
