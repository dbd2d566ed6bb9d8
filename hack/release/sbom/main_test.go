package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestWhatIsListed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bom.json")
	bom := `{"metadata":{"tools":[{"name":"cyclonedx-gomod","hashes":[{"alg":"MD5","content":"0"}]}]},"components":[{"name":"b","version":"v2"},{"name":"a","version":"v1","hashes":[{"alg":"SHA-256","content":"1"}]}]}`
	if err := os.WriteFile(file, []byte(bom), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := withoutTool(file); err != nil {
		t.Fatal(err)
	}
	got, err := listed(file)
	if err != nil || !slices.Equal(got, []string{"a v1", "b v2"}) {
		t.Errorf("listed %q, %v", got, err)
	}
	raw, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(raw), "MD5") || !strings.Contains(string(raw), "SHA-256") {
		t.Errorf("what is left: %s, %v", raw, err)
	}
}

// A test binary is a binary with modules of its own.
func TestWhatIsLinked(t *testing.T) {
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	got, err := linked(own)
	if err != nil || !slices.ContainsFunc(got, func(m string) bool { return strings.HasPrefix(m, "std go1.") }) {
		t.Errorf("linked %q, %v", got, err)
	}
}
