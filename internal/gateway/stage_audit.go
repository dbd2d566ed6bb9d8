package gateway

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/mcpwarden/mcp-warden/internal/gateway/message"
)

// maxDetail bounds what is logged of texts that come from outside, in bytes.
const maxDetail = 256

// auditStage writes a line per exchange, when it has ended. Names follow OpenTelemetry's conventions for MCP where they
// have one. Of parameters a line holds a digest, keyed anew by every process: it tells whether two requests of one log asked
// for the same, and nobody can find out what by trying. The same goes for the session's id, which is a credential.
type auditStage struct {
	Pass
	log *slog.Logger
	key []byte
}

func newAuditStage(log *slog.Logger) *auditStage {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails
	return &auditStage{log: log, key: key}
}

// Done writes the line.
func (s *auditStage) Done(x *Exchange) {
	attrs := make([]slog.Attr, 0, 24)
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, printable(value)))
		}
	}
	number := func(key string, value int) {
		if value != 0 {
			attrs = append(attrs, slog.Int(key, value))
		}
	}
	decision, level := "Allowed", slog.LevelInfo
	if x.Refused != nil {
		decision, level = "Refused", slog.LevelWarn
	}
	text("decision", decision)
	if x.Refused != nil {
		text("reason", string(x.Refused.Reason))
		text("detail", x.Refused.Text)
	}
	text("exchange", x.ID)
	text("trace", x.TraceID)
	text("client.address", x.Client.String())
	text("http.request.method", x.Request.Method)
	number("http.response.status_code", x.Status)
	text("mcp.protocol.version", x.Version)
	if x.Headers.Session != "" {
		text("session", s.digest([]byte(x.Headers.Session)))
	}
	if m := x.Message; m != nil {
		text("mcp.method.name", m.Method)
		s.target(m, text)
		if m.ID != nil {
			text("jsonrpc.request.id", strings.Trim(string(m.ID), `"`))
		}
		if m.Params.Raw != nil {
			text("params", s.digest(m.Params.Raw))
		}
	}
	number("rpc.response.status_code", x.ErrorCode)
	text("error.type", errorType(x))
	attrs = append(attrs, slog.Int("bytesIn", x.Received), slog.Int64("bytesOut", x.Sent),
		slog.Float64("seconds", x.Duration.Round(time.Microsecond).Seconds()))
	s.log.LogAttrs(context.Background(), level, "request", attrs...)
}

func (s *auditStage) target(m *message.Message, text func(key, value string)) {
	raw, known := m.Target()
	if !known {
		return
	}
	name, err := message.Text(raw)
	switch {
	case err != nil:
	case m.Method == "tools/call":
		text("gen_ai.tool.name", name)
	case m.Method == "prompts/get":
		text("gen_ai.prompt.name", name)
	default:
		text("mcp.resource.uri", withoutSecrets(name))
	}
}

func (s *auditStage) digest(of []byte) string {
	mac := hmac.New(sha256.New, s.key)
	mac.Write(of)
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// withoutSecrets is a resource's address without the parts in which credentials travel.
func withoutSecrets(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return "unreadable"
	}
	u.User, u.RawQuery, u.Fragment, u.RawFragment = nil, "", "", ""
	if u.Opaque != "" {
		u.Opaque = "..."
	}
	return u.String()
}

// errorType is what went wrong, in few words that do not depend on the request; empty where nothing did.
func errorType(x *Exchange) string {
	switch {
	case x.Refused != nil:
		return string(x.Refused.Reason)
	case x.ErrorCode != 0:
		return "rpc_error"
	case x.ToolFailed:
		return "tool_error"
	case x.Status >= 400:
		return "http_error"
	}
	return ""
}

// printable is a text that comes from outside as it may be logged: of a bounded length, and without what would
// steer the terminal that shows it.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s[:min(len(s), maxDetail)])
}
