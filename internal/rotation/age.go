package rotation

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// maxNamed bounds how many sources a message names.
const maxNamed = 5

// Dated is a source with what is known of its age.
type Dated struct {
	// Secret is its name.
	Secret string
	// Key in the Secret.
	Key string
	// Changed is when its content last changed; zero while unknown.
	Changed time.Time
	// Expires is when its content ends to be valid; zero where nobody says.
	Expires time.Time
}

// Age judges sources by their times: Expired, TooOld where maxAge is more than zero, Unknown where
// maxAge is set and a source has no time, else Current. It also says after how long to judge
// again, because the verdict turns by the mere passing of time: 0 for never. A change in the future
// is of a clock that was wrong, and counts as one of now: the caller does well to correct it.
func Age(sources []Dated, maxAge time.Duration, now time.Time) (Verdict, time.Duration) {
	var expired, old, undated []Dated
	var turns time.Time
	sooner := func(t time.Time) {
		if turns.IsZero() || t.Before(turns) {
			turns = t
		}
	}
	for _, s := range sources {
		switch {
		case s.Expires.IsZero():
		case s.Expires.After(now):
			sooner(s.Expires)
		default:
			expired = append(expired, s)
		}
		changed := s.Changed
		if changed.After(now) {
			changed = now
		}
		switch {
		case maxAge <= 0:
		case changed.IsZero():
			undated = append(undated, s)
		case changed.Add(maxAge).After(now):
			sooner(changed.Add(maxAge))
		default:
			old = append(old, s)
		}
	}
	var verdicts []Verdict
	if len(expired) > 0 {
		verdicts = append(verdicts, no(v1alpha1.ReasonExpired, "Expired: "+named(expired, func(d Dated) time.Time { return d.Expires })+". Renew it at its issuer and write the new value to the Secret."))
	}
	if len(old) > 0 {
		verdicts = append(verdicts, no(v1alpha1.ReasonTooOld, fmt.Sprintf("Not changed for longer than the allowed %s: %s. Renew it at its issuer and write the new value to the Secret.", maxAge, named(old, func(d Dated) time.Time { return d.Changed }))))
	}
	if len(undated) > 0 {
		verdicts = append(verdicts, unknown("It is not known when these last changed: "+named(undated, func(d Dated) time.Time { return d.Changed })+"."))
	}
	verdict := Worst(append(verdicts, Verdict{metav1.ConditionTrue, v1alpha1.ReasonCurrent, "Every secret is young enough."})...)
	if turns.IsZero() {
		return verdict, 0
	}
	return verdict, turns.Sub(now)
}

// named lists sources, the longest overdue first.
func named(sources []Dated, by func(Dated) time.Time) string {
	slices.SortFunc(sources, func(a, b Dated) int {
		return cmp.Or(by(a).Compare(by(b)), strings.Compare(a.Secret, b.Secret), strings.Compare(a.Key, b.Key))
	})
	var parts []string
	for _, s := range sources[:min(len(sources), maxNamed)] {
		part := fmt.Sprintf("key %q of Secret %q", s.Key, s.Secret)
		if at := by(s); !at.IsZero() {
			part += " (" + at.UTC().Format(time.RFC3339) + ")"
		}
		parts = append(parts, part)
	}
	if more := len(sources) - maxNamed; more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, ", ")
}
