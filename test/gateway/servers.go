package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// endpoint is a real server on one of its transports.
type endpoint struct {
	name    string
	command []string // on stdio; or for HTTP, with the address in its place
	http    bool
	port    string // that an HTTP server has by itself; empty for any
	env     []string
	// fresh is a folder or a file that is made anew for each run; data is what is in the folder.
	fresh   string
	pod     string // address of the gateway in a pod; empty where there is none
	used    bool   // with one, what the server keeps is not made anew after the first run: nobody could in a pod
	calls   []call
	inspect [][]string // what the Inspector is asked beside the tools
	// noise is what a server says differently each time.
	noise []*regexp.Regexp
}

// The noise of servers: dates, ids that are random, and those of what a server asks, where it asks several things at once.
var (
	uuids = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	dates = regexp.MustCompile(`(Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z][a-z] [0-9]{2} 20[0-9]{2} [0-9:]{8} GMT[^"\\]*`)
	// It comes before or after the answer, and then not at all.
	progress = regexp.MustCompile(`event: message\ndata: [^\n]*"notifications/progress"[^\n]*\n\n`)
	asked    = regexp.MustCompile(`"id":[0-3]([,}])`)
)

// ofHTTP is what the Go SDK's client adds to an error that comes with a status of HTTP. Without the gateway there is no HTTP.
var ofHTTP = regexp.MustCompile(`sending "[a-z/]+": |: rejected by transport: [A-Za-z ]+`)

const (
	address = "ADDRESS"
	port    = "PORT"
)

// endpoints are the servers that are looked at, with programs in bin and files in a folder.
func endpoints(bin, folder string) []*endpoint {
	program := func(name string) string { return filepath.Join(bin, name) }
	script := func(name string) string {
		return filepath.Join(bin, "node_modules/@modelcontextprotocol", name, "dist/index.js")
	}
	everything := &endpoint{
		name: "go-sdk everything-server, stdio", command: []string{program("everything-server")},
		calls: []call{
			tool("test_simple_text", `{}`), tool("test_image_content", `{}`), tool("test_multiple_content_types", `{}`), tool("test_error_handling", `{}`),
			tool("test_tool_with_progress", `{}`), tool("test_sampling", `{"prompt":"p"}`), tool("test_elicitation", `{"message":"m"}`), tool("no such tool", `{}`),
			{"resources/read", []byte(`{"uri":"test://static-text"}`)}, {"prompts/get", []byte(`{"name":"test_simple_prompt"}`)},
		},
		inspect: [][]string{{"--method", "tools/call", "--tool-name", "test_simple_text"}, {"--method", "resources/list"}},
	}
	node1 := &endpoint{
		name: "npm server-everything, stdio", command: []string{node(bin), script("server-everything"), "stdio"},
		calls: []call{
			tool("echo", `{"message":"grüße \u0000 \"x\""}`), tool("get-sum", `{"a":1.5,"b":1e3}`), tool("get-tiny-image", `{}`), tool("get-structured-content", `{"location":"New York"}`),
			tool("get-annotated-message", `{"messageType":"error","includeImage":true}`), tool("trigger-long-running-operation", `{"duration":0.3,"steps":3}`),
			tool("trigger-sampling-request", `{"prompt":"p","maxTokens":10}`), tool("trigger-elicitation-request", `{}`),
			{"prompts/get", []byte(`{"name":"simple-prompt"}`)}, {"resources/read", []byte(`{"uri":"demo://resource/static/document/features.md"}`)},
		},
		inspect: [][]string{{"--method", "tools/call", "--tool-name", "echo", "--tool-arg", "message=hello"}, {"--method", "prompts/list"}},
		noise:   []*regexp.Regexp{dates, uuids, asked},
	}
	mcpGo := &endpoint{
		name: "mcp-go everything, stdio", command: []string{program("everything")},
		calls: []call{
			tool("echo", `{"message":"hello"}`), tool("add", `{"a":1,"b":2}`), tool("getTinyImage", `{}`), tool("notify", `{}`),
			{"resources/read", []byte(`{"uri":"test://static/resource"}`)}, {"prompts/get", []byte(`{"name":"simple_prompt"}`)},
		},
		inspect: [][]string{{"--method", "tools/call", "--tool-name", "echo", "--tool-arg", "message=hello"}},
		noise:   []*regexp.Regexp{progress},
	}
	grafana := &endpoint{
		name: "mcp-grafana, stdio", command: []string{program("mcp-grafana")},
		env:     []string{"GRAFANA_URL=http://127.0.0.1:3000"}, // what localhost is differs
		calls:   []call{tool("list_datasources", `{}`)},        // no Grafana is there: its tools fail, and say so
		inspect: [][]string{{"--method", "tools/call", "--tool-name", "list_datasources"}},
	}
	files := filepath.Join(folder, "files")
	filesystem := &endpoint{
		name: "npm server-filesystem, stdio", command: []string{node(bin), script("server-filesystem"), files}, fresh: files,
		calls: []call{
			tool("list_allowed_directories", `{}`), tool("write_file", fmt.Sprintf(`{"path":"%s/b.txt","content":"zwei\n"}`, files)),
			tool("read_text_file", fmt.Sprintf(`{"path":"%s/b.txt"}`, files)), tool("list_directory", fmt.Sprintf(`{"path":"%s"}`, files)),
			tool("read_text_file", `{"path":"/etc/passwd"}`),
		},
		inspect: [][]string{{"--method", "tools/call", "--tool-name", "list_directory", "--tool-arg", "path=" + files}},
	}
	graph := filepath.Join(folder, "graph")
	memory := &endpoint{
		name: "npm server-memory, stdio", command: []string{node(bin), script("server-memory")}, fresh: graph, env: []string{"MEMORY_FILE_PATH=" + filepath.Join(graph, "memory.jsonl")},
		calls: []call{
			tool("create_entities", `{"entities":[{"name":"é","entityType":"t","observations":["o"]}]}`), tool("read_graph", `{}`), tool("search_nodes", `{"query":"é"}`),
		},
		inspect: [][]string{{"--method", "tools/call", "--tool-name", "read_graph"}},
	}
	return []*endpoint{
		everything.over("go-sdk everything-server, HTTP with sessions", "", nil, program("everything-server"), "-http", address, "-stateless=false"),
		everything.over("go-sdk everything-server, HTTP without", "", nil, program("everything-server"), "-http", address, "-stateless=true"),
		everything,
		node1.over("npm server-everything, HTTP", "", []string{"PORT=" + port}, node(bin), script("server-everything"), "streamableHttp"),
		node1,
		mcpGo.over("mcp-go everything, HTTP", "8080", nil, program("everything"), "-t", "http"),
		mcpGo,
		grafana.over("mcp-grafana, HTTP", "", nil, program("mcp-grafana"), "-t", "streamable-http", "-address", address, "-allowed-hosts", "*"),
		grafana,
		filesystem,
		memory,
	}
}

// over is the same server on HTTP.
func (e *endpoint) over(name, port string, env []string, command ...string) *endpoint {
	out := *e
	out.name, out.http, out.port, out.command = name, true, port, command
	out.env = append(append([]string(nil), e.env...), env...)
	return &out
}

// clean makes what the server keeps anew.
func (e *endpoint) clean() error {
	if e.fresh == "" || (e.pod != "" && e.used) {
		return nil
	}
	e.used = true
	if err := os.RemoveAll(e.fresh); err != nil {
		return fmt.Errorf("clean: %w", err)
	}
	if err := os.MkdirAll(e.fresh, 0o700); err != nil {
		return fmt.Errorf("clean: %w", err)
	}
	if e.pod != "" { // a pod has nothing in it
		return nil
	}
	if err := os.WriteFile(filepath.Join(e.fresh, "a.txt"), []byte("eins\n"), 0o600); err != nil {
		return fmt.Errorf("clean: %w", err)
	}
	return nil
}

// podFiles is where servers in pods have their files. The same path is used without a pod, since servers say it.
const podFiles = "/var/tmp/gateway-real"

// inPods are the servers that a file lists.
func inPods(bin, list string) ([]*endpoint, error) {
	text, err := os.ReadFile(list)
	if err != nil {
		return nil, fmt.Errorf("-pods: %w", err)
	}
	var out []*endpoint
	for line := range strings.Lines(string(text)) {
		name, at, _ := strings.Cut(strings.TrimSpace(line), "\t")
		i := slices.IndexFunc(endpoints(bin, podFiles), func(e *endpoint) bool { return e.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-pods: no server is called %q", name)
		}
		e := endpoints(bin, podFiles)[i]
		e.pod = at
		out = append(out, e)
	}
	return out, nil
}
