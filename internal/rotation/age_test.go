package rotation

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

func TestAge(t *testing.T) {
	day := 24 * time.Hour
	ago := func(d time.Duration) Dated { return Dated{Secret: "s", Key: "k", Changed: start.Add(-d)} }
	expires := func(d time.Duration) Dated {
		return Dated{Secret: "s", Key: "k", Changed: start, Expires: start.Add(d)}
	}
	for _, c := range []struct {
		name    string
		sources []Dated
		maxAge  time.Duration
		reason  string
		turns   time.Duration
	}{
		{"nothing", nil, day, v1alpha1.ReasonCurrent, 0},
		{"no limit", []Dated{ago(1000 * day)}, 0, v1alpha1.ReasonCurrent, 0},
		{"young", []Dated{ago(time.Hour)}, day, v1alpha1.ReasonCurrent, 23 * time.Hour},
		{"the oldest turns it", []Dated{ago(time.Hour), ago(22 * time.Hour), ago(2 * time.Hour)}, day, v1alpha1.ReasonCurrent, 2 * time.Hour},
		{"a nanosecond before", []Dated{ago(day - 1)}, day, v1alpha1.ReasonCurrent, 1},
		{"at the moment", []Dated{ago(day)}, day, v1alpha1.ReasonTooOld, 0},
		{"one is old, the other will be", []Dated{ago(2 * day), ago(time.Hour)}, day, v1alpha1.ReasonTooOld, 23 * time.Hour},
		{"changed in the future", []Dated{ago(-1000 * day)}, day, v1alpha1.ReasonCurrent, day},
		{"never seen", []Dated{{Secret: "s", Key: "k"}}, day, v1alpha1.ReasonSourceUnreadable, 0},
		{"never seen, no limit", []Dated{{Secret: "s", Key: "k"}}, 0, v1alpha1.ReasonCurrent, 0},
		{"old and one never seen", []Dated{{Secret: "s", Key: "k"}, ago(2 * day)}, day, v1alpha1.ReasonTooOld, 0},
		{"expires", []Dated{expires(time.Hour)}, 0, v1alpha1.ReasonCurrent, time.Hour},
		{"expires before it is too old", []Dated{expires(time.Hour)}, day, v1alpha1.ReasonCurrent, time.Hour},
		{"too old before it expires", []Dated{expires(2 * day)}, day, v1alpha1.ReasonCurrent, day},
		{"expired at the moment", []Dated{expires(0)}, 0, v1alpha1.ReasonExpired, 0},
		{"expired and old", []Dated{ago(2 * day), expires(-time.Hour)}, day, v1alpha1.ReasonExpired, day},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, turns := Age(c.sources, c.maxAge, start)
			if v.Reason != c.reason || turns != c.turns {
				t.Errorf("%s, turns after %s; want %s, %s", v.Reason, turns, c.reason, c.turns)
			}
			status := map[string]metav1.ConditionStatus{v1alpha1.ReasonCurrent: metav1.ConditionTrue, v1alpha1.ReasonSourceUnreadable: metav1.ConditionUnknown}[c.reason]
			if status == "" {
				status = metav1.ConditionFalse
			}
			if v.Status != status {
				t.Errorf("status %s", v.Status)
			}
			if turns > 0 && !strings.Contains(c.name, "in the future") { // it does turn then, and not before
				if then, _ := Age(c.sources, c.maxAge, start.Add(turns)); then.Reason == v.Reason && then.Message == v.Message {
					t.Errorf("after %s it is still %+v", turns, then)
				}
				if then, _ := Age(c.sources, c.maxAge, start.Add(turns-1)); then.Reason != v.Reason || then.Message != v.Message {
					t.Errorf("before %s it is already %+v", turns, then)
				}
			}
		})
	}
}

func TestAgeNamesTheOldest(t *testing.T) {
	var sources []Dated
	for i := range 8 {
		sources = append(sources, Dated{Secret: fmt.Sprintf("s%d", i), Key: "token", Changed: start.Add(-time.Duration(i+2) * time.Hour)})
	}
	v, _ := Age(sources, time.Hour, start)
	if want := `key "token" of Secret "s7" (2027-03-01T03:00:00Z), key "token" of Secret "s6"`; !strings.Contains(v.Message, want) {
		t.Errorf("message %q lacks %q", v.Message, want)
	}
	if strings.Contains(v.Message, `"s2"`) || !strings.Contains(v.Message, "and 3 more") {
		t.Errorf("message %q is not bounded", v.Message)
	}
}

func TestWorst(t *testing.T) {
	rolled, old := no(v1alpha1.ReasonRotationRolledBack, "Rolled back."), no(v1alpha1.ReasonTooOld, "Old.")
	gone, unread := no(v1alpha1.ReasonSourceNotFound, "Gone."), unknown("Unread.")
	well, waiting := yes(v1alpha1.ReasonCurrent, "Well."), no(v1alpha1.ReasonRotating, "Rotating.")
	for _, c := range []struct {
		name string
		in   []Verdict
		want Verdict
	}{
		{"none", nil, Verdict{}},
		{"well", []Verdict{well, well}, well},
		{"no secrets, and none too old", []Verdict{well, yes(v1alpha1.ReasonNoSecrets, "None.")}, yes(v1alpha1.ReasonNoSecrets, "None.")},
		{"rolled back and too old", []Verdict{old, well, rolled}, no(rolled.Reason, "Rolled back. Old.")},
		{"a source is gone and so cannot be read", []Verdict{unread, gone}, no(gone.Reason, "Gone. Unread.")},
		{"too old while it rotates", []Verdict{waiting, old}, no(old.Reason, "Old. Rotating.")},
		{"unread is not well", []Verdict{well, unread}, unread},
		{"the same twice", []Verdict{rolled, rolled}, rolled},
		{"what nobody knows is worst", []Verdict{gone, no("New", "New.")}, no("New", "New. Gone.")},
	} {
		if got := Worst(c.in...); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
