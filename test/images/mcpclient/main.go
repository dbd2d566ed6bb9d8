// Command mcpclient is an MCP client for tests: it initializes a session over Streamable HTTP, lists
// the tools and calls one of them, and says on each line what it did.
//
//	mcpclient [-timeout 10s] [-ca PEM] URL TOOL [ARGUMENTS]
//
// With -loop it calls servers over and over, until it is ended, and answers at that address with what
// came of it:
//
//	mcpclient -loop :7001 [-timeout 10s] [-pause 1s] URL...
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

func main() {
	timeout := flag.Duration("timeout", 10*time.Second, "how long all of it may take")
	address := flag.String("loop", "", "where to tell of calls that are made over and over")
	pause := flag.Duration("pause", time.Second, "between two calls of one server")
	authority := flag.String("ca", "", "the only `certificate` authority to trust, as PEM")
	flag.Parse()
	if *authority != "" {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM([]byte(*authority)) {
			fmt.Fprintln(os.Stderr, "mcpclient: -ca: no certificate")
			os.Exit(2)
		}
		http.DefaultTransport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	if *address != "" {
		fmt.Fprintln(os.Stderr, "mcpclient:", loop(*address, *timeout, *pause, flag.Args()))
		os.Exit(1)
	}
	if err := run(*timeout, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "mcpclient:", err)
		os.Exit(1)
	}
}

func run(timeout time.Duration, args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if len(args) < 2 {
		return fmt.Errorf("usage: mcpclient URL TOOL [ARGUMENTS as JSON]")
	}
	arguments := map[string]any{}
	if len(args) > 2 {
		if err := json.Unmarshal([]byte(args[2]), &arguments); err != nil {
			return fmt.Errorf("arguments: %w", err)
		}
	}
	client := mcp.NewClient(&mcp.Implementation{Name: "mcp-warden-test-client", Version: "1"}, nil)
	session, err := connect(ctx, client, args[0])
	if err != nil {
		return fmt.Errorf("initialize: %w", err)
	}
	defer session.Close()
	info := session.InitializeResult()
	fmt.Printf("initialize: %s %s speaks %s\n", info.ServerInfo.Name, info.ServerInfo.Version, info.ProtocolVersion)
	tools, err := session.ListTools(ctx, nil)
	if err != nil {
		return fmt.Errorf("tools/list: %w", err)
	}
	var names []string
	for _, tool := range tools.Tools {
		names = append(names, tool.Name)
	}
	fmt.Printf("tools/list: %d tools: %s\n", len(names), strings.Join(names, ", "))
	result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: args[1], Arguments: arguments})
	if err != nil {
		return fmt.Errorf("tools/call %s: %w", args[1], err)
	}
	content, err := json.Marshal(result.Content)
	if err != nil {
		return fmt.Errorf("tools/call %s: encode result: %w", args[1], err)
	}
	fmt.Printf("tools/call: %s answered %s\n", args[1], content)
	if result.IsError {
		return fmt.Errorf("tools/call %s: the tool says that it failed", args[1])
	}
	return nil
}

// connect tries again while the connection is refused: a Service that is new takes the node a moment.
func connect(ctx context.Context, client *mcp.Client, endpoint string) (*mcp.ClientSession, error) {
	for {
		session, err := client.Connect(ctx, &mcp.StreamableClientTransport{Endpoint: endpoint, MaxRetries: -1}, nil)
		if err == nil || !errors.Is(err, syscall.ECONNREFUSED) {
			return session, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(250 * time.Millisecond):
		}
	}
}
