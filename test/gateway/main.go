// Gateway runs real servers and real clients, directly and through the gateway, and looks at every byte that they exchange:
//
//   - what a client's user sees is the same with and without the gateway;
//   - what client and gateway say to each other is what gateway and server say to each other, byte for byte, in the same run: nothing is
//     left out of it but what the protocols make the gateway own (see owned, ids, acrossStdio);
//   - what the server answers is the same with and without the gateway, apart from session ids, and from what the server itself says
//     differently each time (see noise).
//
// With -pods the gateways are those of pods, so that what goes on between gateway and server is not seen, and the first and the last are compared.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
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
	pods := flag.String("pods", "", "A file with servers that run in pods: lines with a name, a tabulator, and the address at which their gateway is reached.")
	flag.Parse()
	if err := run(*bin, *gateway, *only, *pods); err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1)
	}
}

// run runs every client against every server, and prints a line for each.
func run(bin, gateway, only, pods string) error {
	pattern, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	folder, err := os.MkdirTemp("", "gateway-real")
	if err != nil {
		return fmt.Errorf("temporary folder: %w", err)
	}
	defer os.RemoveAll(folder)
	all := endpoints(bin, folder)
	if pods != "" {
		if all, err = inPods(bin, pods); err != nil {
			return err
		}
	}
	failed, cases := 0, 0
	for _, e := range all {
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
	var c comparison
	switch {
	case t.endpoint.http:
		c = compareHTTP(directly, through, noise, t.endpoint.pod != "")
	case t.endpoint.pod != "":
		c = compareInPod(directly, through, noise)
	default:
		c = compareStdio(directly, through, noise)
	}
	if c.refused { // what a server on stdio says to a revision that it does not know
		unknown := func(m []byte) bool { return bytes.Contains(m, []byte(`"error":{"code":-32601`)) }
		c.direct, c.proxied = slices.DeleteFunc(c.direct, unknown), slices.DeleteFunc(c.proxied, unknown)
	}
	if c.refused && len(c.proxied) == 0 {
		return c.problems, c.summary // nothing else was said
	}
	if one, two := quiet(directly.seen, noise), quiet(through.seen, noise); one != two {
		c.problems = append(c.problems, "the client's user sees something else: "+firstDifference(one, two))
	}
	if len(c.proxied) == 0 {
		c.problems = append(c.problems, "nothing was exchanged")
	}
	only1, only2 := difference(c.direct, c.proxied)
	return append(append(c.problems, each("only directly", only1)...), each("only through the gateway", only2)...), c.summary
}

// comparison is what two runs have in common, or not.
type comparison struct {
	problems        []string
	summary         string
	direct, proxied [][]byte // what the server answered
	refused         bool     // the gateway has told the client what the server, on stdio, does not
}

func compareHTTP(directly, through *outcome, noise []*regexp.Regexp, inPod bool) (c comparison) {
	if !inPod {
		c.problems = across(through.near, through.far)
	}
	c.summary = fmt.Sprintf("%d exchanges, %d tools", len(through.near), toolsIn(fromServer(through.near)))
	c.direct, c.proxied = answers(directly.near, noise), answers(through.near, noise)
	return c
}

func compareStdio(directly, through *outcome, noise []*regexp.Regexp) (c comparison) {
	var notes map[string]int
	c.problems, notes = acrossStdio(through.near, through.processes)
	said := out(through.processes)
	c.summary = fmt.Sprintf("%d messages, %d tools", len(said), toolsIn(said))
	for _, note := range slices.Sorted(maps.Keys(notes)) {
		c.summary += fmt.Sprintf("; %d: %s", notes[note], note)
	}
	c.direct, c.proxied = unique(responses(out(directly.processes), noise)), unique(responses(said, noise))
	c.refused = notes[notSpoken] > 0
	return c
}

// compareInPod knows what a server on stdio has said by what the gateway passes on.
func compareInPod(directly, through *outcome, noise []*regexp.Regexp) (c comparison) {
	said := slices.DeleteFunc(fromServer(through.near), func(m []byte) bool {
		ours := string(find(m, "error", "code").value) == unsupported
		c.refused = c.refused || ours
		return ours
	})
	c.summary = fmt.Sprintf("%d messages, %d tools", len(said), toolsIn(said))
	c.direct, c.proxied = unique(responses(out(directly.processes), noise)), unique(responses(said, noise))
	return c
}

// fromServer are the messages that came back in exchanges.
func fromServer(all []exchange) (messages [][]byte) {
	for i := range all {
		_, server := all[i].messages()
		messages = append(messages, server...)
	}
	return messages
}

// out is what processes have said.
func out(all []process) (lines [][]byte) {
	for _, p := range all {
		lines = append(lines, p.out...)
	}
	return lines
}

// unique leaves out what is there twice: over HTTP a client may ask again what on stdio it asks once.
func unique(all [][]byte) [][]byte {
	slices.SortFunc(all, bytes.Compare)
	return slices.CompactFunc(all, bytes.Equal)
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
	if t.endpoint.pod != "" {
		return t.inPod(ctx)
	}
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

// inPod runs it with the one in a pod.
func (t *trial) inPod(ctx context.Context) (*outcome, error) {
	near, err := newTap(t.endpoint.pod)
	if err != nil {
		return nil, err
	}
	seen, err := t.client.run(ctx, target{url: "http://" + near.addr() + "/mcp"}, t.endpoint)
	if err != nil {
		return nil, err
	}
	return &outcome{seen: strings.ReplaceAll(seen, near.addr(), address), near: near.stop()}, nil
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
