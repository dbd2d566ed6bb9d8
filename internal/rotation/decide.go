package rotation

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// Rollout of the live Deployment, for the version that its pod template refers to.
type Rollout int

// What a rollout can be.
const (
	// Progressing: not complete and not failed, or the Deployment controller has not yet seen the template.
	Progressing Rollout = iota
	// Complete: every wanted pod, and at least one, is of the template and available.
	Complete
	// Failed: past its deadline, or its pods crash.
	Failed
	// Idle: no pod is wanted, so nothing is shown and nothing can fail.
	Idle
)

// Action is what the caller does with the Deployment.
type Action int

// What a decision can ask for.
const (
	// Keep applies the Deployment with the version that it has.
	Keep Action = iota
	// Roll makes the snapshot of the desired values, then applies the Deployment with it.
	Roll
	// RollBack applies the Deployment with the good version.
	RollBack
	// Hold creates no Deployment, and leaves the pod template of a live one as it is: no version fits the spec.
	Hold
)

// Live is the server's Deployment as it is.
type Live struct {
	// Exists says whether there is one.
	Exists bool
	// Snapshot of the server's own that its pod template refers to; empty where it refers to none.
	Snapshot string
	// References that snapshot was made for; empty if that is unknown.
	References string
	// Digest of that snapshot's contents (of nothing, where there is none) under the present key. It
	// counts for more than a state that the snapshot's name does not speak for, and must be given where
	// NeedsContents says so; empty where it is not known.
	Digest string
	// GoodDigest is the same for the snapshot of State.Good.
	GoodDigest string
	// Lost says that the deployed snapshot (of the state, or of the template where there is no state) is gone, or is not the server's own untouched one, and
	// cannot be made again from the sources.
	Lost bool
	// GoodLost says the same of the snapshot of State.Good.
	GoodLost bool
	// Rollout of the pod template.
	Rollout Rollout
}

// Input is all that a decision depends on.
type Input struct {
	Now   time.Time
	KeyID string
	// State of the Deployment's annotation; empty where there is none or it cannot be read.
	State State
	Live  Live
	// Desired is what the spec and its sources ask for now. The digest is empty while a source is
	// missing, unreadable or invalid; the references never are.
	Desired Version
	// DesiredSince is when that digest was first seen; zero if not before now.
	DesiredSince time.Time
	// Manual lets nothing roll but on request.
	Manual bool
	// Debounce is how long new values must stay the same before they are rolled.
	Debounce time.Duration
	// Request is the present value of the MCPServer's annotation rotate-requested-at; read the sources anew for a new one.
	Request string
	// SlotFree says whether the operator may have one more rotation in flight.
	SlotFree bool
}

// Event tells what is done with this decision.
type Event struct {
	// Reason is one of RotationStarted, RotationCompleted, RotationRolledBack, StateAdopted.
	Reason  string
	Message string
	Warning bool
}

// Reasons of events that are no condition's reasons.
const (
	EventStarted    = "RotationStarted"
	EventCompleted  = "RotationCompleted"
	EventRolledBack = v1alpha1.ReasonRotationRolledBack
	EventAdopted    = "RotationStateAdopted"
)

// Decision is what to do now.
type Decision struct {
	Action Action
	// State to apply in the annotation, with the pod template of State.Deployed; compare it by Encode.
	State State
	// Snapshots that must exist before and after the decision is carried out.
	Snapshots []string
	// Verdict on the rotation, to be put together with those on sources and age by Worst.
	Verdict Verdict
	// InFlight says whether a rotation takes a slot once the decision is carried out.
	InFlight bool
	// WantsSlot says that it only waits for a slot: decide again when one is free.
	WantsSlot bool
	// DesiredSince is what to pass next time, for the same desired digest; zero without one.
	DesiredSince time.Time
	// RequeueAfter is when to decide again without an event; 0 for never.
	RequeueAfter time.Duration
	// Events to record once the decision is carried out.
	Events []Event
}

// decider carries a decision through the rules.
type decider struct {
	Input
	Decision
	now     State // as it will be applied
	request bool  // a request is open
}

// Decide applies the rules in their order; the first that settles the matter ends it.
func Decide(in Input) Decision {
	d := &decider{Input: in, now: in.State.clone()}
	d.request = in.Request != "" && requestID(in.Request) != in.State.Request
	rules := []func() bool{
		d.first, d.adopt, d.conclude, d.unreadable, d.inSync,
		d.failedBefore, d.specChanged, d.manual, d.debounce, d.backToGood, d.budget, d.slot,
	}
	if !slices.ContainsFunc(rules, func(settles func() bool) bool { return settles() }) {
		d.start()
	}
	return d.finish()
}

// first: without a Deployment there is nothing to protect, and the server starts as soon as it can.
func (d *decider) first() bool {
	if d.Live.Exists {
		return false
	}
	d.now = State{Request: requestID(d.Request)}
	if d.Desired.Digest == "" {
		return d.hold(unknown("The server is started once all of its secrets can be read."))
	}
	d.Action, d.now.Deployed = Roll, d.Desired
	return d.settle(d.progress("The first pods are being started."))
}

// adopt: what the state does not tell, or tells in digests of a lost key, is taken from what is live.
func (d *decider) adopt() bool {
	unread := unknown("The snapshot in use cannot be read; the server is left as it is until it can be.")
	if unfit(d.now, d.Live.Snapshot) {
		d.Live.Lost = d.Live.Lost && d.Live.Digest == "" // it may be the state's that is gone
		if d.Live.Digest == "" && !d.Live.Lost {
			return d.hold(unread)
		}
		d.now.Deployed = Version{Snapshot: d.Live.Snapshot, Digest: d.Live.Digest, References: d.liveReferences()}
		d.now.Good = nil
		d.request = d.request && d.Live.Lost // else it may have been handled before; were it not, it can be made again
		if !d.request {
			d.now.Request = requestID(d.Request)
		}
		d.event(EventAdopted, true, "The state of the rotation was missing or changed by another hand; it goes on from what is live.")
	}
	if same := d.now.Good; same != nil && d.Live.Lost && same.Snapshot == d.now.Deployed.Snapshot {
		d.Live.GoodLost = true
	}
	if !d.read(&d.now.Deployed, d.Live.Digest, d.Live.Lost) {
		return d.hold(unread)
	}
	if good := d.now.Good; good != nil {
		contents := d.Live.GoodDigest
		if good.Snapshot == d.now.Deployed.Snapshot {
			contents = d.Live.Digest
		}
		if !d.read(good, contents, d.Live.GoodLost) {
			return d.hold(unread)
		}
	}
	d.now.Failed = slices.DeleteFunc(d.now.Failed, func(digest string) bool { return !madeUnder(digest, d.KeyID) })
	return false
}

// read gives a version the digest of its contents, where that is known. Only where the snapshot's name
// speaks for the state and against the contents, it is the snapshot that was changed: the caller makes
// it again or calls it lost. False says that what is there cannot be compared.
func (d *decider) read(v *Version, contents string, lost bool) bool {
	named := func(digest string) bool { return strings.HasSuffix(v.Snapshot, "-"+Short(digest)) }
	tampered := madeUnder(v.Digest, d.KeyID) && named(v.Digest) && !named(contents)
	if contents != "" && !lost && !tampered {
		v.Digest = contents
	}
	return lost || madeUnder(v.Digest, d.KeyID)
}

// liveReferences are taken to be those of now where nobody knows; those of a template without a snapshot are none.
func (d *decider) liveReferences() string {
	switch {
	case d.Live.References != "":
		return d.Live.References
	case d.Live.Snapshot == "":
		return noReferences
	}
	return d.Desired.References
}

// conclude: a rollout that completed makes its version the good one; one that failed goes back.
func (d *decider) conclude() bool {
	deployed, good := d.now.Deployed, d.now.Good
	if good != nil && d.Live.GoodLost {
		d.now.Good, good = nil, nil
	}
	switch {
	case d.Live.Rollout == Complete && !d.Live.Lost:
		if good != nil && good.Digest != deployed.Digest {
			d.event(EventCompleted, false, "All pods run with the new secrets.")
		}
		d.now.Good = &deployed
		d.now.forgive(deployed.Digest)
	case d.Live.Rollout == Failed && good != nil && good.Digest != deployed.Digest &&
		good.References == deployed.References && good.References == d.Desired.References:
		if !d.Live.Lost { // else it is not the values that failed
			d.now.fail(deployed.Digest)
		}
		if d.Desired.Digest == deployed.Digest {
			d.handled() // it was asked for before it failed
		}
		d.now.Deployed = *good
		d.Action = RollBack
		d.event(EventRolledBack, true, "The pods did not become ready with the new secrets; the server goes back to those before.")
		return d.settle(rolledBack)
	}
	return false
}

var rolledBack = no(v1alpha1.ReasonRotationRolledBack, "The pods did not become ready with the newest secrets, so the server runs with those before. "+
	"The same values are not tried again by themselves: write working values to the source, or request a rotation with the annotation "+v1alpha1.AnnotationRotateRequestedAt+".")

func (d *decider) unreadable() bool {
	switch {
	case d.Desired.Digest != "":
		return false
	case d.changed():
		return d.hold(unknown("The spec names other secrets than before, and not all can be read: the pods are left as they are until they can be."))
	case d.Live.Lost:
		return d.hold(lost("Make the sources of the server's secrets readable, and it gets a new one."))
	}
	return d.settle(unknown("Not all secrets can be read; the server keeps what it has."))
}

func lost(remedy string) Verdict {
	return no(v1alpha1.ReasonSnapshotLost, "The snapshot of the secrets in use is gone or was changed: running pods go on, but none can be started. "+remedy)
}

// changed says whether the spec names other sources than the deployed snapshot was made of.
func (d *decider) changed() bool { return d.Desired.References != d.now.Deployed.References }

// inSync: the newest values are deployed; what is left is to wait for the pods.
func (d *decider) inSync() bool {
	deployed, good := &d.now.Deployed, d.now.Good
	if d.Desired.Digest != deployed.Digest {
		return false
	}
	deployed.References = d.Desired.References // other sources, but the same values: nothing to roll
	if good != nil && good.Digest == deployed.Digest {
		good.References = deployed.References
	}
	d.handled()
	switch {
	case good != nil && good.Digest == deployed.Digest:
		return d.settle(d.current("The pods run with the newest secrets."))
	case d.Live.Rollout == Idle:
		return d.settle(d.current("No pod runs; the next one starts with the newest secrets."))
	case d.Live.Rollout == Failed:
		return d.settle(no(v1alpha1.ReasonRotationFailed, "The pods do not become ready, and there is no earlier version of these secrets to go back to: "+
			"see the condition Ready for the pods, and write working values to the source if it is the secrets."))
	case good == nil:
		return d.settle(d.progress("The first pods are being started."))
	}
	return d.settle(d.progress("Pods are being replaced by ones with the newest secrets."))
}

func (d *decider) failedBefore() bool {
	switch {
	case d.request || !slices.Contains(d.now.Failed, d.Desired.Digest):
		return false
	case d.Live.Lost:
		return d.hold(lost("The newest values failed before: write working ones to the source, or request a rotation with the annotation " + v1alpha1.AnnotationRotateRequestedAt + "."))
	case d.changed():
		return d.hold(rolledBack)
	}
	return d.settle(rolledBack)
}

// specChanged: the pod template needs the variables that the spec names now, and whoever changed the
// spec wants it rolled out.
func (d *decider) specChanged() bool {
	if !d.changed() {
		return false
	}
	d.deploy(Roll, d.Desired, "The spec names other secrets; pods are being replaced.")
	return true
}

func (d *decider) manual() bool {
	switch {
	case !d.Manual || d.request:
		return false
	case d.Live.Lost:
		return d.hold(lost("Request a rotation with the annotation " + v1alpha1.AnnotationRotateRequestedAt + "."))
	}
	return d.settle(no(v1alpha1.ReasonManualRotationPending, "There are new secrets, and the strategy is Manual: request a rotation with the annotation "+v1alpha1.AnnotationRotateRequestedAt+"."))
}

// debounce: values that are written one after another are rolled once. A time in the future is of a
// clock that was wrong; it starts anew.
func (d *decider) debounce() bool {
	wait := d.Debounce - d.Now.Sub(d.since())
	if wait <= 0 || d.request || d.Live.Lost {
		return false
	}
	d.RequeueAfter = wait
	return d.settle(no(v1alpha1.ReasonRotationPending, fmt.Sprintf("There are new secrets; they are rolled out once they have been the same for %s.", d.Debounce)))
}

func (d *decider) since() time.Time {
	since := d.Input.DesiredSince
	if since.IsZero() || since.After(d.Now) {
		return d.Now
	}
	return since
}

// backToGood: the sources returned to what most pods still have, which needs no budget and no slot.
func (d *decider) backToGood() bool {
	good := d.now.Good
	if good == nil || good.Digest != d.Desired.Digest {
		return false
	}
	good.References = d.Desired.References
	d.deploy(RollBack, *good, "The secrets are again those before; the server goes back to them.")
	return true
}

func (d *decider) budget() bool {
	starts := d.now.inWindow(d.Now)
	if d.request || d.Live.Lost || len(starts) < MaxStarts {
		return false
	}
	free := time.Unix(slices.Min(starts), 0).Add(Window)
	d.RequeueAfter = max(free.Sub(d.Now), time.Second)
	return d.settle(no(v1alpha1.ReasonRotationThrottled, fmt.Sprintf("The secrets changed too often: %d rotations within %s. The next one starts at %s; see what keeps changing the source, "+
		"or request a rotation with the annotation %s.", MaxStarts, Window, free.UTC().Format(time.RFC3339), v1alpha1.AnnotationRotateRequestedAt)))
}

// slot: a rotation that is in flight goes on in its slot.
func (d *decider) slot() bool {
	next := d.now
	next.Deployed = d.Desired
	if d.SlotFree || d.Live.Lost || !InFlight(next, d.rollout(Roll)) || InFlight(d.now, d.Live.Rollout) {
		return false
	}
	d.WantsSlot = true
	return d.settle(no(v1alpha1.ReasonRotationQueued, "There are new secrets; they are rolled out once fewer other servers are in a rotation."))
}

func (d *decider) start() {
	d.now.Started = newest(append(d.now.Started, d.Now.Unix()), MaxStarts)
	d.deploy(Roll, d.Desired, "Pods are being replaced by ones with the newest secrets.")
}

// deploy puts another version into the pod template.
func (d *decider) deploy(action Action, v Version, message string) {
	d.Action, d.now.Deployed = action, v
	d.now.forgive(v.Digest)
	d.handled()
	d.event(EventStarted, false, message)
	d.settle(d.progress(message))
}

// handled: a request is about what is desired at that moment.
func (d *decider) handled() {
	if d.request {
		d.now.Request = requestID(d.Request)
	}
}

func (d *decider) event(reason string, warning bool, message string) {
	d.Events = append(d.Events, Event{Reason: reason, Message: message, Warning: warning})
}

// progress is the verdict while pods are being replaced; a server without secrets is never behind.
func (d *decider) progress(message string) Verdict {
	if d.Desired.Snapshot == "" {
		return d.current("")
	}
	return no(v1alpha1.ReasonRotating, message)
}

func (d *decider) current(message string) Verdict {
	if d.Desired.Snapshot == "" {
		return yes(v1alpha1.ReasonNoSecrets, "The server names no secret.")
	}
	return yes(v1alpha1.ReasonCurrent, message)
}

func (d *decider) settle(v Verdict) bool {
	d.Verdict = v
	return true
}

// hold leaves all as it is, the state too: what it would have changed is found again next time.
func (d *decider) hold(v Verdict) bool {
	d.Action, d.now, d.Events = Hold, d.Input.State, nil
	return d.settle(v)
}

func (d *decider) finish() Decision {
	out := d.Decision
	out.State = d.now
	out.InFlight = InFlight(d.now, d.rollout(d.Action))
	out.Snapshots = snapshots(d.Live.Snapshot, d.Input.State, d.now)
	if d.Desired.Digest != "" {
		out.DesiredSince = d.since()
	}
	return out
}

// rollout is how it stands once the action is done.
func (d *decider) rollout(a Action) Rollout {
	if (a == Roll || a == RollBack) && d.Live.Rollout != Idle {
		return Progressing
	}
	return d.Live.Rollout
}

// snapshots are those of both states: until the new one is written, the old one counts.
func snapshots(live string, states ...State) []string {
	out := []string{live}
	for _, s := range states {
		out = append(out, s.Deployed.Snapshot)
		if s.Good != nil {
			out = append(out, s.Good.Snapshot)
		}
	}
	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(name string) bool { return name == "" })
}
