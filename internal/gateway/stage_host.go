package gateway

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/mcpwarden/mcp-warden/internal/gateway/message"
)

// hostStage checks Host and Origin, so that no web page can reach the server through the browser of somebody who can: neither by a name
// that it has made resolve to the server's address (DNS rebinding), nor from another site.
type hostStage struct {
	Pass
	names map[string]bool
}

func newHostStage(allowed []string) hostStage {
	names := make(map[string]bool, len(allowed))
	for _, name := range allowed {
		names[normalHost(name)] = true
	}
	return hostStage{names: names}
}

// Request refuses what was sent to a name that is not the server's, or by a page that is not of it.
func (s hostStage) Request(x *Exchange) *Refusal {
	host, local, ok := s.host(x.Request.Host)
	if !ok {
		return &Refusal{Status: http.StatusForbidden, Code: message.CodeInvalidRequest, Reason: BadHost, Text: "The Host header names no host of this server"}
	}
	origins := x.Request.Header["Origin"]
	if len(origins) == 0 {
		return nil
	}
	refusal := &Refusal{Status: http.StatusForbidden, Code: message.CodeInvalidRequest, Reason: BadOrigin, Text: "The Origin header names another site"}
	origin, err := url.Parse(origins[0])
	if len(origins) > 1 || err != nil || (origin.Scheme != "http" && origin.Scheme != "https") || origin.Host == "" {
		return refusal
	}
	from, fromLocal, ok := s.host(origin.Host)
	if !ok || (from != host && !s.names[from] && (!local || !fromLocal)) {
		return refusal
	}
	return nil
}

// host is the name in a host with an optional port. It is good where it is allowed, or an address, which no DNS answer can
// make another's; local tells of this machine's own.
func (s hostStage) host(hostport string) (name string, local, ok bool) {
	u := url.URL{Host: hostport}
	name = normalHost(u.Hostname())
	if addr, err := netip.ParseAddr(name); err == nil {
		return name, addr.Unmap().IsLoopback(), true
	}
	local = name == "localhost"
	return name, local, local || s.names[name]
}

func normalHost(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") }
