package egressproxy

import (
	"testing"
	"time"
)

func TestSlowHead(t *testing.T) {
	b := start(t, func(c *Config) { c.Limits.HeadTime = 20 * time.Millisecond })
	b.denied(b.ask("CONNECT api.example.com:443 HTTP/1.1\r\nX-Slow: "), 1, HeadTimeout)
	b.denied(b.ask(""), 2, HeadTimeout)
}
