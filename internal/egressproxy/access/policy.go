package access

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
)

// Policy is an access list that is ready to be asked. It never changes.
type Policy struct {
	servers   map[string]*Grants
	forbidden *netipx.IPSet
}

// Servers is how many servers the list has.
func (p *Policy) Servers() int { return len(p.servers) }

// Has tells whether the list has a server.
func (p *Policy) Has(server string) bool { return p.servers[server] != nil }

// Grants of the server that shows this name and password; nil where there is no such server or the
// password is not its own. It takes as long for either.
func (p *Policy) Grants(server, password string) *Grants {
	var nobody Grants
	grants, known := p.servers[server]
	if !known {
		grants = &nobody
	}
	sum := sha256.Sum256([]byte(password))
	if subtle.ConstantTimeCompare(sum[:], grants.credential[:]) != 1 || !known {
		return nil
	}
	return grants
}

// Current is what the list now grants to the server that older grants belong to; nil where it is gone
// or has got another credential.
func (p *Policy) Current(old *Grants) *Grants {
	grants := p.servers[old.Server]
	if grants == nil || grants.credential != old.credential {
		return nil
	}
	return grants
}

// Forbids holds for an address that no connection may go to, whoever asks. An IPv4 address that is
// written as an IPv6 one counts as what it is.
func (p *Policy) Forbids(addr netip.Addr) bool {
	return !addr.IsValid() || addr.Zone() != "" || p.forbidden.Contains(addr.Unmap())
}

// Grants are what one server may reach.
type Grants struct {
	// Server is its name.
	Server     string
	credential [sha256.Size]byte
	exact      map[string][]grant // by host
	below      map[string][]grant // by the name that "*." stands before
}

type grant struct {
	ports []int32
	ech   bool
}

func (g *Grants) add(rule *Rule) error {
	if err := ValidateHostRule(rule.Host); err != nil {
		return fmt.Errorf("host: %w", err)
	}
	if len(rule.Ports) == 0 || len(rule.Ports) > maxPorts {
		return fmt.Errorf("%d ports: must be 1 to %d", len(rule.Ports), maxPorts)
	}
	for _, port := range rule.Ports {
		if port < 1 || port > 65535 {
			return fmt.Errorf("port %d: must be 1 to 65535", port)
		}
	}
	one := grant{ports: slices.Clone(rule.Ports)}
	switch rule.EncryptedClientHello {
	case "", ECHRefuse:
	case ECHAllow:
		one.ech = true
	default:
		return fmt.Errorf("encryptedClientHello %.32q: must be %s or %s", rule.EncryptedClientHello, ECHRefuse, ECHAllow)
	}
	if parent, wild := strings.CutPrefix(rule.Host, "*."); wild {
		g.below[parent] = append(g.below[parent], one)
	} else {
		g.exact[rule.Host] = append(g.exact[rule.Host], one)
	}
	return nil
}

// Verdict is what the rules of a server say about a host and a port.
type Verdict struct {
	// Host holds where a rule names the host, and Port where such a rule names the port too: only then
	// may the server go there.
	Host, Port bool
	// ECH holds where such a rule allows an encrypted client hello.
	ECH bool
}

// Judge a host in its normal form and a port.
func (g *Grants) Judge(host string, port uint16) Verdict {
	var v Verdict
	v.add(g.exact[host], port)
	for rest := host; ; {
		_, parent, more := strings.Cut(rest, ".")
		if !more {
			return v
		}
		v.add(g.below[parent], port)
		rest = parent
	}
}

func (v *Verdict) add(grants []grant, port uint16) {
	for i := range grants {
		v.Host = true
		if slices.Contains(grants[i].ports, int32(port)) {
			v.Port = true
			v.ECH = v.ECH || grants[i].ech
		}
	}
}
