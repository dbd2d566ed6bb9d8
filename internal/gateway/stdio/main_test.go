package stdio

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/mcpwarden/mcp-warden/internal/gateway/gatewaytest"
)

// TestMain lets the test's own binary be the servers that the tests need: what follows "serve" says which.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "serve" {
		servers[os.Args[2]]()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// command is the command of one of the servers.
func command(server string) []string { return []string{os.Args[0], "serve", server} }

var servers = map[string]func(){
	"sdk": func() {
		fmt.Fprintln(os.Stderr, "ready with", os.Getenv("VISIBLE")+os.Getenv(EnvPrefix+"HIDDEN"))
		_ = gatewaytest.Server().Run(context.Background(), &mcp.StdioTransport{})
	},
	"legacy": func() { _ = gatewaytest.Server("2025-11-25").Run(context.Background(), &mcp.StdioTransport{}) },
	// script answers by what a request's params say, in raw bytes, so that a test can have a server say anything.
	"script": func() {
		lines := bufio.NewReader(os.Stdin)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			scripted(line)
		}
	},
	"crash": func() { os.Exit(1) },
	"deaf": func() { // it ends by SIGKILL only, and its children do not end by its end
		signal.Ignore(syscall.SIGTERM)
		grandchild := exec.Command(os.Args[0], "serve", "sleeper")
		_ = grandchild.Start()
		fmt.Printf(`{"jsonrpc":"2.0","id":1,"result":{"pid":%d,"child":%d}}`+"\n", os.Getpid(), grandchild.Process.Pid)
		select {}
	},
	"sleeper": func() {
		signal.Ignore(syscall.SIGTERM, syscall.SIGHUP)
		select {}
	},
	"orphan": func() { // its grandchild ends when its parent has, and is nobody's then
		grandchild := exec.Command("/bin/sh", "-c", "read line")
		grandchild.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		r, w, _ := os.Pipe()
		grandchild.Stdin = r
		_ = grandchild.Start()
		fmt.Printf(`{"jsonrpc":"2.0","id":1,"result":{"child":%d}}`+"\n", grandchild.Process.Pid)
		_, _ = bufio.NewReader(os.Stdin).ReadString('x')
		_ = w.Close()
	},
}

// scripted does what the text after "say" tells: @id is the request's id, @token its progress token, and | ends a line.
func scripted(line string) {
	if strings.Contains(line, `"method":"notifications/cancelled"`) {
		fmt.Fprintln(os.Stderr, strings.TrimSpace(line))
		return
	}
	_, say, found := strings.Cut(line, `"say":"`)
	if !found {
		if _, id, ok := strings.Cut(line, `"id":`); ok {
			fmt.Printf(`{"jsonrpc":"2.0","id":%s,"result":%s}`+"\n", id[:strings.IndexAny(id, ",}")], strings.TrimSuffix(line, "\n"))
		}
		return
	}
	say, _, _ = strings.Cut(say, `"`)
	_, id, _ := strings.Cut(line, `"id":`)
	id = id[:strings.IndexAny(id, ",}")]
	_, token, _ := strings.Cut(line, `"progressToken":`)
	if end := strings.IndexAny(token, ",}"); end >= 0 {
		token = token[:end]
	}
	for part := range strings.SplitSeq(say, "|") {
		part = strings.NewReplacer("'", `"`, "@id", id, "@token", token).Replace(part)
		switch part {
		case "exit":
			os.Exit(7)
		case "long":
			part = strings.Repeat("x", 8<<20)
		}
		fmt.Println(part)
	}
}
