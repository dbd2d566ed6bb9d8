package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// EnsureDebian installs the packages that are missing, and only those.
func EnsureDebian(ctx context.Context, progress func(string, ...any), packages ...string) error {
	missing := missingPackages(ctx, packages)
	if len(missing) == 0 {
		return nil
	}
	list := strings.Join(missing, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("these Debian packages are missing, and there is no apt-get to install them: %s", list)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("these packages are missing: install them with `sudo apt-get install %s`", list)
	}
	start := time.Now()
	progress("installing Debian packages: %s", list)
	install := append([]string{"install", "-y", "-qq", "--no-install-recommends"}, missing...)
	// The package lists of a fresh machine are empty or old: fetch them once the
	// first try fails, not each time.
	if err := aptGet(ctx, install...); err != nil {
		if err := aptGet(ctx, "update", "-qq"); err != nil {
			return err
		}
		if err := aptGet(ctx, install...); err != nil {
			return err
		}
	}
	progress("installed Debian packages in %s", since(start))
	return nil
}

func missingPackages(ctx context.Context, packages []string) []string {
	var missing []string
	for _, p := range packages {
		out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${db:Status-Abbrev}", p).Output()
		if err != nil || !strings.HasPrefix(string(out), "ii") {
			missing = append(missing, p)
		}
	}
	return missing
}

func aptGet(ctx context.Context, args ...string) error {
	// Another apt may be at work: wait for its lock rather than fail.
	args = append([]string{"-o", "DPkg::Lock::Timeout=300"}, args...)
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("apt-get %s: %w", strings.Join(args[2:], " "), err), errors.New(tail(string(out), tailLines)))
	}
	return nil
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
