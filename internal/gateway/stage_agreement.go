package gateway

import (
	"net/http"

	"github.com/mcpwarden/mcp-warden/internal/gateway/message"
)

// agreementStage holds headers to say what the body says: what stands between client and server may have decided by the headers.
type agreementStage struct{ Pass }

// Request refuses what does not agree. A revision without sessions requires the headers; in an older one they may be missing,
// yet if they are there they must not lie.
func (agreementStage) Request(x *Exchange) *Refusal {
	m := x.Message
	if m == nil {
		return nil
	}
	required := x.Modern() && m.Kind == message.Request
	if raw := m.Params.Meta.ProtocolVersion; raw != nil {
		version, err := message.Text(raw)
		if err != nil || (version != x.Headers.Version && (x.Modern() || version >= Modern)) {
			return mismatch("MCP-Protocol-Version is not the version that the body says")
		}
	}
	switch {
	case x.Headers.Method == "" && required:
		return mismatch("Mcp-Method is missing")
	case x.Headers.Method != "" && x.Headers.Method != m.Method:
		return mismatch("Mcp-Method is not the method that the body says")
	}
	return agreeOnName(x, required)
}

func agreeOnName(x *Exchange, required bool) *Refusal {
	switch x.Message.Method {
	case "tools/call", "prompts/get", "resources/read":
	default:
		return nil // other methods may have a name of their own
	}
	if !x.Headers.HasName {
		if required {
			return mismatch("Mcp-Name is missing")
		}
		return nil
	}
	raw, _ := x.Message.Target()
	name, err := message.Text(raw)
	if err != nil || name != x.Headers.Name {
		return mismatch("Mcp-Name is not the name that the body says")
	}
	return nil
}

func mismatch(text string) *Refusal {
	return &Refusal{Status: http.StatusBadRequest, Code: CodeHeaderMismatch, Reason: HeaderMismatch, Text: "Header mismatch: " + text}
}
