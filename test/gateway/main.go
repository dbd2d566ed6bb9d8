// Gateway runs real servers and real clients, directly and through the gateway, and looks at every byte that they exchange:
//
//   - what a client's user sees is the same with and without the gateway;
//   - what client and gateway say to each other is what gateway and server say to each other, byte for byte, in the same run: nothing is
//     left out of it but what the protocols make the gateway own (see owned, ids, acrossStdio);
//   - what the server answers is the same with and without the gateway, apart from session ids, and from what the server itself says
//     differently each time (see noise).
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "tee" {
		if err := tee(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	bin := flag.String("bin", "", "Folder with the servers and clients.")
	gateway := flag.String("gateway", "", "The gateway's binary.")
	only := flag.String("only", "", `Regular expression for the cases to run, as "server: client".`)
	flag.Parse()
	if err := run(*bin, *gateway, *only); err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1)
	}
}

// run runs every client against every server, and prints a line for each.
func run(bin, gateway, only string) error {
	pattern, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	folder, err := os.MkdirTemp("", "gateway-real")
	if err != nil {
		return fmt.Errorf("temporary folder: %w", err)
	}
	defer os.RemoveAll(folder)
	failed, cases := 0, 0
	for _, e := range endpoints(bin, folder) {
		fmt.Println(e.name)
		for _, c := range clients(bin) {
			if !pattern.MatchString(e.name + ": " + c.name) {
				continue
			}
			cases++
			trial := &trial{endpoint: e, client: c, gateway: gateway, folder: folder}
			problems, summary := trial.run()
			result := "same"
			if len(problems) > 0 {
				result = "DIFFERENT"
				failed++
			}
			fmt.Printf("  %-20s %-10s %s\n", c.name, result, summary)
			for _, p := range problems {
				fmt.Println("    " + strings.ReplaceAll(p, "\n", "\n    "))
			}
		}
	}
	fmt.Printf("%d of %d combinations are the same with and without the gateway\n", cases-failed, cases)
	if failed > 0 || cases == 0 {
		return errors.New("the gateway is in the way, or there was nothing to compare")
	}
	return nil
}

// trial is one client with one server.
type trial struct {
	endpoint *endpoint
	client   client
	gateway  string
	folder   string
}

// outcome of a client's run: what its user saw, and what was exchanged where.
type outcome struct {
	seen      string
	near, far []exchange // with the gateway between them; near alone where there is none
	processes []process
}

// run returns what is different, and how much was compared.
func (t *trial) run() (problems []string, summary string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	directly, err := t.directly(ctx)
	if err != nil {
		return []string{"directly: " + err.Error()}, ""
	}
	through, err := t.through(ctx)
	if err != nil {
		return []string{"through the gateway: " + err.Error()}, ""
	}
	noise := t.endpoint.noise
	if !t.endpoint.http {
		noise = append(slices.Clone(noise), ofHTTP)
	}
	var one, two [][]byte
	refused := false // the gateway has told the client what the server, on stdio, does not
	if t.endpoint.http {
		problems = append(problems, across(through.near, through.far)...)
		var messages [][]byte
		for i := range through.near {
			_, server := through.near[i].messages()
			messages = append(messages, server...)
		}
		summary = fmt.Sprintf("%d exchanges, %d tools", len(through.near), toolsIn(messages))
		one, two = answers(directly.near, noise), answers(through.near, noise)
	} else {
		more, notes := acrossStdio(through.near, through.processes)
		problems = append(problems, more...)
		var direct, proxied [][]byte
		for _, p := range directly.processes {
			direct = append(direct, p.out...)
		}
		for _, p := range through.processes {
			proxied = append(proxied, p.out...)
		}
		summary = fmt.Sprintf("%d messages, %d tools", len(proxied), toolsIn(proxied))
		for _, note := range slices.Sorted(mapKeys(notes)) {
			summary += fmt.Sprintf("; %d: %s", notes[note], note)
		}
		one, two = unique(responses(direct, noise)), unique(responses(proxied, noise))
		if refused = notes[notSpoken] > 0; refused {
			one = slices.DeleteFunc(one, func(m []byte) bool { return bytes.Contains(m, []byte(`"error":{"code":-32601`)) })
			two = slices.DeleteFunc(two, func(m []byte) bool { return bytes.Contains(m, []byte(`"error":{"code":-32601`)) })
		}
	}
	if refused && len(through.processes) == 0 {
		return problems, summary // nothing else was said
	}
	if one, two := quiet(directly.seen, noise), quiet(through.seen, noise); one != two {
		problems = append(problems, "the client's user sees something else: "+firstDifference(one, two))
	}
	if len(two) == 0 {
		problems = append(problems, "nothing was exchanged")
	}
	only1, only2 := difference(one, two)
	return append(append(problems, each("only directly", only1)...), each("only through the gateway", only2)...), summary
}

// unique leaves out what is there twice: over HTTP a client may ask again what on stdio it asks once.
func unique(all [][]byte) [][]byte {
	slices.SortFunc(all, bytes.Compare)
	return slices.CompactFunc(all, bytes.Equal)
}

func mapKeys(m map[string]int) func(func(string) bool) {
	return func(yield func(string) bool) {
		for key := range m {
			if !yield(key) {
				return
			}
		}
	}
}

// firstDifference is the surroundings of the first byte that is not the same.
func firstDifference(one, two string) string {
	const around = 300
	at := 0
	for at < len(one) && at < len(two) && one[at] == two[at] {
		at++
	}
	cut := func(s string) string { return s[max(0, min(at, len(s))-around):min(len(s), at+around)] }
	return fmt.Sprintf("\n--- directly\n%s\n--- through the gateway\n%s", cut(one), cut(two))
}

// directly runs the client without a gateway.
func (t *trial) directly(ctx context.Context) (*outcome, error) {
	if err := t.endpoint.clean(); err != nil {
		return nil, err
	}
	if !t.endpoint.http {
		return t.onStdio(ctx, func(command []string) (string, error) {
			return t.client.run(ctx, target{command: command}, t.endpoint)
		})
	}
	server, at, err := t.serve()
	if err != nil {
		return nil, err
	}
	defer server.end()
	near, err := newTap(at)
	if err != nil {
		return nil, err
	}
	seen, err := t.client.run(ctx, target{url: "http://" + near.addr() + "/mcp"}, t.endpoint)
	out := &outcome{seen: strings.ReplaceAll(seen, near.addr(), address)}
	if err != nil {
		return nil, err
	}
	out.near = near.stop()
	return out, nil
}

// through runs it with one.
func (t *trial) through(ctx context.Context) (*outcome, error) {
	if err := t.endpoint.clean(); err != nil {
		return nil, err
	}
	if !t.endpoint.http {
		var near []exchange
		out, err := t.onStdio(ctx, func(command []string) (string, error) {
			seen, exchanges, err := t.behind(ctx, append([]string{"-transport=stdio", "--"}, command...)...)
			near = exchanges
			return seen, err
		})
		if err == nil {
			out.near = near
		}
		return out, err
	}
	server, at, err := t.serve()
	if err != nil {
		return nil, err
	}
	defer server.end()
	far, err := newTap(at)
	if err != nil {
		return nil, err
	}
	out := new(outcome)
	if out.seen, out.near, err = t.behind(ctx, "-upstream=http://"+far.addr()+"/mcp"); err != nil {
		return nil, err
	}
	out.far = far.stop()
	return out, nil
}

// behind runs the client through a gateway, with a tap between them.
func (t *trial) behind(ctx context.Context, args ...string) (seen string, exchanges []exchange, err error) {
	listen, err1 := free()
	admin, err2 := free()
	if err := errors.Join(err1, err2); err != nil {
		return "", nil, err
	}
	// One handshake, before the client comes.
	args = append([]string{"-listen=" + listen, "-admin-listen=" + admin, "-handshake-interval=1h", "-answer-timeout=20s"}, args...)
	gateway, err := start(t.endpoint.env, append([]string{t.gateway}, args...))
	if err != nil {
		return "", nil, err
	}
	defer gateway.end()
	if err := until(func() bool { return get("http://" + admin + "/readyz") }); err != nil {
		return "", nil, fmt.Errorf("the gateway does not become ready: %w", err)
	}
	near, err := newTap(listen)
	if err != nil {
		return "", nil, err
	}
	seen, err = t.client.run(ctx, target{url: "http://" + near.addr() + "/mcp"}, t.endpoint)
	if err != nil {
		return "", nil, err
	}
	return strings.ReplaceAll(seen, near.addr(), address), near.stop(), nil
}

// onStdio has the server's processes noted while something talks to it.
func (t *trial) onStdio(_ context.Context, talk func(command []string) (string, error)) (*outcome, error) {
	notes, err := os.MkdirTemp(t.folder, "tee")
	if err != nil {
		return nil, fmt.Errorf("notes: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("tee: %w", err)
	}
	seen, err := talk(append([]string{self, "tee", notes}, t.endpoint.command...))
	if err != nil {
		return nil, err
	}
	processes, err := readTees(notes)
	// Clients say what command they have started.
	return &outcome{seen: strings.ReplaceAll(seen, notes, "NOTES"), processes: processes}, err
}

// serve starts a server on HTTP.
func (t *trial) serve() (*running, string, error) {
	at, err := free()
	if t.endpoint.port != "" {
		at, err = "127.0.0.1:"+t.endpoint.port, nil
	}
	if err != nil {
		return nil, "", err
	}
	_, number, _ := net.SplitHostPort(at)
	replace := strings.NewReplacer(address, at, port, number)
	var command, env []string
	for _, arg := range t.endpoint.command {
		command = append(command, replace.Replace(arg))
	}
	for _, variable := range t.endpoint.env {
		name, value, _ := strings.Cut(variable, "=")
		env = append(env, name+"="+replace.Replace(value))
	}
	server, err := start(env, command)
	if err != nil {
		return nil, "", err
	}
	if err := until(func() bool {
		conn, err := net.Dial("tcp", at)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}); err != nil {
		server.end()
		return nil, "", fmt.Errorf("the server does not listen: %w", err)
	}
	return server, at, nil
}

// running is a process that was started here.
type running struct {
	cmd  *exec.Cmd
	over chan struct{}
}

func start(env, command []string) (*running, error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(command[0]), err)
	}
	r := &running{cmd, make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(r.over)
	}()
	return r, nil
}

// end asks a process to end, and makes it.
func (r *running) end() {
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.over:
	case <-time.After(15 * time.Second):
		_ = r.cmd.Process.Kill()
		<-r.over
	}
}

func free() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

func until(done func() bool) error {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if done() {
			return nil
		}
	}
	return errors.New("30 seconds have passed")
}

func get(url string) bool {
	response, err := http.Get(url)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}
