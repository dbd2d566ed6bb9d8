package agent

import (
	"context"
	"time"

	"github.com/mcpwarden/mcp-warden/internal/probe"
)

const (
	// glance is how long the init container looks where no proof is required: it holds no server up.
	glance = 2 * time.Second
	// patience is how long it looks where a proof is required, before it ends and is started anew,
	// with the addresses as they are then. The kubelet starts a container that ran for 10 minutes anew at once.
	patience = 10 * time.Minute
)

// Server is the init container of a server: it probes from the server's own pod.
type Server struct {
	// Require a proof: without one the server must not start.
	Require bool
	// Addresses of the canary, as the ConfigMap holds them.
	Addresses string

	try  reacher
	wait func(context.Context, time.Duration)
	now  func() time.Time
}

// NewServer returns one for the real network and clock.
func NewServer(require bool, addresses string) *Server {
	return &Server{Require: require, Addresses: addresses, try: reach, wait: wait, now: time.Now}
}

// Run probes until there is a proof, or for as long as it may, and returns what it found and whether the
// server may start.
func (s *Server) Run(ctx context.Context) (finding probe.Finding, start bool) {
	finding = probe.Finding{Result: probe.Unknown, Addresses: s.Addresses}
	addresses, err := probe.ParseAddresses(s.Addresses)
	if err != nil {
		finding.Addresses, finding.Detail = "", err.Error()
		return finding, !s.Require
	}
	finding.Addresses = probe.FormatAddresses(addresses)
	begin := s.now()
	for {
		finding.Result, finding.Detail = probe.Judge(reachPairs(ctx, addresses, s.try))
		if finding.Result == probe.Proven {
			return finding, true
		}
		if ctx.Err() != nil || len(addresses) == 0 || s.now().Sub(begin) >= s.bound(finding.Result) {
			return finding, !s.Require
		}
		s.wait(ctx, again/2)
	}
}

// bound is how long it looks, given what it found last.
func (s *Server) bound(result probe.Result) time.Duration {
	switch {
	case !s.Require:
		return glance
	case result == probe.NotEnforced:
		return settling // enough for any CNI, and the operator should learn of it
	}
	return patience
}
