package rotation

import (
	"strings"
	"testing"
	"time"
)

func fullState() State {
	name := strings.Repeat("a", 253)
	s := State{Deployed: version(1), Good: new(version(2)), Request: requestID("x")}
	s.Deployed.Snapshot, s.Good.Snapshot = name, name
	for i := range MaxFailed {
		s.Failed = append(s.Failed, version(i+3).Digest)
	}
	return started(s, spent(time.Minute, start)...)
}

func TestStateSurvivesItsAnnotation(t *testing.T) {
	for name, s := range map[string]State{
		"smallest":   {Deployed: version(1)},
		"no secrets": {Deployed: Version{Digest: version(1).Digest, References: refsA}},
		"largest":    fullState(),
	} {
		text := s.Encode()
		got, err := Decode(text)
		if err != nil || got.Encode() != text {
			t.Errorf("%s: %v\n got %s\nwant %s", name, err, got.Encode(), text)
		}
		if len(text) > maxState/2 {
			t.Errorf("%s: %d bytes", name, len(text))
		}
	}
	if s, err := Decode(""); err != nil || s.Deployed.Digest != "" {
		t.Errorf("no annotation: %+v, %v", s, err)
	}
}

func TestDecodeIsStrict(t *testing.T) {
	good := fullState().Encode()
	if _, err := Decode(good); err != nil {
		t.Fatal(err)
	}
	change := func(old, new string) string {
		t.Helper()
		if !strings.Contains(good, old) {
			t.Fatalf("%s is not in %s", old, good)
		}
		return strings.Replace(good, old, new, 1)
	}
	over := fullState()
	over.Failed = append(over.Failed, version(99).Digest)
	often := fullState()
	often.Started = append(often.Started, 1)
	for name, text := range map[string]string{
		"no JSON":             "{",
		"null":                "null",
		"empty object":        "{}",
		"a space":             good + " ",
		"two objects":         good + good,
		"an unknown field":    change(`{"deployed"`, `{"more":1,"deployed"`),
		"a field twice":       change(`{"deployed"`, `{"request":"","deployed"`),
		"another case":        change(`"deployed"`, `"Deployed"`),
		"another type":        change(`"request":"`, `"request":["`),
		"a null":              change(`"request":"`+requestID("x")+`"`, `"request":null`),
		"no digest":           change(version(1).Digest, ""),
		"a digest in capital": change(version(1).Digest, strings.ToUpper(version(1).Digest)),
		"a failed of no kind": change(version(3).Digest, "x"),
		"a snapshot path":     change(strings.Repeat("a", 253), "../x"),
		"a long snapshot":     change(strings.Repeat("a", 253), strings.Repeat("a", 254)),
		"references":          change(`"references":"`+refsA, `"references":"x`),
		"a request":           change(requestID("x"), "now"),
		"a time of no number": change(`"started":[`, `"started":[1.5,`),
		"too many failed":     over.Encode(),
		"too many starts":     often.Encode(),
		"too long":            strings.Repeat(" ", maxState) + good,
	} {
		s, err := Decode(text)
		if err == nil {
			t.Errorf("%s was taken: %s", name, text)
		}
		if s.Encode() != (State{}).Encode() {
			t.Errorf("%s: an error and a state: %s", name, s.Encode())
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(fullState().Encode())
	f.Add(settled(1).Encode())
	f.Add(`{"deployed":{"digest":"","references":""}}`)
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Decode(text)
		if err != nil || text == "" {
			if s.Encode() != (State{}).Encode() {
				t.Errorf("%v, and a state: %s", err, s.Encode())
			}
		} else if s.Encode() != text {
			t.Errorf("read %q, wrote %q", text, s.Encode())
		}
		// Whatever was read, it rolls nothing by itself: what is live is what is desired.
		in := input(s)
		in.Live.Snapshot, in.Live.Digest = version(1).Snapshot, version(1).Digest
		d := Decide(in)
		if d.Action != Keep || d.State.Deployed != version(1) {
			t.Errorf("%q: action %d, %s", text, d.Action, d.State.Encode())
		}
		if _, err := Decode(d.State.Encode()); err != nil {
			t.Errorf("%q: wrote what it cannot read: %v", text, err)
		}
	})
}

func TestRequestID(t *testing.T) {
	if requestID("") != "" || requestID("a") == requestID("b") || len(requestID(strings.Repeat("x", 1<<18))) != shortLen {
		t.Error("a request is not told from another, or not bounded")
	}
}
