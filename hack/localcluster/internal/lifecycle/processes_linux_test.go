package lifecycle

import (
	"os"
	"testing"
)

func TestHasVariable(t *testing.T) {
	environ := []byte("A=1\x00MARK=x-1\x00B=2\x00")
	if !hasVariable(environ, []byte("MARK=x-1")) {
		t.Error("a variable is not found")
	}
	for _, other := range []string{"MARK=x", "MARK=x-12", "ARK=x-1"} {
		if hasVariable(environ, []byte(other)) {
			t.Errorf("%s is found", other)
		}
	}
}

func TestAncestors(t *testing.T) {
	found := ancestors()
	if !found[os.Getpid()] || !found[os.Getppid()] {
		t.Errorf("ancestors are %v; want this process and its parent", found)
	}
}
