package rotation

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// The model is a small cluster: servers that share sources, snapshots, Deployments whose annotation
// and template change in one write, rollouts that end well or badly depending on the values, and an
// operator that reads, decides, writes, and dies between any two writes. It keeps its own record of
// what happened, and never reads the operator's state to judge it.
const (
	modelServers = 5
	modelSlots   = 2
	modelSpecs   = 3
)

type modelServer struct {
	name   string
	manual bool
	spec   int
	// the MCPServer
	request     string
	seen        string // status.secrets: desired digest
	seenSince   time.Time
	idle        bool
	snapshots   map[string]string // contents by name
	handDeleted map[string]bool
	// the Deployment
	exists     bool
	annotation string
	template   string // name of the snapshot
	shape      int    // the spec that the template was made for
	rollout    Rollout
	// the record
	failed    map[string]bool // contents that were rolled back, and not asked for again
	rolling   bool            // takes a slot
	resumed   bool            // was started again, which no slot holds back, and is not up yet
	completed string          // contents that last completed
	before    string          // snapshot that last completed
	shaped    int             // and its spec
	cause     bool            // something happened that allows one more roll
	rolls     int             // writes that changed the template
}

type model struct {
	t       *testing.T
	rng     *rand.Rand
	now     time.Time
	key     int
	keys    []Key
	sources [2]string // contents; "" while missing
	servers []*modelServer
	crashes bool
	died    bool
	memory  map[string]bool // of the operator: servers in flight
	wake    time.Duration   // the soonest that a decision asked for
	waits   bool            // a decision waits for a slot
	wrote   bool
	log     []string
	decoded map[string]State
}

// decode remembers, because that is most of the test's time otherwise.
func (m *model) decode(annotation string) (State, error) {
	if s, ok := m.decoded[annotation]; ok {
		return s, nil
	}
	s, err := Decode(annotation)
	if err == nil {
		m.decoded[annotation] = s
	}
	return s, err
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{t: t, rng: rand.New(rand.NewPCG(seed, 4)), now: time.Unix(1_800_000_000, 0), memory: map[string]bool{}, decoded: map[string]State{}}
	for i := range 8 {
		m.keys = append(m.keys, testKey(t, fmt.Sprintf("%032d", i)))
	}
	m.sources = [2]string{"good-a0", "good-b0"}
	for i := range modelServers {
		m.servers = append(m.servers, &modelServer{
			name: fmt.Sprintf("s%d", i), manual: i == 0, snapshots: map[string]string{}, handDeleted: map[string]bool{},
			failed: map[string]bool{}, cause: true,
		})
	}
	return m
}

func (m *model) fatalf(format string, args ...any) {
	m.t.Helper()
	for _, s := range m.servers {
		m.note("%s: request %q, %s, %s", s.name, s.request, s.annotation, s.snapshots)
	}
	m.t.Fatalf("%s\n%s\n%s", fmt.Sprintf(format, args...), m.log[0], strings.Join(m.log[max(0, len(m.log)-40):], "\n"))
}

func (m *model) note(format string, args ...any) {
	m.log = append(m.log, m.now.Format("15:04:05 ")+fmt.Sprintf(format, args...))
}

// contents that a spec asks for; empty while a source is missing.
func (m *model) contents(spec int) string {
	a, b := m.sources[0], m.sources[1]
	switch {
	case spec == 0 && a != "":
		return "TOKEN=" + a
	case spec == 1 && b != "":
		return "TOKEN=" + b
	case spec == 2 && a != "" && b != "":
		return "TOKEN=" + a + " EXTRA=" + b
	}
	return ""
}

func (m *model) digest(contents string) string {
	if contents == "" {
		return ""
	}
	return m.keys[m.key].Digest(map[string][]byte{"all": []byte(contents)})
}

func refsOf(spec int) string { return fmt.Sprintf("%016d", spec+1) }

// crash is a point at which the operator may die.
func (m *model) crash(where string) bool {
	if m.crashes && m.rng.IntN(6) == 0 {
		m.note("operator dies %s", where)
		m.died = true
	}
	return m.died
}

// restart forgets all, and counts what is in flight from what is stored.
func (m *model) restart() {
	m.died, m.memory = false, map[string]bool{}
	for _, s := range m.servers {
		if state, err := m.decode(s.annotation); err == nil && InFlight(state, s.live()) {
			m.memory[s.name] = true
		}
	}
}

func (s *modelServer) live() Rollout {
	if s.idle {
		return Idle
	}
	return s.rollout
}

// reconcile is the caller of Decide as the controller is to be.
func (m *model) reconcile(s *modelServer) {
	if m.died {
		m.restart()
	}
	state, _ := m.decode(s.annotation)
	contents := m.contents(s.spec)
	in := Input{
		Now: m.now, KeyID: m.keys[m.key].ID(), State: state, Manual: s.manual, Debounce: 30 * time.Second, Request: s.request,
		Desired: Version{Digest: m.digest(contents), References: refsOf(s.spec)},
	}
	if in.Desired.Digest != "" {
		in.Desired.Snapshot = s.name + "-env-" + Short(in.Desired.Digest)
	}
	if s.seen == in.Desired.Digest {
		in.DesiredSince = s.seenSince
	}
	if s.exists {
		if _, ok := s.snapshots[s.template]; !ok && state.Deployed.Digest == in.Desired.Digest && state.Deployed.Snapshot == s.template && contents != "" {
			s.snapshots[s.template] = contents // made again from the same values
			delete(s.handDeleted, s.template)
			m.wrote = true
		}
		in.Live = Live{Exists: true, Snapshot: s.template, Rollout: s.live(), References: refsOf(s.shape)}
		_, ok := s.snapshots[s.template]
		in.Live.Lost = !ok
		if NeedsContents(state, s.template, in.KeyID) {
			in.Live.Digest = m.digest(s.snapshots[s.template])
		}
		if state.Good != nil {
			_, ok := s.snapshots[state.Good.Snapshot]
			in.Live.GoodLost = !ok
			if NeedsContents(state, s.template, in.KeyID) {
				in.Live.GoodDigest = m.digest(s.snapshots[state.Good.Snapshot])
			}
		}
	}
	delete(m.memory, s.name)
	in.SlotFree = len(m.memory) < modelSlots
	if InFlight(state, s.live()) {
		m.memory[s.name] = true
	}
	d := Decide(in)
	if again := Decide(in); again.State.Encode() != d.State.Encode() || again.Action != d.Action {
		m.fatalf("%s: two decisions of one input", s.name)
	}
	if d.RequeueAfter < 0 || d.RequeueAfter > Window {
		m.fatalf("%s: requeue after %s", s.name, d.RequeueAfter)
	}
	if d.RequeueAfter > 0 && (m.wake == 0 || d.RequeueAfter < m.wake) {
		m.wake = d.RequeueAfter
	}
	m.waits = m.waits || d.WantsSlot
	if m.crash("before any write") {
		return
	}
	if d.Action == Roll {
		s.snapshots[d.State.Deployed.Snapshot] = contents
		delete(s.handDeleted, d.State.Deployed.Snapshot)
	}
	if m.crash("after the snapshot") {
		return
	}
	if d.Action != Hold {
		if in.Live.GoodLost { // and the operator saw it
			s.completed, s.before = "", ""
		}
		m.apply(s, d)
	}
	if d.InFlight {
		m.memory[s.name] = true
	} else {
		delete(m.memory, s.name)
	}
	if m.crash("after the Deployment") {
		return
	}
	s.seen, s.seenSince = in.Desired.Digest, d.DesiredSince
	if m.crash("after the status") {
		return
	}
	maps.DeleteFunc(s.snapshots, func(name, _ string) bool { return !slices.Contains(d.Snapshots, name) })
	m.check(s)
}

// apply writes annotation and template at once, and judges the write.
func (m *model) apply(s *modelServer, d Decision) {
	if contents := s.snapshots[s.template]; s.exists && s.live() == Complete && contents != "" { // as it could see
		s.completed, s.before, s.shaped = contents, s.template, s.shape
	}
	annotation, v := d.State.Encode(), d.State.Deployed
	if _, err := m.decode(annotation); err != nil {
		m.fatalf("%s: wrote what it cannot read: %v: %s", s.name, err, annotation)
	}
	changes := !s.exists || s.template != v.Snapshot || s.shape != s.spec
	if annotation != s.annotation || changes {
		m.wrote = true
	}
	if !changes {
		s.annotation = annotation
		return
	}
	contents := s.snapshots[v.Snapshot]
	m.note("%s: action %d, to %s (%s), spec %d, was %s; %s", s.name, d.Action, v.Snapshot, contents, s.spec, s.template, d.Verdict.Reason)
	newVersion := !s.exists || s.template != v.Snapshot
	switch {
	case newVersion && d.Action == Keep:
		m.fatalf("%s: Keep changed the version", s.name)
	case newVersion && d.Action == RollBack:
		if v.Snapshot != s.before || contents != s.completed {
			m.fatalf("%s: goes back to %s (%s), which is not what completed last: %s (%s)", s.name, v.Snapshot, contents, s.before, s.completed)
		}
		open := s.request != "" && d.State.Request != requestID(s.request) // and will try it again
		if s.live() == Failed && s.snapshots[s.template] != "" && !open {
			s.failed[s.snapshots[s.template]] = true
		}
		s.rolling, s.cause = false, true // what is desired then may be rolled
	case newVersion:
		switch {
		case s.failed[contents]:
			m.fatalf("%s: %q failed, and is rolled again without a request", s.name, contents)
		case !s.cause:
			m.fatalf("%s: rolls twice for one change", s.name)
		case s.manual && s.exists && s.spec == s.shape && s.cause && s.request == "":
			m.fatalf("%s: Manual, and rolls without a request", s.name)
		}
		if s.exists && s.completed != "" && s.snapshots[s.before] != "" && s.spec == s.shaped && s.spec == s.shape && !s.idle && !s.resumed && s.snapshots[s.template] != "" {
			s.rolling = true
			n := 0
			for _, other := range m.servers {
				if other.rolling {
					n++
				}
			}
			if n > modelSlots {
				m.fatalf("%s: %d servers in a rotation", s.name, n)
			}
		}
		s.cause = false
	}
	if s.shape != s.spec {
		s.rolling = false
	}
	if !newVersion && s.before == s.template { // other sources, the same values: it is as good for these
		s.shaped = s.spec
	}
	s.exists, s.annotation, s.template, s.shape, s.rollout = true, annotation, v.Snapshot, s.spec, Progressing
	s.rolls++
	if _, ok := s.snapshots[v.Snapshot]; !ok && !s.handDeleted[v.Snapshot] {
		m.fatalf("%s: the template refers to a snapshot that is not there", s.name)
	}
}

// check holds after each reconcile: what pods need is there.
func (m *model) check(s *modelServer) {
	state, err := m.decode(s.annotation)
	if err != nil || !s.exists {
		return
	}
	need := []string{s.template}
	if state.Good != nil {
		need = append(need, state.Good.Snapshot)
	}
	for _, name := range need {
		if _, ok := s.snapshots[name]; !ok && !s.handDeleted[name] {
			m.fatalf("%s: snapshot %s is gone", s.name, name)
		}
	}
}

// advance ends the rollout of a server.
func (m *model) advance(s *modelServer) bool {
	if !s.exists || s.idle || s.rollout != Progressing {
		return false
	}
	contents, ok := s.snapshots[s.template]
	if !ok || strings.Contains(contents, "bad") || strings.Contains(contents, "EXTRA") != (s.shape == 2) {
		s.rollout = Failed
	} else {
		s.rollout = Complete
	}
	s.rolling, s.resumed = false, false
	m.note("%s: rollout %d of %s", s.name, s.rollout, s.template)
	return true
}

// caused allows each server one more roll.
func (m *model) caused() {
	for _, s := range m.servers {
		s.cause = true
	}
}

// disturb does something to the cluster.
func (m *model) disturb(step int) {
	s := m.servers[m.rng.IntN(modelServers)]
	switch m.rng.IntN(16) {
	case 0, 1, 2:
		i, kind := m.rng.IntN(2), []string{"good", "good", "bad"}[m.rng.IntN(3)]
		m.sources[i] = fmt.Sprintf("%s-%d", kind, m.rng.IntN(4)) // often one that was there before
		m.note("source %d: %s", i, m.sources[i])
		m.caused()
	case 3:
		m.sources[m.rng.IntN(2)] = ""
		m.note("a source is gone")
		m.caused()
	case 4, 5:
		s.request, s.cause = fmt.Sprint(step), true
		clear(s.failed)
		m.note("%s: request", s.name)
	case 6:
		s.spec, s.cause = m.rng.IntN(modelSpecs), true
		m.note("%s: spec %d", s.name, s.spec)
	case 7:
		m.now = m.now.Add(time.Duration(m.rng.IntN(4*3600)-2*3600) * time.Second)
		m.note("the clock jumps")
	case 8:
		if s.exists && m.rng.IntN(2) == 0 {
			s.annotation = []string{"", "{", `{"deployed":{}}`, strings.Replace(s.annotation, "deployed", "Deployed", 1)}[m.rng.IntN(4)]
			clear(s.failed)
			s.request, s.rolling = "", false // what was asked for may be forgotten with the state
			if s.rollout != Complete {
				s.completed, s.before = "", "" // and what to go back to
			}
			m.note("%s: annotation broken", s.name)
		}
	case 9:
		if m.key < len(m.keys)-1 && m.rng.IntN(4) == 0 {
			m.key++
			for _, s := range m.servers {
				clear(s.failed)
			}
			m.note("the key is lost")
		}
	case 10:
		if m.rng.IntN(3) == 0 {
			if _, ok := s.snapshots[s.template]; ok {
				delete(s.snapshots, s.template)
				s.handDeleted[s.template], s.cause = true, true
				m.note("%s: snapshot %s deleted by hand", s.name, s.template)
			}
		}
	case 11:
		s.seen, s.seenSince = "", time.Time{}
		m.note("%s: status lost", s.name)
	case 12:
		if s.exists {
			s.idle, s.rolling, s.resumed = !s.idle, false, true // no pod is left to be replaced
			if !s.idle && s.rollout == Complete && s.snapshots[s.template] != s.completed {
				s.rollout = Progressing
			}
			m.note("%s: idle %v", s.name, s.idle)
		}
	default:
		m.now = m.now.Add(time.Duration(m.rng.IntN(60)) * time.Second)
	}
}

// converge runs until nothing is left to do, with no event but those the operator asked for.
func (m *model) converge() {
	for range 400 {
		m.wrote, m.wake, m.waits = false, 0, false
		for _, i := range m.rng.Perm(modelServers) {
			m.reconcile(m.servers[i])
			for m.died {
				m.reconcile(m.servers[i])
			}
		}
		moved := false
		for _, s := range m.servers {
			if m.rng.IntN(2) == 0 {
				moved = m.advance(s) || moved
			}
		}
		busy := slices.ContainsFunc(m.servers, func(s *modelServer) bool { return s.exists && !s.idle && s.rollout == Progressing })
		switch {
		case m.wrote || moved || busy:
		case m.wake > 0:
			m.now = m.now.Add(m.wake)
		case m.waits:
			m.fatalf("waits for a slot that nobody has")
		default:
			return
		}
	}
	m.fatalf("does not come to rest")
}

// atRest: a restart with nothing changed decides nothing.
func (m *model) atRest() {
	m.restart()
	m.wrote, m.wake = false, 0
	crashes := m.crashes
	m.crashes = false
	for _, s := range m.servers {
		m.reconcile(s)
	}
	m.crashes = crashes
	if m.wrote || m.wake != 0 {
		m.fatalf("a restart with nothing changed: wrote %v, wakes after %s", m.wrote, m.wake)
	}
}

// give writes new values to both sources, has them asked for where that is needed, and runs to the end.
func (m *model) give(kind, suffix string) map[string]int {
	m.sources = [2]string{kind + "-a-" + suffix, kind + "-b-" + suffix}
	m.note("sources: %s %s", kind, suffix)
	m.caused()
	before := map[string]int{}
	for _, s := range m.servers {
		before[s.name] = s.rolls
		if s.manual {
			s.request = kind + suffix
			clear(s.failed)
		}
	}
	m.converge()
	m.atRest()
	for _, s := range m.servers {
		before[s.name] = s.rolls - before[s.name]
	}
	return before
}

var schedules = flag.Int("schedules", 200, "how many random schedules the model runs")

func TestModel(t *testing.T) {
	for seed := range uint64(*schedules) {
		m := newModel(t, seed)
		m.crashes = seed%2 == 1
		m.log = append(m.log, fmt.Sprintf("seed %d", seed))
		for step := range 120 {
			m.disturb(step)
			m.reconcile(m.servers[m.rng.IntN(modelServers)])
			if m.rng.IntN(2) == 0 {
				m.advance(m.servers[m.rng.IntN(modelServers)])
			}
		}
		for _, s := range m.servers {
			s.resumed = s.resumed || s.idle
			s.idle = false
		}
		// Whatever happened, good values heal it; bad ones after them are tried once and taken back;
		// good ones after those are rolled once. With crashes and without: the same end.
		m.converge() // a request while the state is broken would be taken for an old one
		m.give("good", "heal")
		for _, kind := range []string{"bad", "good"} {
			want := map[string]int{"bad": 2, "good": 1}[kind]
			for name, rolls := range m.give(kind, "last") {
				if rolls != want {
					m.fatalf("%s: %d changes of the pod template for one %s change of the sources, want %d", name, rolls, kind, want)
				}
			}
			for _, s := range m.servers {
				suffix := map[string]string{"bad": "heal", "good": "last"}[kind]
				if got := s.snapshots[s.template]; !strings.Contains(got, "good-") || !strings.Contains(got, suffix) || s.rollout != Complete {
					m.fatalf("%s ends on %q, rollout %d", s.name, got, s.rollout)
				}
				if len(s.snapshots) != 1 {
					m.fatalf("%s: snapshots %v are left over", s.name, s.snapshots)
				}
			}
		}
	}
}
