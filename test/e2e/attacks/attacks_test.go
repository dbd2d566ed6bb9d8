package attacks

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table into docs/egress.md instead of comparing")

const (
	begin = "<!-- attacks: written by go test ./test/e2e/attacks -update -->\n"
	end   = "<!-- end of attacks -->"
)

// The documentation carries the list that the tests work through.
func TestTableIsInTheDocumentation(t *testing.T) {
	path := filepath.Join("..", "..", "..", "docs", "egress.md")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(raw), begin)
	table, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no place for the table: put it between %q and %q", path, begin, end)
	}
	if *update {
		if err := os.WriteFile(path, []byte(before+begin+Table()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if table != Table() {
		t.Errorf("the table of %s is not the list of attacks: run go test ./test/e2e/attacks -update", path)
	}
}

func TestAttacksAreWhole(t *testing.T) {
	all := append(All(), More()...)
	if len(all) < 40 {
		t.Errorf("%d attempts, want at least 40", len(all))
	}
	seen := map[string]bool{}
	for _, a := range all {
		if seen[a.ID] || a.What == "" || a.Stops == "" || strings.ContainsAny(a.What+a.Stops, "|\n") {
			t.Errorf("%s is there twice, or not fit for the table", a.ID)
		}
		seen[a.ID] = true
	}
	for _, a := range All() {
		told := 0
		for _, way := range []bool{a.Reason != "", a.Audit != "", a.Never != "", a.Free, a.Stranger, a.ID == "N18"} {
			if way {
				told++
			}
		}
		if told != 1 {
			t.Errorf("%s has %d ways to tell why it failed, want one", a.ID, told)
		}
	}
}
