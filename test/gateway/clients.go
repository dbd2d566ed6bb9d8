package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// target is what a client talks to: a URL, or a command that speaks stdio.
type target struct {
	url     string
	command []string
}

// args are the target as command lines of clients have it.
func (t target) args() []string {
	if t.url != "" {
		return []string{t.url}
	}
	return t.command
}

// client is one that people use, in one revision of the protocol. What it returns is what its user sees.
type client struct {
	name string
	run  func(ctx context.Context, to target, e *endpoint) (string, error)
}

const modern = "2026-07-28"

func clients(bin string) []client {
	all := []client{{"TypeScript, legacy", typescript(bin, "legacy")}, {"TypeScript, auto", typescript(bin, "auto")}}
	for _, version := range []string{"2025-06-18", "2025-11-25", modern} {
		all = append(all, client{"Go " + version, goSDK(version)}, client{"raw " + version, raw(version)})
	}
	return append(all, client{"Inspector, legacy", inspector(bin, "legacy")}, client{"Inspector, auto", inspector(bin, "auto")})
}

// call is one that clients make.
type call struct {
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

var lists = []call{
	{"tools/list", json.RawMessage(`{}`)}, {"prompts/list", json.RawMessage(`{}`)}, {"resources/list", json.RawMessage(`{}`)},
	{"resources/templates/list", json.RawMessage(`{}`)},
}

func tool(name, arguments string) call {
	return call{"tools/call", fmt.Appendf(nil, `{"name":"%s","arguments":%s}`, name, arguments)}
}

func node(bin string) string {
	found, _ := filepath.Glob(filepath.Join(bin, "node_modules/node-linux-*/bin/node"))
	if len(found) == 0 {
		return "node"
	}
	return found[0]
}

// command runs a client to its end, and returns what it prints; how it ends is part of that.
func command(ctx context.Context, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) && ctx.Err() == nil {
		return fmt.Sprintf("%s\nends with %d\n", out.String(), ended.ExitCode()), nil
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, said.String())
	}
	return out.String(), nil
}

func typescript(bin, mode string) func(context.Context, target, *endpoint) (string, error) {
	return func(ctx context.Context, to target, e *endpoint) (string, error) {
		calls, err := json.Marshal(append(lists, e.calls...))
		if err != nil {
			return "", fmt.Errorf("calls: %w", err)
		}
		return command(ctx, e.env, node(bin), append([]string{filepath.Join(bin, "client.mjs"), mode, string(calls)}, to.args()...)...)
	}
}

func inspector(bin, era string) func(context.Context, target, *endpoint) (string, error) {
	return func(ctx context.Context, to target, e *endpoint) (string, error) {
		home, err := os.MkdirTemp("", "inspector")
		if err != nil {
			return "", fmt.Errorf("inspector: %w", err)
		}
		defer os.RemoveAll(home)
		var all strings.Builder
		for _, asked := range append([][]string{{"--method", "tools/list"}}, e.inspect...) {
			args := []string{filepath.Join(bin, "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"), "--cli"}
			args = append(append(append(args, to.args()...), "--protocol-era", era), asked...)
			for _, variable := range e.env {
				args = append(args, "-e", variable)
			}
			out, err := command(ctx, append(e.env, "HOME="+home), node(bin), args...)
			if err != nil {
				return "", err
			}
			all.WriteString(strings.ReplaceAll(out, home, "HOME"))
		}
		return all.String(), nil
	}
}

// goSDK is a client of the official Go SDK.
func goSDK(version string) func(context.Context, target, *endpoint) (string, error) {
	return func(ctx context.Context, to target, e *endpoint) (string, error) {
		c := mcp.NewClient(&mcp.Implementation{Name: "go", Version: "1"}, &mcp.ClientOptions{
			ElicitationHandler: func(context.Context, *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
				return &mcp.ElicitResult{Action: "accept", Content: map[string]any{}}, nil
			},
			//nolint:staticcheck // deprecated, and asked for by servers as they are
			CreateMessageHandler: func(context.Context, *mcp.CreateMessageRequest) (*mcp.CreateMessageResult, error) {
				//nolint:staticcheck // as above
				return &mcp.CreateMessageResult{Role: "assistant", Model: "m", Content: &mcp.TextContent{Text: "sampled"}}, nil
			},
		})
		var transport mcp.Transport = &mcp.StreamableClientTransport{Endpoint: to.url, HTTPClient: &http.Client{Transport: &http.Transport{}}, MaxRetries: -1}
		if to.url == "" {
			cmd := exec.Command(to.command[0], to.command[1:]...)
			cmd.Env = append(os.Environ(), e.env...)
			transport = &mcp.CommandTransport{Command: cmd}
		}
		session, err := c.Connect(ctx, transport, &mcp.ClientSessionOptions{ProtocolVersion: version})
		if err != nil {
			return "connect: " + err.Error(), nil
		}
		defer session.Close()
		out := new(strings.Builder)
		info := session.InitializeResult()
		fmt.Fprintf(out, "%+v speaks %s\n", *info.ServerInfo, info.ProtocolVersion)
		for _, call := range append(lists, e.calls...) {
			result, err := goCall(ctx, session, call)
			text, _ := json.Marshal(result)
			fmt.Fprintf(out, "%s %s %v\n", call.Method, text, err)
		}
		return out.String(), nil
	}
}

func goCall(ctx context.Context, session *mcp.ClientSession, c call) (any, error) {
	switch c.Method {
	case "tools/list":
		return session.ListTools(ctx, nil)
	case "prompts/list":
		return session.ListPrompts(ctx, nil)
	case "resources/list":
		return session.ListResources(ctx, nil)
	case "resources/templates/list":
		return session.ListResourceTemplates(ctx, nil)
	case "tools/call":
		return do(ctx, session.CallTool, c)
	case "prompts/get":
		return do(ctx, session.GetPrompt, c)
	case "resources/read":
		return do(ctx, session.ReadResource, c)
	}
	return nil, errors.New("the Go client does not know the method")
}

func do[P, R any](ctx context.Context, method func(context.Context, *P) (*R, error), c call) (any, error) {
	params := new(P)
	if err := json.Unmarshal(c.Params, params); err != nil {
		return nil, fmt.Errorf("params: %w", err)
	}
	return method(ctx, params)
}

// odd are requests as no SDK writes them. %s is what a revision without sessions has in _meta, with a comma behind it.
var odd = []string{
	` { "id" : "a/\u00e9 \"ü\"" , "params" : { "_meta":{%s "x.example/y":[1,2,{"z":null}]}, "unknown":18446744073709551616 } , "jsonrpc":"2.0", "method":"tools/list" } `,
	"{\"jsonrpc\":\"2.0\",\n\t\"method\":\"prompts/list\",\r\n\"params\":{\"_meta\":{%s \"a\":1.0e+2},\"unknown\":{\"B\":1,\"b\":2,\"a\":-0.0}},\"id\":7}",
	`{"params":{"_meta":{%s "progressToken":"t\u0041"},"y":"\u2028\ud83d\ude00"},"method":"x.example/unknown","id":4503599627370497,"jsonrpc":"2.0"}`,
	`{"method":"tools/call","jsonrpc":"2.0","id":0,"params":{"arguments":{"no such":12345678901234567890.5,"x":"\/"},"name":"no such tool","_meta":{%s "n":1}}}`,
	`{"id":9,"jsonrpc":"2.0","method":"resources/templates/list","params":{"cursor":"","_meta":{%s "last":true}}}`,
}

// raw says what no SDK says, and returns all that the server answers.
func raw(version string) func(context.Context, target, *endpoint) (string, error) {
	meta := ""
	first := []string{
		`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"unknown":[],"clientInfo":{"version":"1","name":"raw"},"capabilities":{"experimental":{"x":{"y":1e3}}},"protocolVersion":"` + version + `"}}`,
		`{"jsonrpc":"2.0","method":"notifications/initialized","params":{"unknown":1}}`,
	}
	if version >= modern {
		meta = `"io.modelcontextprotocol/protocolVersion":"` + version + `", "io.modelcontextprotocol/clientInfo":{"name":"raw","version":"1"},"io.modelcontextprotocol/clientCapabilities":{},`
		first = []string{`{"jsonrpc":"2.0","id":"first","method":"server/discover","params":{"_meta":{` + meta + `"x":1}}}`}
	}
	all := first
	for _, text := range odd {
		all = append(all, fmt.Sprintf(text, meta))
	}
	return func(ctx context.Context, to target, e *endpoint) (string, error) {
		if to.url != "" && e.http { // on stdio some servers are silent on it, and so is the gateway
			return rawHTTP(ctx, to.url, version, append(all, fmt.Sprintf(`{"unknown":{"z":1},"jsonrpc":"2.0","id":10,"method":"tools/list","params":{"_meta":{%s "x":1}}}`, meta)))
		}
		if to.url != "" {
			return rawHTTP(ctx, to.url, version, all)
		}
		return rawStdio(ctx, to.command, e.env, all)
	}
}

func rawHTTP(ctx context.Context, url, version string, all []string) (string, error) {
	connection := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer connection.CloseIdleConnections()
	session, out := "", new(strings.Builder)
	for i, body := range all {
		var m struct {
			Method string
			Params struct{ Name string }
		}
		if err := json.Unmarshal([]byte(body), &m); err != nil {
			return "", fmt.Errorf("raw: %w", err)
		}
		header := http.Header{"X-Unknown": {"one", "two"}}
		if session != "" {
			header.Set("Mcp-Session-Id", session)
		}
		if i > 0 || version >= modern {
			header.Set("Mcp-Protocol-Version", version)
		}
		if version >= modern {
			header.Set("Mcp-Method", m.Method)
			if m.Params.Name != "" {
				header.Set("Mcp-Name", m.Params.Name)
			}
		}
		x, err := post(ctx, connection, url, header, body)
		if err != nil {
			return "", err
		}
		if id := x.answer.Get("Mcp-Session-Id"); id != "" {
			session = id
		}
		_, messages := x.messages()
		for _, m := range messages {
			fmt.Fprintf(out, "%s\n", plainID(m))
		}
	}
	if session != "" {
		request, err := http.NewRequestWithContext(ctx, http.MethodDelete, url, nil)
		if err != nil {
			return "", fmt.Errorf("raw: %w", err)
		}
		request.Header = http.Header{"Mcp-Session-Id": {session}, "Mcp-Protocol-Version": {version}}
		response, err := connection.Do(request)
		if err != nil {
			return "", fmt.Errorf("raw: %w", err)
		}
		_ = response.Body.Close()
	}
	return out.String(), nil
}

func post(ctx context.Context, connection *http.Client, url string, header http.Header, body string) (*exchange, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("raw: %w", err)
	}
	request.Header = header
	header["Content-Type"], header["Accept"] = []string{"application/json"}, []string{"application/json, text/event-stream"}
	response, err := connection.Do(request)
	if err != nil {
		return nil, fmt.Errorf("raw: %w", err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("raw: %w", err)
	}
	return &exchange{answer: response.Header, content: content}, nil
}

// rawStdio says the same on stdio, where a message is a line.
func rawStdio(ctx context.Context, command, env []string, all []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		return "", fmt.Errorf("raw: %w", err)
	}
	out, lines := new(strings.Builder), bufio.NewReader(stdout)
	for _, body := range all {
		line := oneLine([]byte(body))
		if _, err := stdin.Write(append(line, '\n')); err != nil {
			return "", fmt.Errorf("raw: %w", err)
		}
		for id := find(line, "id"); id.value != nil; {
			answer, err := lines.ReadBytes('\n')
			if err != nil {
				return out.String() + "no answer to " + body, nil
			}
			if m := bytes.TrimSpace(answer); len(m) > 0 && m[0] == '{' && find(m, "method").value == nil {
				fmt.Fprintf(out, "%s\n", plainID(m))
				break
			}
		}
	}
	_ = stdin.Close()
	_, _ = io.Copy(io.Discard, stdout)
	_ = cmd.Wait()
	return out.String(), nil
}

// plainID is a message with its id written plainly: a server may write it in another way than its client has.
func plainID(m []byte) []byte {
	at := find(m, "id")
	var id any
	if json.Unmarshal(at.value, &id) != nil {
		return m
	}
	plain, _ := json.Marshal(id)
	return slices.Concat(m[:at.start], plain, m[at.end:])
}

// oneLine is a message without line ends, which are between tokens only, and without what is around it.
func oneLine(m []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if r == '\n' || r == '\r' {
			return ' '
		}
		return r
	}, bytes.TrimSpace(m))
}
