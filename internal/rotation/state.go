package rotation

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	// MaxStarts is the most rotations that a server starts by itself in any Window.
	MaxStarts = 12
	// Window of the budget.
	Window = time.Hour
	// MaxFailed is the most failed digests that are remembered.
	MaxFailed = 16

	noReferences = "0000000000000000"

	maxState = 4096 // bytes; the largest that Encode writes is smaller
)

// Version of a server's secrets.
type Version struct {
	// Snapshot is the name of the Secret that holds it; empty where the server names no secret. The
	// digest in its name is that of the key under which it was made: derive labels from the name.
	Snapshot string `json:"snapshot,omitempty"`
	// Digest of its names and values; empty while unknown.
	Digest string `json:"digest"`
	// References identify the variables and their sources that it was made for (16 hex digits).
	References string `json:"references"`
}

// State of a server's rotation, from which all is decided. An annotation of the Deployment carries
// it, applied together with the pod template that it describes: one write, so that no crash can part them.
type State struct {
	// Deployed is what the pod template refers to.
	Deployed Version `json:"deployed"`
	// Good is the last version whose rollout completed; nil before.
	Good *Version `json:"good,omitempty"`
	// Failed digests are not rolled again by themselves; newest last, at most MaxFailed.
	Failed []string `json:"failed,omitempty"`
	// Started are the times of the last rotations in Unix seconds, newest last, at most MaxStarts.
	Started []int64 `json:"started,omitempty"`
	// Request is a hash of the last request that was handled (16 hex digits).
	Request string `json:"request,omitempty"`
}

// InFlight says whether a rotation of the server is under way, and takes one of the operator's slots.
// First starts and rollouts that were caused by a changed spec take none: they are not held back either.
func InFlight(s State, r Rollout) bool {
	return r == Progressing && s.Good != nil && s.Good.Digest != s.Deployed.Digest && s.Good.References == s.Deployed.References
}

// NeedsContents says whether Decide needs to be given the digests of the contents of the live
// snapshots: there is no state, it does not fit the live pod template, or it was made under another key.
func NeedsContents(s State, liveSnapshot, keyID string) bool {
	return unfit(s, liveSnapshot) || !madeUnder(s.Deployed.Digest, keyID) || s.Good != nil && !madeUnder(s.Good.Digest, keyID)
}

// unfit says whether the state says nothing of what is live.
func unfit(s State, liveSnapshot string) bool {
	return s.Deployed.Digest == "" || liveSnapshot != "" && s.Deployed.Snapshot != liveSnapshot
}

func madeUnder(digest, keyID string) bool {
	id, err := KeyIDOf(digest)
	return err == nil && id == keyID
}

// Encode writes the state for the annotation: always the same bytes for the same state.
func (s State) Encode() string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings and numbers only
	}
	return string(b)
}

// Decode reads what Encode wrote, and nothing else: any other byte is an error, and the State is then
// empty. Decide takes an empty State for a live Deployment as "unknown": it adopts what is live,
// rolls nothing for that reason, and has forgotten failures, budget and the version to go back to.
func Decode(annotation string) (State, error) {
	if annotation == "" {
		return State{}, nil
	}
	if len(annotation) > maxState {
		return State{}, fmt.Errorf("longer than %d bytes", maxState)
	}
	var s State
	if err := json.Unmarshal([]byte(annotation), &s); err != nil {
		return State{}, err
	}
	if err := s.check(); err != nil {
		return State{}, err
	}
	if s.Encode() != annotation {
		return State{}, errors.New("not as the operator wrote it")
	}
	return s, nil
}

func (s State) check() error {
	if err := s.Deployed.check(); err != nil {
		return fmt.Errorf("deployed: %w", err)
	}
	if s.Good != nil {
		if err := s.Good.check(); err != nil {
			return fmt.Errorf("good: %w", err)
		}
	}
	if len(s.Failed) > MaxFailed || len(s.Started) > MaxStarts {
		return errors.New("a list is too long")
	}
	for _, digest := range s.Failed {
		if _, err := KeyIDOf(digest); err != nil {
			return fmt.Errorf("failed: %w", err)
		}
	}
	if s.Request != "" && !isHex(s.Request, shortLen) {
		return errors.New("request: want 16 hex digits")
	}
	return nil
}

func (v Version) check() error {
	if v.Snapshot != "" && len(validation.IsDNS1123Subdomain(v.Snapshot)) > 0 {
		return errors.New("the snapshot has no valid name")
	}
	if !isHex(v.References, shortLen) {
		return errors.New("references: want 16 hex digits")
	}
	_, err := KeyIDOf(v.Digest)
	return err
}

func (s State) clone() State {
	s.Failed, s.Started = slices.Clone(s.Failed), slices.Clone(s.Started)
	if s.Good != nil {
		s.Good = new(*s.Good)
	}
	return s
}

// fail remembers a digest as failed.
func (s *State) fail(digest string) {
	s.forgive(digest)
	s.Failed = newest(append(s.Failed, digest), MaxFailed)
}

// forgive forgets that a digest failed.
func (s *State) forgive(digest string) {
	s.Failed = slices.DeleteFunc(s.Failed, func(d string) bool { return d == digest })
}

// inWindow are the starts that count against the budget now. One in the future is of a clock that was
// wrong, and does not count: it must not block for ever.
func (s *State) inWindow(now time.Time) []int64 {
	return slices.DeleteFunc(slices.Clone(s.Started), func(t int64) bool {
		return t > now.Unix() || t <= now.Add(-Window).Unix()
	})
}

func newest[T any](list []T, most int) []T {
	return list[max(0, len(list)-most):]
}

// requestID bounds what is remembered of a request, and keeps its text out of the state.
func requestID(request string) string {
	if request == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(request))
	return hex.EncodeToString(sum[:])[:shortLen]
}
