// Package docs tests the documentation: what it shows must be accepted, what it says to type must work, and
// what is listed in it must be complete.
package docs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mcpwarden/mcp-warden/test/apiserver"
)

// block is a fenced block of a page.
type block struct {
	page, language, text string
	line                 int
	// notRun is the reason why it cannot be run here, of the comment before it.
	notRun string
	// partOf says what a piece of YAML is a part of that no kind of ours tells.
	partOf string
	// first are commands that readers do not see, which prepare or do what the page tells of.
	first string
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.page, b.line) }

// languages are those that a block may have: a block without would be one that nobody knows whether to run.
var languages = []string{"console", "sh", "yaml", "json", "text", "mermaid", "promql", "go", "diff"}

var (
	fence   = regexp.MustCompile("^( *)```(.*)$")
	comment = regexp.MustCompile(`(?s)<!-- (not run|part of|run first): (.*?) *-->`)
)

// pages are the files of the documentation, by their names from the root of the repository.
func pages(t *testing.T) []string {
	t.Helper()
	out := []string{"README.md", "SECURITY.md"}
	root := apiserver.Root()
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasSuffix(path, ".md") {
			name, relErr := filepath.Rel(root, path)
			out = append(out, filepath.ToSlash(name))
			return relErr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out[2:])
	return out
}

func read(t *testing.T, page string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(apiserver.Root(), filepath.FromSlash(page)))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// blocks of a page. The comments between a block and the one before it are about it.
func blocks(t *testing.T, page string) []block {
	t.Helper()
	var (
		out    []block
		before strings.Builder
		open   *block
		indent string
	)
	for i, line := range strings.Split(read(t, page), "\n") {
		found := fence.FindStringSubmatch(line)
		switch {
		case open == nil && found != nil:
			indent = found[1]
			open = &block{page: page, line: i + 1, language: found[2]}
			open.about(before.String())
			before.Reset()
		case open != nil && found != nil:
			out = append(out, *open)
			open = nil
		case open != nil:
			open.text += strings.TrimPrefix(line, indent) + "\n"
		default:
			before.WriteString(line + "\n")
		}
	}
	if open != nil {
		t.Fatalf("%s: the block is not closed", open)
	}
	return out
}

func (b *block) about(text string) {
	for _, c := range comment.FindAllStringSubmatch(text, -1) {
		switch c[1] {
		case "not run":
			b.notRun = c[2]
		case "part of":
			b.partOf = c[2]
		case "run first":
			b.first += c[2] + "\n"
		}
	}
}

func TestBlocksSayWhatTheyAre(t *testing.T) {
	for _, page := range pages(t) {
		for _, b := range blocks(t, page) {
			if !slices.Contains(languages, b.language) {
				t.Errorf("%s: the language of the block is %q; one of %s tells readers and tests what it is", b, b.language, strings.Join(languages, ", "))
			}
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)#: ]*)(#[^) ]*)?\)`)

// A link leads to a file that is there, and to a heading that it has.
func TestLinks(t *testing.T) {
	for _, page := range pages(t) {
		for _, l := range link.FindAllStringSubmatch(withoutBlocks(read(t, page)), -1) {
			target := page
			if l[1] != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(page), filepath.FromSlash(l[1])))
			}
			if _, err := os.Stat(filepath.Join(apiserver.Root(), filepath.FromSlash(target))); err != nil {
				t.Errorf("%s: %s leads nowhere: %v", page, l[0], err)
				continue
			}
			if l[2] != "" && strings.HasSuffix(target, ".md") && !slices.Contains(anchors(read(t, target)), l[2][1:]) {
				t.Errorf("%s: %s leads to no heading of %s", page, l[0], target)
			}
		}
	}
}

var (
	fenced  = regexp.MustCompile("(?sm)^ *```.*?^ *```$")
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	named   = regexp.MustCompile(`<a (?:id|name)="([^"]*)"`)
	markup  = regexp.MustCompile(`[^\pL\pN _-]`)
)

func withoutBlocks(text string) string { return fenced.ReplaceAllString(text, "") }

// anchors of a page, as GitHub makes them of its headings.
func anchors(text string) []string {
	var out []string
	text = withoutBlocks(text)
	for _, h := range heading.FindAllStringSubmatch(text, -1) {
		out = append(out, strings.ReplaceAll(markup.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
	}
	for _, a := range named.FindAllStringSubmatch(text, -1) {
		out = append(out, a[1])
	}
	return out
}
