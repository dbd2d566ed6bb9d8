package rotation

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const testMaterial = "0123456789abcdefghijklmnopqrstuv"

func testKey(t testing.TB, material string) Key {
	t.Helper()
	k, err := NewKey([]byte(material))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestNewKeyRefusesShortMaterial(t *testing.T) {
	if _, err := NewKey(make([]byte, MinKeyBytes-1)); err == nil {
		t.Error("a key of 31 bytes was taken")
	}
}

func TestKeyKeepsItsOwnCopy(t *testing.T) {
	material := []byte(testMaterial)
	k, err := NewKey(material)
	if err != nil {
		t.Fatal(err)
	}
	before := k.Digest(nil)
	clear(material)
	if k.Digest(nil) != before {
		t.Error("the digest changed with the caller's bytes")
	}
}

// The values were computed apart from this code; a change of the digest would roll every server.
func TestDigestIsStable(t *testing.T) {
	k := testKey(t, testMaterial)
	got := k.Digest(map[string][]byte{"TOKEN": []byte("s3cret"), "A": {0, 255}})
	if want := "483b3ae2-488bf3a48ce1f1b41ef8ebf655ae30f0"; got != want {
		t.Errorf("digest = %s, want %s", got, want)
	}
}

func TestDigestTellsContentsApart(t *testing.T) {
	k, other := testKey(t, testMaterial), testKey(t, testMaterial[1:]+"x")
	seen := map[string]string{}
	for name, digest := range map[string]string{
		"nothing":       k.Digest(nil),
		"ab=c":          k.Digest(map[string][]byte{"ab": []byte("c")}),
		"a=bc":          k.Digest(map[string][]byte{"a": []byte("bc")}),
		"a=b c=d":       k.Digest(map[string][]byte{"a": []byte("b"), "c": []byte("d")}),
		"a=d c=b":       k.Digest(map[string][]byte{"a": []byte("d"), "c": []byte("b")}),
		"a empty":       k.Digest(map[string][]byte{"a": nil}),
		"a, b empty":    k.Digest(map[string][]byte{"a": nil, "b": nil}),
		"another key":   other.Digest(nil),
		"length inside": k.Digest(map[string][]byte{"a": append([]byte("b"), 0, 0, 0, 0, 0, 0, 0, 1, 'c', 0, 0, 0, 0, 0, 0, 0, 1, 'd')}),
	} {
		if before, ok := seen[digest]; ok {
			t.Errorf("%q and %q have the same digest", name, before)
		}
		seen[digest] = name
		if id, err := KeyIDOf(digest); err != nil || (id == k.ID()) == (name == "another key") {
			t.Errorf("%s: key id %q, %v", name, id, err)
		}
		if s := Short(digest); len(s) != 16 || !strings.Contains(digest, "-"+s) {
			t.Errorf("%s: short form %q of %q", name, s, digest)
		}
	}
}

func TestKeyIDSaysNothingOfADigest(t *testing.T) {
	k := testKey(t, testMaterial)
	if strings.HasPrefix(k.Digest(nil)[keyIDLen+1:], k.ID()) {
		t.Error("the key id is the beginning of the digest of nothing")
	}
}

func TestWhatIsNoDigest(t *testing.T) {
	good := testKey(t, testMaterial).Digest(nil)
	for _, s := range []string{"", "-", good[1:], good + "0", strings.ToUpper(good), strings.Replace(good, "-", "_", 1), good[:40] + "\n", good[:40] + "é"} {
		if id, err := KeyIDOf(s); err == nil || id != "" {
			t.Errorf("KeyIDOf(%q) = %q, %v", s, id, err)
		}
		if got := Short(s); got != "" {
			t.Errorf("Short(%q) = %q", s, got)
		}
	}
}

func TestKeyNeverPrints(t *testing.T) {
	k := testKey(t, testMaterial)
	type holder struct{ key Key } // fmt calls no method of what it finds in an unexported field
	var out bytes.Buffer
	for _, v := range []any{k, &k, holder{k}, &holder{k}, []Key{k}, map[string]Key{"k": k}, fmt.Errorf("key %v", k)} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b", "%c", "%U"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(b)
		slog.New(slog.NewTextHandler(&out, nil)).Info("key", "key", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("key", "key", v)
	}
	for _, leak := range []string{testMaterial[:6], fmt.Sprintf("%x", testMaterial[:6]), fmt.Sprintf("%X", testMaterial[:6]), "48 49 50", "0x30, 0x31", "MDEyMzQ1"} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("printed %q:\n%s", leak, out.String())
		}
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("the placeholder is missing: was anything printed?")
	}
}
