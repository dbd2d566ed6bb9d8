package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The addresses are of a range for documentation: they are nobody's, and our proxy goes there.
const (
	originAddr = "203.0.113.1"
	proxyAddr  = "203.0.113.2"
	originName = "origin.example.com"
)

// network is two namespaces with a cable between them.
type network struct{ clients, proxies string }

func newNetwork() *network {
	return &network{clients: fmt.Sprintf("bench-c%d", os.Getpid()), proxies: fmt.Sprintf("bench-p%d", os.Getpid())}
}

func (n *network) create(ctx context.Context) error {
	// ip netns exec puts these files in the place of those in /etc.
	etc := filepath.Join("/etc/netns", n.proxies)
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{"hosts": originAddr + " " + originName + "\n127.0.0.1 localhost\n", "resolv.conf": "nameserver 127.0.0.1\n"} {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	a, b := n.clients, n.proxies
	for _, line := range []string{
		"ip netns add " + a,
		"ip netns add " + b,
		"ip -n " + a + " link add bench0 type veth peer name bench0 netns " + b,
		"ip -n " + a + " addr add " + originAddr + "/24 dev bench0",
		"ip -n " + b + " addr add " + proxyAddr + "/24 dev bench0",
		"ip -n " + a + " link set lo up",
		"ip -n " + b + " link set lo up",
		"ip -n " + a + " link set bench0 up",
		"ip -n " + b + " link set bench0 up",
		"ip netns exec " + a + " sysctl -q net.ipv4.ip_local_port_range=10000\\ 65535 net.ipv4.tcp_tw_reuse=1 net.core.somaxconn=4096",
		"ip netns exec " + b + " sysctl -q net.ipv4.ip_local_port_range=10000\\ 65535 net.ipv4.tcp_tw_reuse=1 net.core.somaxconn=4096",
	} {
		fields := strings.Fields(strings.ReplaceAll(line, "\\ ", "\x00"))
		for i := range fields {
			fields[i] = strings.ReplaceAll(fields[i], "\x00", " ")
		}
		if err := run(exec.CommandContext(ctx, fields[0], fields[1:]...)); err != nil {
			return err
		}
	}
	return nil
}

func (n *network) in(ctx context.Context, namespace string, command ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", namespace}, command...)...)
}

// remove takes down whatever create made.
func (n *network) remove() {
	for _, name := range []string{n.clients, n.proxies} {
		_ = exec.Command("ip", "netns", "del", name).Run()
	}
	_ = os.RemoveAll(filepath.Join("/etc/netns", n.proxies))
}
