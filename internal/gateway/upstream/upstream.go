// Package upstream forwards to a server that speaks Streamable HTTP. Sessions, streams and their resumption are the server's; the
// gateway passes them on.
package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/mcpwarden/mcp-warden/internal/gateway"
	"github.com/mcpwarden/mcp-warden/internal/gateway/sse"
)

// maxErrorBody bounds the body of an HTTP error that is no message, in bytes.
const maxErrorBody = 64 << 10

// Upstream is a backend that forwards to one address.
type Upstream struct {
	url       string
	transport *http.Transport
	limits    gateway.Limits
}

// New makes a backend for the MCP endpoint at address, such as http://127.0.0.1:8080/mcp.
func New(address string, limits gateway.Limits) (*Upstream, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" || u.Host == "" || u.User != nil {
		return nil, errors.New("upstream: must be an address such as http://127.0.0.1:8080/mcp")
	}
	return &Upstream{url: address, limits: limits, transport: &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		MaxIdleConnsPerHost: limits.Requests, // one is used for each request that is open: none is thrown away while there is load
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true, // what is compressed cannot be looked at
		// Until the head of an answer: a server that streams sends it at once.
		ResponseHeaderTimeout:  limits.AnswerTime,
		MaxResponseHeaderBytes: int64(limits.HeaderBytes),
	}}, nil
}

// Serve forwards an exchange. When the client goes, the server sees its connection go: what that means is for the
// revision of the protocol that the two speak.
func (u *Upstream) Serve(x *gateway.Exchange, reply *gateway.Reply) {
	response, err := u.send(x)
	if err == nil {
		defer response.Body.Close()
		copyHeader(reply.Header(), response.Header)
		err = answer(reply, response, u.limits.MessageBytes)
	}
	if err != nil {
		reply.Refuse(failure(x, err))
	}
}

func (u *Upstream) send(x *gateway.Exchange) (*http.Response, error) {
	var body io.Reader
	if x.Message != nil {
		body = bytes.NewReader(x.Message.Raw)
	}
	out, err := http.NewRequestWithContext(x.Request.Context(), x.Request.Method, u.url, body)
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	copyHeader(out.Header, x.Request.Header)
	for _, name := range owned {
		delete(out.Header, name)
	}
	out.Header["X-Forwarded-For"] = []string{x.Client.String()}
	if _, has := out.Header["User-Agent"]; !has {
		out.Header["User-Agent"] = nil // or the transport says its own
	}
	return u.transport.RoundTrip(out)
}

// owned are the request headers that are the gateway's. It has checked Host and Origin, and a server that listens on loopback
// would refuse those that are right outside; and nobody but the gateway knows who the client is.
var owned = []string{
	"Accept-Encoding", "Content-Length", "Origin", "Sec-Fetch-Site", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
}

// hopByHop are the headers that are of one connection.
var hopByHop = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// copyHeader copies what is not of one connection.
func copyHeader(to, from http.Header) {
	maps.Copy(to, from)
	for _, names := range from["Connection"] {
		for name := range strings.SplitSeq(names, ",") {
			to.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop {
		delete(to, name)
	}
}

// answer passes an answer on. What can be no message is passed on only where it is the text of an HTTP error.
func answer(reply *gateway.Reply, response *http.Response, bound int) error {
	if len(response.Header["Content-Encoding"]) > 0 {
		return fmt.Errorf("%w: it is encoded", gateway.ErrBadAnswer)
	}
	media, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if media == "text/event-stream" {
		return stream(reply, response, bound)
	}
	body, err := reply.Hold(response.Body, response.ContentLength)
	switch {
	case err != nil:
		return err
	case len(body) == 0:
		reply.Empty(response.StatusCode)
		return nil
	}
	err = gateway.ErrBadAnswer
	if media == "application/json" {
		err = reply.Message(response.StatusCode, body)
	}
	if errors.Is(err, gateway.ErrBadAnswer) && response.StatusCode >= http.StatusBadRequest {
		return reply.Pass(response.StatusCode, body[:min(len(body), maxErrorBody)])
	}
	return err
}

func stream(reply *gateway.Reply, response *http.Response, bound int) error {
	if err := reply.Stream(response.StatusCode); err != nil {
		return err
	}
	events := sse.NewReader(response.Body, bound)
	for {
		event, err := events.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := reply.Event(&event); err != nil {
			return err
		}
	}
}

// failure is what a client is told.
func failure(x *gateway.Exchange, err error) *gateway.Refusal {
	refusal := &gateway.Refusal{Status: http.StatusBadGateway, Code: gateway.CodeInternal}
	var network net.Error
	switch {
	case x.Request.Context().Err() != nil:
		refusal.Reason, refusal.Text = gateway.ClientGone, "The client is gone"
	case errors.Is(err, gateway.ErrBadAnswer), errors.Is(err, sse.ErrTooLong), errors.Is(err, gateway.ErrTooLarge):
		refusal.Reason, refusal.Text = gateway.BadAnswer, "The server's answer is no message of MCP, or too large"
	case errors.Is(err, gateway.ErrNoBudget):
		refusal.Status, refusal.Reason, refusal.Text = http.StatusServiceUnavailable, gateway.Busy, "The gateway holds as much as it may"
	case errors.As(err, &network) && network.Timeout():
		refusal.Status, refusal.Reason, refusal.Text = http.StatusGatewayTimeout, gateway.ServerSlow, "The server did not answer in time"
	default:
		refusal.Reason, refusal.Text = gateway.ServerGone, "The server cannot be reached, or went away"
	}
	return refusal
}
