package stdio

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/mcpwarden/mcp-warden/internal/gateway"
	"github.com/mcpwarden/mcp-warden/internal/gateway/inventory"
	"github.com/mcpwarden/mcp-warden/internal/gateway/message"
)

// checkModern checks what is a server's to check over HTTP: a server on stdio sees no headers.
func (b *Backend) checkModern(x *gateway.Exchange) *gateway.Refusal {
	m := x.Message
	if m.Kind == message.Request && m.Params.Meta.ProtocolVersion == nil {
		return &gateway.Refusal{Status: http.StatusBadRequest, Code: gateway.CodeInvalidParams, Reason: gateway.BadMessage, Text: "The version of the protocol is missing in _meta"}
	}
	params := b.params.Load()
	if m.Method != "tools/call" || params == nil {
		return nil
	}
	name, err := message.Text(m.Params.Name)
	if err != nil {
		return nil // the server says what it makes of that
	}
	for _, param := range (*params)[name] {
		if !agrees(x.Request.Header, param, m.Params.Arguments) {
			return &gateway.Refusal{Status: http.StatusBadRequest, Code: gateway.CodeHeaderMismatch, Reason: gateway.HeaderMismatch, Text: "Header mismatch: a header Mcp-Param is not what the argument says that it repeats"}
		}
	}
	return nil
}

// agrees tells whether a header says what the argument says that it repeats. For one that is missing, or null, there must be no header.
func agrees(h http.Header, param inventory.Param, arguments []byte) bool {
	header, has, err := gateway.ParamHeader(h, param.Header)
	if err != nil {
		return false
	}
	value := lookUp(arguments, param.Path)
	if value == nil || string(value) == "null" {
		return !has
	}
	if !has {
		return false
	}
	if value[0] == '"' {
		text, err := message.Text(value)
		return err == nil && text == header
	}
	if header == string(value) {
		return value[0] != '{' && value[0] != '['
	}
	const safe = 1 << 53 // beyond, a float is not a number of its own
	one, err1 := strconv.ParseFloat(header, 64)
	two, err2 := strconv.ParseFloat(string(value), 64)
	return err1 == nil && err2 == nil && one == two && one > -safe && one < safe
}

// lookUp is the value at a path of keys; nil where there is none.
func lookUp(value []byte, path []string) []byte {
	for _, key := range path {
		var object map[string]json.RawMessage
		if json.Unmarshal(value, &object) != nil {
			return nil
		}
		value = object[key]
	}
	return value
}
