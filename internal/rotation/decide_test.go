package rotation

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

var (
	start = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	refsA = strings.Repeat("a", 16)
	refsB = strings.Repeat("b", 16)
)

const testKeyID = "0000cafe"

// version x of the values, made for refsA under the present key.
func version(x int) Version {
	digest := fmt.Sprintf("%s-%016x%016x", testKeyID, x, 0)
	return Version{Snapshot: "s-env-" + Short(digest), Digest: digest, References: refsA}
}

func lostKey(v Version) Version {
	v.Digest = "0000dead" + v.Digest[8:]
	return v
}

func refs(v Version, references string) Version {
	v.References = references
	return v
}

// settled is a server that runs with a version, proven.
func settled(x int) State { return State{Deployed: version(x), Good: new(version(x))} }

// moving is a server on the way from one version to another.
func moving(from, to int) State { return State{Deployed: version(to), Good: new(version(from))} }

func failed(s State, xs ...int) State {
	for _, x := range xs {
		s.Failed = append(s.Failed, version(x).Digest)
	}
	return s
}

func started(s State, at ...time.Time) State {
	for _, t := range at {
		s.Started = append(s.Started, t.Unix())
	}
	return s
}

func handled(s State, request string) State {
	s.Request = requestID(request)
	return s
}

// spent is a whole budget of starts.
func spent(apart time.Duration, last time.Time) (out []time.Time) {
	for i := range MaxStarts {
		out = append(out, last.Add(-time.Duration(MaxStarts-1-i)*apart))
	}
	return out
}

// input is one at rest: version 1 runs, the sources hold it, there is a free slot.
func input(s State, change ...func(*Input)) Input {
	in := Input{
		Now: start, KeyID: testKeyID, State: s, Debounce: 30 * time.Second, SlotFree: true,
		Live:    Live{Exists: true, Snapshot: s.Deployed.Snapshot, Rollout: Complete},
		Desired: version(1), DesiredSince: start.Add(-time.Hour),
	}
	for _, f := range change {
		f(&in)
	}
	return in
}

func desired(v Version) func(*Input)     { return func(in *Input) { in.Desired = v } }
func rollout(r Rollout) func(*Input)     { return func(in *Input) { in.Live.Rollout = r } }
func request(r string) func(*Input)      { return func(in *Input) { in.Request = r } }
func since(t time.Time) func(*Input)     { return func(in *Input) { in.DesiredSince = t } }
func live(f func(*Live)) func(*Input)    { return func(in *Input) { f(&in.Live) } }
func noSlot(in *Input)                   { in.SlotFree = false }
func manual(in *Input)                   { in.Manual = true }
func unreadable(in *Input)               { in.Desired.Digest, in.Desired.Snapshot = "", "" }
func otherSources(in *Input)             { in.Desired.References = refsB }
func snapshotLost(in *Input)             { in.Live.Lost = true }
func goodLost(in *Input)                 { in.Live.GoodLost = true }
func nothingLive(in *Input)              { in.Live = Live{} }
func contents(digest string) func(*Live) { return func(l *Live) { l.Digest = digest } }

func TestDecide(t *testing.T) {
	full := spent(4*time.Minute, start.Add(-time.Minute))
	type want struct {
		action   Action
		state    State
		reason   string
		requeue  time.Duration
		inFlight bool
		wants    bool
		events   []string
	}
	for _, c := range []struct {
		name string
		in   Input
		want want
	}{
		// first start
		{"a first start rolls at once", input(State{}, nothingLive, manual, noSlot, since(time.Time{}), request("x")),
			want{action: Roll, state: handled(State{Deployed: version(1)}, "x"), reason: v1alpha1.ReasonRotating}},
		{"a first start waits for its sources", input(State{}, nothingLive, unreadable),
			want{action: Hold, reason: v1alpha1.ReasonSourceUnreadable}},
		{"a first start without secrets", input(State{}, nothingLive, desired(Version{Digest: version(0).Digest, References: refsA})),
			want{action: Roll, state: State{Deployed: Version{Digest: version(0).Digest, References: refsA}}, reason: v1alpha1.ReasonNoSecrets}},
		{"the pods of a first start become ready", input(State{Deployed: version(1)}),
			want{state: settled(1), reason: v1alpha1.ReasonCurrent}},
		{"a first start takes no slot", input(State{Deployed: version(1)}, rollout(Progressing)),
			want{state: State{Deployed: version(1)}, reason: v1alpha1.ReasonRotating}},
		{"a first start that fails has nothing to go back to", input(State{Deployed: version(1)}, rollout(Failed)),
			want{state: State{Deployed: version(1)}, reason: v1alpha1.ReasonRotationFailed}},
		{"new values after a failed first start need no slot", input(State{Deployed: version(1)}, rollout(Failed), desired(version(2)), noSlot),
			want{action: Roll, state: started(State{Deployed: version(2)}, start), reason: v1alpha1.ReasonRotating, events: []string{EventStarted}}},

		// at rest
		{"nothing changed", input(settled(1)), want{state: settled(1), reason: v1alpha1.ReasonCurrent}},
		{"the image rolls", input(settled(1), rollout(Progressing)), want{state: settled(1), reason: v1alpha1.ReasonCurrent}},
		{"the image fails", input(settled(1), rollout(Failed)), want{state: settled(1), reason: v1alpha1.ReasonCurrent}},
		{"sources cannot be read", input(settled(1), unreadable), want{state: settled(1), reason: v1alpha1.ReasonSourceUnreadable}},
		{"a request with nothing to rotate is done", input(settled(1), request("x")), want{state: handled(settled(1), "x"), reason: v1alpha1.ReasonCurrent}},
		{"a request waits for sources", input(settled(1), unreadable, request("x")), want{state: settled(1), reason: v1alpha1.ReasonSourceUnreadable}},

		// a rotation
		{"new values wait for the debounce", input(settled(1), desired(version(2)), since(start.Add(-10*time.Second))),
			want{state: settled(1), reason: v1alpha1.ReasonRotationPending, requeue: 20 * time.Second}},
		{"values seen now wait for all of it", input(settled(1), desired(version(2)), since(time.Time{})),
			want{state: settled(1), reason: v1alpha1.ReasonRotationPending, requeue: 30 * time.Second}},
		{"values seen in the future wait no longer than that", input(settled(1), desired(version(2)), since(start.Add(24*time.Hour))),
			want{state: settled(1), reason: v1alpha1.ReasonRotationPending, requeue: 30 * time.Second}},
		{"the debounce is over", input(settled(1), desired(version(2)), since(start.Add(-30*time.Second))),
			want{action: Roll, state: started(moving(1, 2), start), reason: v1alpha1.ReasonRotating, inFlight: true, events: []string{EventStarted}}},
		{"no slot is free", input(settled(1), desired(version(2)), noSlot),
			want{state: settled(1), reason: v1alpha1.ReasonRotationQueued, wants: true}},
		{"a request takes no slot that is not free", input(settled(1), desired(version(2)), noSlot, request("x")),
			want{state: settled(1), reason: v1alpha1.ReasonRotationQueued, wants: true}},
		{"pods are being replaced", input(moving(1, 2), desired(version(2)), rollout(Progressing), noSlot),
			want{state: moving(1, 2), reason: v1alpha1.ReasonRotating, inFlight: true}},
		{"all pods are replaced", input(moving(1, 2), desired(version(2))),
			want{state: settled(2), reason: v1alpha1.ReasonCurrent, events: []string{EventCompleted}}},
		{"one ends and the next begins", input(moving(1, 2), desired(version(3))),
			want{action: Roll, state: started(moving(2, 3), start), reason: v1alpha1.ReasonRotating, inFlight: true, events: []string{EventCompleted, EventStarted}}},
		{"newer values supersede, and go on in the slot", input(moving(1, 2), desired(version(3)), rollout(Progressing), noSlot),
			want{action: Roll, state: started(moving(1, 3), start), reason: v1alpha1.ReasonRotating, inFlight: true, events: []string{EventStarted}}},
		{"newer values wait for the debounce", input(moving(1, 2), desired(version(3)), rollout(Progressing), since(start)),
			want{state: moving(1, 2), reason: v1alpha1.ReasonRotationPending, requeue: 30 * time.Second, inFlight: true}},
		{"the values before are back", input(moving(1, 2), rollout(Progressing), noSlot),
			want{action: RollBack, state: settled(1), reason: v1alpha1.ReasonRotating, events: []string{EventStarted}}},
		{"sources vanish during a rotation", input(moving(1, 2), unreadable, rollout(Progressing)),
			want{state: moving(1, 2), reason: v1alpha1.ReasonSourceUnreadable, inFlight: true}},
		{"a stopped server takes new values, and no slot", input(settled(1), desired(version(2)), rollout(Idle), noSlot),
			want{action: Roll, state: started(moving(1, 2), start), reason: v1alpha1.ReasonRotating, events: []string{EventStarted}}},
		{"no pod proves nothing", input(moving(1, 2), desired(version(2)), rollout(Idle)),
			want{state: moving(1, 2), reason: v1alpha1.ReasonCurrent}},

		// failure
		{"a failed rotation goes back", input(moving(1, 2), desired(version(2)), rollout(Failed)),
			want{action: RollBack, state: failed(settled(1), 2), reason: v1alpha1.ReasonRotationRolledBack, events: []string{EventRolledBack}}},
		{"it goes back although newer values are there", input(moving(1, 2), desired(version(3)), rollout(Failed), manual),
			want{action: RollBack, state: failed(settled(1), 2), reason: v1alpha1.ReasonRotationRolledBack, events: []string{EventRolledBack}}},
		{"it goes back although sources are missing", input(moving(1, 2), unreadable, rollout(Failed)),
			want{action: RollBack, state: failed(settled(1), 2), reason: v1alpha1.ReasonRotationRolledBack, events: []string{EventRolledBack}}},
		{"a request from before the failure does not try it again", input(moving(1, 2), desired(version(2)), rollout(Failed), request("x")),
			want{action: RollBack, state: handled(failed(settled(1), 2), "x"), reason: v1alpha1.ReasonRotationRolledBack, events: []string{EventRolledBack}}},
		{"a request for newer values outlives the failure of those before", input(moving(1, 2), desired(version(3)), rollout(Failed), request("x")),
			want{action: RollBack, state: failed(settled(1), 2), reason: v1alpha1.ReasonRotationRolledBack, events: []string{EventRolledBack}}},
		{"what failed is not tried again", input(failed(settled(1), 2), desired(version(2))),
			want{state: failed(settled(1), 2), reason: v1alpha1.ReasonRotationRolledBack}},
		{"what failed does not supersede", input(failed(moving(1, 3), 2), desired(version(2)), rollout(Progressing)),
			want{state: failed(moving(1, 3), 2), reason: v1alpha1.ReasonRotationRolledBack, inFlight: true}},
		{"a request tries it again", input(failed(settled(1), 3, 2), desired(version(2)), request("x"), since(start)),
			want{action: Roll, state: handled(started(failed(moving(1, 2), 3), start), "x"), reason: v1alpha1.ReasonRotating, inFlight: true, events: []string{EventStarted}}},
		{"a handled request does not", input(handled(failed(settled(1), 2), "x"), desired(version(2)), request("x")),
			want{state: handled(failed(settled(1), 2), "x"), reason: v1alpha1.ReasonRotationRolledBack}},
		{"other values roll after a failure", input(failed(settled(1), 2), desired(version(3)), rollout(Progressing)),
			want{action: Roll, state: started(failed(moving(1, 3), 2), start), reason: v1alpha1.ReasonRotating, inFlight: true, events: []string{EventStarted}}},
		{"the sources go back by themselves", input(failed(settled(1), 2)),
			want{state: failed(settled(1), 2), reason: v1alpha1.ReasonCurrent}},
		{"only so many failures are remembered", input(failed(moving(1, 40), 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35), desired(version(40)), rollout(Failed)),
			want{action: RollBack, state: failed(settled(1), 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 40), reason: v1alpha1.ReasonRotationRolledBack, events: []string{EventRolledBack}}},
		{"a good version that is gone is not gone back to", input(moving(1, 2), desired(version(2)), rollout(Failed), goodLost),
			want{state: State{Deployed: version(2)}, reason: v1alpha1.ReasonRotationFailed}},

		{"what failed, and works after all, is forgiven", input(failed(settled(2), 3, 2), desired(version(2))),
			want{state: failed(settled(2), 3), reason: v1alpha1.ReasonCurrent}},
		{"what fails again is remembered once", input(failed(moving(1, 2), 2, 3), desired(version(2)), rollout(Failed)),
			want{action: RollBack, state: failed(settled(1), 3, 2), reason: v1alpha1.ReasonRotationRolledBack, events: []string{EventRolledBack}}},
		{"the values before are back, from other sources", input(State{Deployed: version(2), Good: new(refs(version(1), refsB))}, rollout(Progressing)),
			want{action: RollBack, state: settled(1), reason: v1alpha1.ReasonRotating, events: []string{EventStarted}}},

		// Manual
		{"Manual waits", input(settled(1), desired(version(2)), manual),
			want{state: settled(1), reason: v1alpha1.ReasonManualRotationPending}},
		{"Manual moves on request", input(settled(1), desired(version(2)), manual, request("x"), since(start)),
			want{action: Roll, state: handled(started(moving(1, 2), start), "x"), reason: v1alpha1.ReasonRotating, inFlight: true, events: []string{EventStarted}}},
		{"Manual does not move on a handled request", input(handled(settled(1), "x"), desired(version(2)), manual, request("x")),
			want{state: handled(settled(1), "x"), reason: v1alpha1.ReasonManualRotationPending}},
		{"an annotation that is taken away is no request", input(handled(settled(1), "x"), desired(version(2)), manual),
			want{state: handled(settled(1), "x"), reason: v1alpha1.ReasonManualRotationPending}},
		{"Manual does not go back by itself either", input(moving(1, 2), manual, rollout(Progressing)),
			want{state: moving(1, 2), reason: v1alpha1.ReasonManualRotationPending, inFlight: true}},

		// the budget
		{"the budget is spent", input(started(settled(1), full...), desired(version(2))),
			want{state: started(settled(1), full...), reason: v1alpha1.ReasonRotationThrottled, requeue: 15 * time.Minute}},
		{"a request goes beyond the budget", input(started(settled(1), full...), desired(version(2)), request("x")),
			want{action: Roll, state: handled(started(moving(1, 2), append(full[1:], start)...), "x"), reason: v1alpha1.ReasonRotating, inFlight: true, events: []string{EventStarted}}},
		{"the budget comes back", input(started(settled(1), append([]time.Time{start.Add(-Window)}, full[1:]...)...), desired(version(2))),
			want{action: Roll, state: started(moving(1, 2), append(full[1:], start)...), reason: v1alpha1.ReasonRotating, inFlight: true, events: []string{EventStarted}}},
		{"starts in the future do not count", input(started(settled(1), spent(time.Minute, start.Add(24*time.Hour))...), desired(version(2))),
			want{action: Roll, state: started(moving(1, 2), append(spent(time.Minute, start.Add(24*time.Hour))[1:], start)...), reason: v1alpha1.ReasonRotating, inFlight: true, events: []string{EventStarted}}},
		{"going back needs no budget", input(started(moving(1, 2), full...), desired(version(2)), rollout(Failed)),
			want{action: RollBack, state: failed(started(settled(1), full...), 2), reason: v1alpha1.ReasonRotationRolledBack, events: []string{EventRolledBack}}},
		{"returning needs no budget", input(started(moving(1, 2), full...), rollout(Progressing)),
			want{action: RollBack, state: started(settled(1), full...), reason: v1alpha1.ReasonRotating, events: []string{EventStarted}}},

		// other sources in the spec
		{"other sources roll at once", input(started(settled(1), full...), desired(version(2)), otherSources, manual, noSlot, since(start)),
			want{action: Roll, state: started(State{Deployed: refs(version(2), refsB), Good: new(version(1))}, full...), reason: v1alpha1.ReasonRotating, events: []string{EventStarted}}},
		{"other sources that cannot be read hold", input(settled(1), unreadable, otherSources),
			want{action: Hold, state: settled(1), reason: v1alpha1.ReasonSourceUnreadable}},
		{"other sources with the same values roll nothing", input(settled(1), otherSources),
			want{state: State{Deployed: refs(version(1), refsB), Good: new(refs(version(1), refsB))}, reason: v1alpha1.ReasonCurrent}},
		{"other sources with values that failed hold", input(failed(settled(1), 2), desired(version(2)), otherSources),
			want{action: Hold, state: failed(settled(1), 2), reason: v1alpha1.ReasonRotationRolledBack}},
		{"what was made for other sources is not gone back to", input(State{Deployed: version(2), Good: new(refs(version(1), refsB))}, desired(version(2)), rollout(Failed)),
			want{state: State{Deployed: version(2), Good: new(refs(version(1), refsB))}, reason: v1alpha1.ReasonRotationFailed}},
		{"a failed rotation does not go back under a spec that it does not fit", input(moving(1, 2), desired(version(3)), otherSources, rollout(Failed)),
			want{action: Roll, state: State{Deployed: refs(version(3), refsB), Good: new(version(1))}, reason: v1alpha1.ReasonRotating, events: []string{EventStarted}}},

		// the deployed snapshot is lost
		{"a lost snapshot: the newest values roll at once", input(started(settled(1), full...), desired(version(2)), snapshotLost, noSlot, since(start)),
			want{action: Roll, state: started(State{Deployed: version(2)}, append(full[1:], start)...), reason: v1alpha1.ReasonRotating, events: []string{EventStarted}}},
		{"a lost snapshot waits for no slot", input(moving(1, 2), desired(version(3)), snapshotLost, noSlot),
			want{action: Roll, state: started(moving(1, 3), start), reason: v1alpha1.ReasonRotating, inFlight: true, events: []string{EventStarted}}},
		{"a lost snapshot without sources holds", input(settled(1), unreadable, snapshotLost),
			want{action: Hold, state: settled(1), reason: v1alpha1.ReasonSnapshotLost}},
		{"a lost snapshot waits under Manual", input(settled(1), desired(version(2)), snapshotLost, manual),
			want{action: Hold, state: settled(1), reason: v1alpha1.ReasonSnapshotLost}},
		{"a lost snapshot does not bring back what failed", input(failed(settled(1), 2), desired(version(2)), snapshotLost),
			want{action: Hold, state: failed(settled(1), 2), reason: v1alpha1.ReasonSnapshotLost}},
		{"pods that fail for want of their snapshot say nothing of the values", input(moving(1, 2), desired(version(3)), rollout(Failed), snapshotLost),
			want{action: RollBack, state: settled(1), reason: v1alpha1.ReasonRotationRolledBack, events: []string{EventRolledBack}}},

		// the state is missing, broken, or not of what is live
		{"no state: what is live is adopted", input(State{}, manual, request("old"), live(func(l *Live) { l.Snapshot, l.Digest = "s-env-x", version(1).Digest })),
			want{state: handled(State{Deployed: Version{"s-env-x", version(1).Digest, refsA}, Good: &Version{"s-env-x", version(1).Digest, refsA}}, "old"),
				reason: v1alpha1.ReasonCurrent, events: []string{EventAdopted}}},
		{"no state: an old request moves nothing", input(State{}, desired(version(2)), manual, request("old"), live(func(l *Live) { l.Snapshot, l.Digest = version(1).Snapshot, version(1).Digest })),
			want{state: handled(settled(1), "old"), reason: v1alpha1.ReasonManualRotationPending, events: []string{EventAdopted}}},
		{"no state, nothing to be read: nothing moves", input(State{}, live(func(l *Live) { l.Snapshot = "s-env-x" })),
			want{action: Hold, reason: v1alpha1.ReasonSourceUnreadable}},
		{"no state, no snapshot: a request moves it", input(State{}, manual, request("x"), snapshotLost, live(func(l *Live) { l.Snapshot = "s-env-x" })),
			want{action: Roll, state: handled(started(State{Deployed: version(1)}, start), "x"), reason: v1alpha1.ReasonRotating, events: []string{EventAdopted, EventStarted}}},
		{"no state because there were no secrets: the first roll at once", input(State{}, manual, since(start), live(contents(version(0).Digest))),
			want{action: Roll, state: State{Deployed: version(1), Good: &Version{Digest: version(0).Digest, References: noReferences}}, reason: v1alpha1.ReasonRotating, events: []string{EventAdopted, EventStarted}}},
		{"no state: the live references tell that the spec changed", input(State{}, desired(version(2)), manual, live(func(l *Live) { l.Snapshot, l.Digest, l.References = version(1).Snapshot, version(1).Digest, refsB })),
			want{action: Roll, state: State{Deployed: version(2), Good: new(refs(version(1), refsB))}, reason: v1alpha1.ReasonRotating, events: []string{EventAdopted, EventStarted}}},
		{"a template of another snapshot than the state's", input(settled(2), desired(version(2)), since(start), live(func(l *Live) { l.Snapshot, l.Digest = version(1).Snapshot, version(1).Digest })),
			want{state: settled(1), reason: v1alpha1.ReasonRotationPending, requeue: 30 * time.Second, events: []string{EventAdopted}}},
		{"a state that claims other contents than there are, against the name", input(State{Deployed: Version{version(1).Snapshot, version(2).Digest, refsA}}, desired(version(2)), since(start), live(contents(version(1).Digest))),
			want{state: settled(1), reason: v1alpha1.ReasonRotationPending, requeue: 30 * time.Second}},
		{"a state that the name does not speak for either", input(State{Deployed: Version{version(7).Snapshot, version(2).Digest, refsA}}, live(contents(version(1).Digest))),
			want{state: State{Deployed: Version{version(7).Snapshot, version(1).Digest, refsA}, Good: &Version{version(7).Snapshot, version(1).Digest, refsA}}, reason: v1alpha1.ReasonCurrent}},
		{"contents that are not those of the state and of the name", input(settled(1), live(contents(version(2).Digest))),
			want{state: settled(1), reason: v1alpha1.ReasonCurrent}},
		{"a template of another snapshot, that of the state is gone", input(settled(2), desired(version(2)), since(start), snapshotLost, goodLost, live(func(l *Live) { l.Snapshot, l.Digest = version(1).Snapshot, version(1).Digest })),
			want{state: settled(1), reason: v1alpha1.ReasonRotationPending, requeue: 30 * time.Second, events: []string{EventAdopted}}},
		{"no state, no snapshot, no sources: nothing is told that was not done", input(State{}, unreadable, snapshotLost, live(func(l *Live) { l.Snapshot = "s-env-x" })),
			want{action: Hold, reason: v1alpha1.ReasonSnapshotLost}},

		// the key is lost
		{"another key, the same contents", input(failed(State{Deployed: lostKey(version(7)), Good: new(lostKey(version(7))), Failed: []string{lostKey(version(8)).Digest}}, 9), live(contents(version(1).Digest))),
			want{state: failed(State{Deployed: Version{version(7).Snapshot, version(1).Digest, refsA}, Good: &Version{version(7).Snapshot, version(1).Digest, refsA}}, 9), reason: v1alpha1.ReasonCurrent}},
		{"another key, other contents", input(State{Deployed: lostKey(version(7)), Good: new(lostKey(version(7)))}, live(contents(version(2).Digest)), since(start)),
			want{state: State{Deployed: Version{version(7).Snapshot, version(2).Digest, refsA}, Good: &Version{version(7).Snapshot, version(2).Digest, refsA}}, reason: v1alpha1.ReasonRotationPending, requeue: 30 * time.Second}},
		{"another key, contents not read", input(State{Deployed: lostKey(version(7)), Good: new(lostKey(version(7)))}),
			want{action: Hold, state: State{Deployed: lostKey(version(7)), Good: new(lostKey(version(7)))}, reason: v1alpha1.ReasonSourceUnreadable}},
		{"another key, in flight", input(State{Deployed: lostKey(version(7)), Good: new(lostKey(version(8)))}, rollout(Failed), live(func(l *Live) { l.Digest, l.GoodDigest = version(1).Digest, version(2).Digest })),
			want{action: RollBack, state: failed(State{Deployed: Version{version(8).Snapshot, version(2).Digest, refsA}, Good: &Version{version(8).Snapshot, version(2).Digest, refsA}}, 1),
				reason: v1alpha1.ReasonRotationRolledBack, events: []string{EventRolledBack}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := c.in.State.Encode()
			got := Decide(c.in)
			if got.Action != c.want.action || got.Verdict.Reason != c.want.reason || got.RequeueAfter != c.want.requeue ||
				got.InFlight != c.want.inFlight || got.WantsSlot != c.want.wants {
				t.Errorf("got action %d, reason %s, requeue %s, in flight %v, wants a slot %v\nwant       %d         %s          %s            %v               %v",
					got.Action, got.Verdict.Reason, got.RequeueAfter, got.InFlight, got.WantsSlot,
					c.want.action, c.want.reason, c.want.requeue, c.want.inFlight, c.want.wants)
			}
			if got, want := got.State.Encode(), c.want.state.Encode(); got != want {
				t.Errorf("state\n got %s\nwant %s", got, want)
			}
			var events []string
			for _, e := range got.Events {
				events = append(events, e.Reason)
			}
			if !slices.Equal(events, c.want.events) {
				t.Errorf("events %v, want %v", events, c.want.events)
			}
			if c.in.State.Encode() != before {
				t.Error("the input was changed")
			}
			wantStatus := metav1.ConditionFalse
			switch got.Verdict.Reason {
			case v1alpha1.ReasonCurrent, v1alpha1.ReasonNoSecrets:
				wantStatus = metav1.ConditionTrue
			case v1alpha1.ReasonSourceUnreadable:
				wantStatus = metav1.ConditionUnknown
			}
			if got.Verdict.Status != wantStatus || got.Verdict.Message == "" {
				t.Errorf("verdict %+v", got.Verdict)
			}
			for _, s := range []State{c.in.State, got.State} {
				for _, v := range []*Version{&s.Deployed, s.Good} {
					if v != nil && v.Snapshot != "" && !slices.Contains(got.Snapshots, v.Snapshot) {
						t.Errorf("snapshot %s is not kept: %v", v.Snapshot, got.Snapshots)
					}
				}
			}
			if wantSince := c.in.Desired.Digest != ""; got.DesiredSince.IsZero() == wantSince || got.DesiredSince.After(c.in.Now) {
				t.Errorf("desired since %s", got.DesiredSince)
			}
		})
	}
}

func TestInFlight(t *testing.T) {
	for name, c := range map[string]struct {
		s    State
		r    Rollout
		want bool
	}{
		"a rotation":              {moving(1, 2), Progressing, true},
		"one that failed":         {moving(1, 2), Failed, false},
		"one that is done":        {moving(1, 2), Complete, false},
		"of a stopped server":     {moving(1, 2), Idle, false},
		"an image that rolls":     {settled(1), Progressing, false},
		"a first start":           {State{Deployed: version(1)}, Progressing, false},
		"a spec of other sources": {State{Deployed: version(2), Good: new(refs(version(1), refsB))}, Progressing, false},
	} {
		if got := InFlight(c.s, c.r); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestNeedsContents(t *testing.T) {
	for name, c := range map[string]struct {
		s    State
		live string
		want bool
	}{
		"at rest":                  {settled(1), version(1).Snapshot, false},
		"in flight":                {moving(1, 2), version(2).Snapshot, false},
		"no state":                 {State{}, version(1).Snapshot, true},
		"another template":         {settled(1), version(2).Snapshot, true},
		"another key":              {State{Deployed: lostKey(version(1))}, version(1).Snapshot, true},
		"another key for the good": {State{Deployed: version(1), Good: new(lostKey(version(2)))}, version(1).Snapshot, true},
	} {
		if got := NeedsContents(c.s, c.live, testKeyID); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
