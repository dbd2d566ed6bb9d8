package state

import (
	"time"
)

// Component is what the supervisor knows of one component.
type Component struct {
	Name string `json:"name"`
	// State is one of the State* words.
	State string `json:"state"`
	// PID is the process id in the supervisor's own PID namespace.
	PID      int       `json:"pid,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Restarts int       `json:"restarts"`
	// Problem says why the component is not ready, or how its last run ended.
	Problem string `json:"problem,omitempty"`
}

// The states of a component, in the order in which it passes through them.
const (
	StateWaiting  = "waiting"
	StateStarting = "starting"
	StateReady    = "ready"
	StateFailed   = "failed"
)

// Status is the supervisor's view, which it writes on every change.
type Status struct {
	Components []Component `json:"components"`
}

// Started is when a component started last.
func (s Status) Started(name string) time.Time {
	for _, c := range s.Components {
		if c.Name == name {
			return c.Started
		}
	}
	return time.Time{}
}

// LoadStatus returns an empty status before the supervisor has written any.
func (c Cluster) LoadStatus() (Status, error) {
	var s Status
	err := readJSON(c.Path("status.json"), &s)
	return s, err
}

// SaveStatus replaces the status.
func (c Cluster) SaveStatus(s Status) error {
	return writeJSON(c.Path("status.json"), s)
}
