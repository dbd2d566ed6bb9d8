// Package inventory finds out whether a server works, and what tools it has, as a client does: by a handshake, and by listing the tools.
package inventory

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/mcpwarden/mcp-warden/internal/gateway"
	"github.com/mcpwarden/mcp-warden/internal/gateway/message"
)

// What a server can make the gateway hold.
const (
	MaxTools = 2048
	maxPages = 256
	// maxName bounds a tool's name, in bytes, and maxCursor where a page begins.
	maxName   = 256
	maxCursor = 4 << 10
)

// discoverTime is how long a server may take to answer to what it may not know: some of those that do not know it are silent.
const discoverTime = 10 * time.Second

// Conn is a connection to a server. It is for one goroutine.
type Conn interface {
	// Call sends a request, and returns the response to it, be it an error.
	Call(ctx context.Context, request []byte) (*message.Message, error)
	// Notify sends a notification.
	Notify(ctx context.Context, notification []byte) error
	Close()
}

// Dial makes a connection.
type Dial func(ctx context.Context) (Conn, error)

// Tool is one of a server's tools.
type Tool struct {
	Name string `json:"name"`
	// SHA256 is over the tool's definition in the canonical form of RFC 8785, in hex: it changes when anything in the definition does, and
	// not with the order of its keys.
	SHA256 string `json:"sha256"`
	// Params are the arguments that clients repeat in headers.
	Params []Param `json:"-"`
}

// Param is an argument of a tool that clients repeat in the header Mcp-Param-<Header>: the value at a path of keys.
type Param struct {
	Path   []string
	Header string
}

// Inventory is what a server has said of itself.
type Inventory struct {
	// Protocol is the revision that it was spoken to in.
	Protocol string `json:"protocol"`
	// Tools are ordered by name.
	Tools []Tool `json:"tools"`
	Count int    `json:"count"`
	// SHA256 is over all tools, in hex.
	SHA256 string `json:"sha256"`
}

// Modern tells whether the server speaks a revision without sessions.
func (i *Inventory) Modern() bool { return i.Protocol >= gateway.Modern }

// Take talks to a server, first by the revision without sessions, and by the one before it if the server does not know that.
func Take(ctx context.Context, dial Dial) (*Inventory, error) {
	conn, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	inventory, err := modern(ctx, conn)
	if errors.Is(err, errNotModern) {
		inventory, err = legacy(ctx, conn)
	}
	conn.Close()
	if errors.Is(err, errBroken) && ctx.Err() == nil { // some cannot stand what they do not know
		if conn, err = dial(ctx); err == nil {
			inventory, err = legacy(ctx, conn)
			conn.Close()
		}
	}
	return inventory, err
}

var (
	errNotModern = errors.New("the server does not speak " + gateway.Modern)
	errBroken    = errors.New("the connection broke on server/discover")
)

const (
	clientInfo = `{"name":"mcp-warden-gateway","version":"1"}`
	meta       = `"_meta":{"io.modelcontextprotocol/protocolVersion":"` + gateway.Modern + `","io.modelcontextprotocol/clientInfo":` + clientInfo +
		`,"io.modelcontextprotocol/clientCapabilities":{}}`
	lastLegacy = "2025-11-25"
)

func modern(ctx context.Context, conn Conn) (*Inventory, error) {
	limited, cancel := context.WithTimeout(ctx, discoverTime)
	defer cancel()
	m, err := conn.Call(limited, []byte(`{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{`+meta+`}}`))
	switch {
	case err != nil && limited.Err() != nil && ctx.Err() == nil:
		return nil, errNotModern
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errBroken, err)
	case m.Error != nil:
		return nil, errNotModern
	}
	var result struct {
		SupportedVersions []string
		Capabilities      struct{ Tools *struct{} }
	}
	if err := json.Unmarshal(m.Result, &result); err != nil || !slices.Contains(result.SupportedVersions, gateway.Modern) {
		return nil, errNotModern
	}
	return list(ctx, conn, gateway.Modern, result.Capabilities.Tools != nil, meta)
}

func legacy(ctx context.Context, conn Conn) (*Inventory, error) {
	m, err := conn.Call(ctx, []byte(`{"jsonrpc":"2.0","id":2,"method":"initialize","params":{"protocolVersion":"`+lastLegacy+`","capabilities":{},"clientInfo":`+clientInfo+`}}`))
	if err != nil {
		return nil, fmt.Errorf("initialize: %w", err)
	}
	if m.Error != nil {
		return nil, fmt.Errorf("initialize: the server answers with error %d", m.ErrorCode)
	}
	var result struct {
		ProtocolVersion string
		Capabilities    struct{ Tools *struct{} }
	}
	if err := json.Unmarshal(m.Result, &result); err != nil || len(result.ProtocolVersion) != len(lastLegacy) {
		return nil, errors.New("initialize: the server does not say what it speaks")
	}
	if err := conn.Notify(ctx, []byte(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)); err != nil {
		return nil, fmt.Errorf("initialized: %w", err)
	}
	return list(ctx, conn, result.ProtocolVersion, result.Capabilities.Tools != nil, "")
}

func list(ctx context.Context, conn Conn, protocol string, has bool, params string) (*Inventory, error) {
	inventory := &Inventory{Protocol: protocol, Tools: []Tool{}}
	cursor := ""
	for page := 0; has; page++ {
		if page == maxPages {
			return nil, errors.New("tools/list: the server has more pages than it may")
		}
		request := fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%d,"method":"tools/list","params":{%s}}`, page+3, strings.Trim(cursor+","+params, ","))
		m, err := conn.Call(ctx, request)
		if err != nil {
			return nil, fmt.Errorf("tools/list: %w", err)
		}
		if m.Error != nil {
			return nil, fmt.Errorf("tools/list: the server answers with error %d", m.ErrorCode)
		}
		var next string
		if inventory.Tools, next, err = appendPage(inventory.Tools, m.Result); err != nil {
			return nil, fmt.Errorf("tools/list: %w", err)
		}
		if has = next != ""; has {
			quoted, _ := json.Marshal(next)
			cursor = `"cursor":` + string(quoted)
		}
	}
	slices.SortFunc(inventory.Tools, func(a, b Tool) int { return strings.Compare(a.Name+"\x00"+a.SHA256, b.Name+"\x00"+b.SHA256) })
	inventory.Count = len(inventory.Tools)
	inventory.SHA256 = Digest(inventory.Tools)
	return inventory, nil
}

// Digest is SHA-256, in hex, over a list of tools: their names and digests in its order.
func Digest(tools []Tool) string {
	all, _ := json.Marshal(tools) // strings alone: it cannot fail
	return digest(all)
}

// appendPage appends the tools of a page, and returns where the next one begins; empty for the last.
func appendPage(tools []Tool, result []byte) ([]Tool, string, error) {
	var page struct {
		Tools      []json.RawMessage
		NextCursor string
	}
	if err := json.Unmarshal(result, &page); err != nil || page.Tools == nil {
		return nil, "", errors.New("the answer is no list of tools")
	}
	if len(tools)+len(page.Tools) > MaxTools || len(page.NextCursor) > maxCursor {
		return nil, "", errors.New("the server has more tools than it may")
	}
	for _, raw := range page.Tools {
		var tool struct {
			Name        string
			InputSchema schema
		}
		if err := json.Unmarshal(raw, &tool); err != nil || tool.Name == "" || len(tool.Name) > maxName {
			return nil, "", errors.New("a tool has no name, or one that is too long")
		}
		canonical := jsontext.Value(slices.Clone(raw))
		if err := canonical.Canonicalize(jsontext.AllowInvalidUTF8(true)); err != nil {
			return nil, "", errors.New("a tool's definition has no canonical form")
		}
		tools = append(tools, Tool{Name: tool.Name, SHA256: digest(canonical), Params: tool.InputSchema.params(nil, nil)})
	}
	return tools, page.NextCursor, nil
}

// schema is what of a tool's input schema tells its headers.
type schema struct {
	Header     string            `json:"x-mcp-header"`
	Properties map[string]schema `json:"properties"`
}

// UnmarshalJSON never fails: a schema may be of any form, and what is not of this one tells no header.
func (s *schema) UnmarshalJSON(raw []byte) error {
	var parts map[string]json.RawMessage
	if json.Unmarshal(raw, &parts) == nil {
		_ = json.Unmarshal(parts["x-mcp-header"], &s.Header)
		_ = json.Unmarshal(parts["properties"], &s.Properties)
	}
	return nil
}

// maxParams bounds the headers of a tool.
const maxParams = 64

// params appends the arguments at a path and below it that have headers.
func (s *schema) params(to []Param, path []string) []Param {
	if s.Header != "" && len(to) < maxParams {
		to = append(to, Param{Path: slices.Clone(path), Header: s.Header})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		below := s.Properties[name]
		to = below.params(to, append(path, name))
	}
	return to
}

func digest(of []byte) string {
	sum := sha256.Sum256(of)
	return hex.EncodeToString(sum[:])
}
