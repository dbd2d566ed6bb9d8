package egressproxy

import (
	"net/netip"
	"sync"
)

// pending counts the connections of which nobody knows yet what they want, in all and by client, so
// that a client that opens many and says nothing keeps nobody else out.
type pending struct {
	mu        sync.Mutex
	total     int
	perClient map[netip.Addr]int
}

// add takes a connection in, unless there are too many.
func (s *pending) add(client netip.Addr, limits *Limits) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total >= limits.Pending || s.perClient[client] >= limits.PendingPerClient {
		return false
	}
	s.total++
	s.perClient[client]++
	return true
}

func (s *pending) remove(client netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.perClient[client]--; s.perClient[client] <= 0 {
		delete(s.perClient, client)
	}
}

func (s *pending) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}
