//go:build linux

package node

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/cluster"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/internet"
)

const internetGateway = "172.30.0.1"

// SetUpNetwork gives this namespace an uplink to a new one that plays the
// internet, which it returns. There is no way from either to the host.
func SetUpNetwork() (*os.File, error) {
	outside, err := newNetNS(internetNetNS)
	if err != nil {
		return nil, err
	}
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: cluster.Uplink, MTU: 1500},
		PeerName:      cluster.Uplink,
		PeerNamespace: netlink.NsFd(outside.Fd()),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("make uplink: %w", err)
	}
	if err := configure([]string{"127.0.0.1/8"}, cluster.NodeAddress+"/24", defaultRoute, internetGateway); err != nil {
		return nil, fmt.Errorf("set up the node's network: %w", err)
	}
	loopback := []string{"127.0.0.1/8"}
	for _, a := range internet.Addresses() {
		loopback = append(loopback, a+"/32")
	}
	err = Inside(outside, func() error {
		// The way back to pods: their addresses are not translated, so that the
		// internet sees who calls.
		return configure(loopback, internetGateway+"/24", cluster.PodCIDR, cluster.NodeAddress)
	})
	if err != nil {
		return nil, fmt.Errorf("set up the internet's network: %w", err)
	}
	return outside, nil
}

const defaultRoute = "0.0.0.0/0"

// configure brings up loopback and uplink of this thread's namespace.
func configure(loopback []string, uplink, destination, gateway string) error {
	if err := addAddresses("lo", loopback...); err != nil {
		return err
	}
	if err := addAddresses(cluster.Uplink, uplink); err != nil {
		return err
	}
	_, dst, err := net.ParseCIDR(destination)
	if err != nil {
		return err
	}
	if err := netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(gateway)}); err != nil {
		return fmt.Errorf("route to %s: %w", destination, err)
	}
	// /proc/sys shows the namespace of whoever opens it.
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
}

func addAddresses(name string, addresses ...string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	for _, a := range addresses {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, addr); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add %s to %s: %w", a, name, err)
		}
	}
	return nil
}
