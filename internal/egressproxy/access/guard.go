package access

import (
	"net/netip"

	"go4.org/netipx"
)

// never are the ranges that a name may not lead to. Of IPv6, only what the registries hand out as
// global unicast (2000::/3) is left: all else is unspecified, loopback, IPv4 in one of its disguises
// (mapped, compatible, NAT64), unique local, link-local, multicast or reserved. The ranges for documentation
// stay: nobody routes them, and test networks use them as their internet.
var never = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),        // this host
	netip.MustParsePrefix("10.0.0.0/8"),       // private
	netip.MustParsePrefix("100.64.0.0/10"),    // carrier-grade NAT; Alibaba Cloud's metadata
	netip.MustParsePrefix("127.0.0.0/8"),      // loopback
	netip.MustParsePrefix("168.63.129.16/32"), // Azure's metadata
	netip.MustParsePrefix("169.254.0.0/16"),   // link-local; the metadata of most clouds
	netip.MustParsePrefix("172.16.0.0/12"),    // private
	netip.MustParsePrefix("192.0.0.0/24"),     // protocol assignments; Oracle Cloud's metadata
	netip.MustParsePrefix("192.88.99.0/24"),   // 6to4 relays
	netip.MustParsePrefix("192.168.0.0/16"),   // private
	netip.MustParsePrefix("198.18.0.0/15"),    // benchmarks of networks
	netip.MustParsePrefix("224.0.0.0/4"),      // multicast
	netip.MustParsePrefix("240.0.0.0/4"),      // reserved, broadcast
	netip.MustParsePrefix("::/3"),             // unspecified, loopback, mapped, compatible, NAT64, discard
	netip.MustParsePrefix("2001::/23"),        // protocol assignments: Teredo, ORCHID, benchmarks
	netip.MustParsePrefix("2002::/16"),        // 6to4
	netip.MustParsePrefix("4000::/2"),         // unassigned; segment routing
	netip.MustParsePrefix("8000::/1"),         // unassigned, unique local, link-local, site-local, multicast
}

// ForbiddenNets are the ranges that the proxy never connects to, as few as can be, for a NetworkPolicy
// that says the same.
func ForbiddenNets() []netip.Prefix { return forbidden(nil).Prefixes() }

func forbidden(denied []netip.Prefix) *netipx.IPSet {
	var b netipx.IPSetBuilder
	for _, prefix := range never {
		b.AddPrefix(prefix)
	}
	for _, prefix := range denied {
		b.AddPrefix(unmapped(prefix))
	}
	set, _ := b.IPSet() // valid prefixes cannot fail
	return set
}

// unmapped is a range of IPv4-mapped addresses as what it is in a packet: a range of IPv4.
func unmapped(net netip.Prefix) netip.Prefix {
	const mapped = 96 // bits before the IPv4 address
	if net.Addr().Is4In6() && net.Bits() >= mapped {
		return netip.PrefixFrom(net.Addr().Unmap(), net.Bits()-mapped)
	}
	return net
}
