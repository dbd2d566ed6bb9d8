// Command notices writes the licences of everything that is linked into the shipped binaries, and fails where a module has
// none, or one under which we do not ship.
//
//	go -C hack/release run ./notices > THIRD_PARTY_NOTICES
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// root is this repository's, seen from the folder of this module, in which go -C runs the program.
const root = "../.."

// platforms are those that something is shipped for: what is linked differs by little.
var platforms = []string{"linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64"}

// allowed licences ask for no more than that their text and notices go with the binary.
var allowed = []string{"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"}

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "notices:", err)
		os.Exit(1)
	}
}

func run(out io.Writer) error {
	modules := map[string]*module{}
	for _, platform := range platforms {
		if err := addLinked(modules, platform); err != nil {
			return err
		}
	}
	standard, err := standardLibrary()
	if err != nil {
		return err
	}
	sorted := []*module{standard}
	for _, m := range modules {
		sorted = append(sorted, m)
	}
	slices.SortFunc(sorted, func(a, b *module) int { return strings.Compare(a.Path, b.Path) })
	w := bufio.NewWriter(out)
	fmt.Fprintln(w, "MCP Warden is licensed under the Apache License, Version 2.0. Its binaries hold the following, under the licences below.")
	var problems []error
	for _, m := range sorted {
		problems = append(problems, m.write(w))
	}
	return errors.Join(append(problems, w.Flush())...)
}

// module is a module of which packages are linked.
type module struct {
	Path, Version, Dir string
	Main               bool
	// folders of its linked packages.
	folders []string
}

func addLinked(modules map[string]*module, platform string) error {
	cmd, err := goCommand("list", "-deps", "-json=Dir,Module", "./cmd/...")
	if err != nil {
		return err
	}
	goos, goarch, _ := strings.Cut(platform, "/")
	if goos != "linux" {
		cmd.Args[len(cmd.Args)-1] = "./cmd/kubectl-warden"
	}
	cmd.Env = append(cmd.Env, "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0", "GOFLAGS=")
	cmd.Stderr = os.Stderr
	listed, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("list what is linked for %s: %w", platform, err)
	}
	for decoder := json.NewDecoder(bytes.NewReader(listed)); ; {
		var pkg struct {
			Dir    string
			Module *module
		}
		if err := decoder.Decode(&pkg); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("list what is linked for %s: %w", platform, err)
		}
		if pkg.Module == nil || pkg.Module.Main { // the standard library, or our own
			continue
		}
		m := modules[pkg.Module.Path]
		if m == nil {
			m = pkg.Module
			modules[m.Path] = m
		}
		m.folders = append(m.folders, pkg.Dir)
	}
}

// goCommand runs the Go that builds what ships, not the installed one.
func goCommand(args ...string) (*exec.Cmd, error) {
	version, err := os.ReadFile(filepath.Join(root, "hack/go-version"))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN="+strings.TrimSpace(string(version)))
	return cmd, nil
}

// standardLibrary is not in any list of modules, and linked nevertheless.
func standardLibrary() (*module, error) {
	cmd, err := goCommand("env", "GOROOT", "GOVERSION")
	if err != nil {
		return nil, err
	}
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("find Go: %w", err)
	}
	goroot, version, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return &module{Path: "Go standard library", Version: version, Dir: goroot, folders: []string{goroot}}, nil
}

func (m *module) write(w io.Writer) error {
	files, err := m.files()
	if err != nil {
		return err
	}
	var licences []string
	var problems []error
	texts := map[string][]byte{}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(m.Dir, file))
		if err != nil {
			return err
		}
		texts[file] = text
		if !isLicence(file) {
			continue
		}
		found, err := judge(text)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s %s: %s: %w", m.Path, m.Version, file, err))
		}
		licences = append(licences, found...)
	}
	if len(licences) == 0 && len(problems) == 0 {
		problems = append(problems, fmt.Errorf("%s %s: no licence was found", m.Path, m.Version))
	}
	slices.Sort(licences)
	fmt.Fprintf(w, "\n%s\n%s %s: %s\n", strings.Repeat("=", 80), m.Path, m.Version, strings.Join(slices.Compact(licences), ", "))
	for _, file := range files {
		text := strings.TrimRight(strings.ReplaceAll(string(texts[file]), "\r\n", "\n"), " \n")
		fmt.Fprintf(w, "\n--- %s\n\n%s\n", filepath.ToSlash(file), text)
	}
	return errors.Join(problems...)
}

var (
	licenceName = regexp.MustCompile(`(?i)^(li[cs]en[cs]e|copying|unlicense)([-._].*)?$`)
	noticeName  = regexp.MustCompile(`(?i)^(notice|patents|copyright)([-._].*)?$`)
	sourceName  = regexp.MustCompile(`(?i)\.(go|s|c|h|json|ya?ml|tmpl)$`)
)

func isLicence(file string) bool { return licenceName.MatchString(filepath.Base(file)) }

// files of the module that are to go with it: those of its folder, and those between it and a package that is linked.
func (m *module) files() ([]string, error) {
	folders := map[string]bool{m.Dir: true}
	for _, folder := range m.folders {
		for ; strings.HasPrefix(folder, m.Dir) && !folders[folder]; folder = filepath.Dir(folder) {
			folders[folder] = true
		}
	}
	var out []string
	for folder := range folders {
		entries, err := os.ReadDir(folder)
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			name := entry.Name()
			if entry.IsDir() || sourceName.MatchString(name) || (!isLicence(name) && !noticeName.MatchString(name)) {
				continue
			}
			relative, err := filepath.Rel(m.Dir, filepath.Join(folder, name))
			if err != nil {
				return nil, err
			}
			out = append(out, relative)
		}
	}
	slices.Sort(out)
	return out, nil
}

// covered is how many percent of a file must be the text of licences that are known: less may hide another one.
const covered = 75

// judge returns the licences that a text is of.
func judge(text []byte) ([]string, error) {
	coverage := licensecheck.Scan(text)
	var found []string
	for _, match := range coverage.Match {
		if !slices.Contains(allowed, match.ID) {
			return nil, fmt.Errorf("licence %s is none of %s", match.ID, strings.Join(allowed, ", "))
		}
		found = append(found, match.ID)
	}
	if len(found) == 0 || coverage.Percent < covered {
		return nil, fmt.Errorf("no licence is recognised in %.0f%% of it", 100-coverage.Percent)
	}
	return found, nil
}
