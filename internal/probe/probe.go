// Package probe holds the proof that the cluster enforces NetworkPolicies: what its parts say to each
// other, and the verdict over it. It is pure: no client, no clock, no network. Package agent runs the parts.
//
// Three controls make a proof, on every node: a pod that nothing restricts reaches the canary; a pod
// that is restricted as a server is does not; the same pod reaches what its NetworkPolicy opens. Without
// the first, the second shows nothing: the canary may be down. Without the third neither: the pod may have
// no network at all.
package probe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

const (
	// AllowedPort of the canary is opened to every server and to the restricted probers. The ports are ones
	// that hardly any egress rule names: one that opens both to all pods would look like no enforcement.
	AllowedPort = 29001
	// DeniedPort of the canary is opened to nobody: who is restricted must not reach it.
	DeniedPort = 29002

	// CanaryName is the name of the canary's Service, and of the ConfigMap in the namespace of every
	// server that says where it is.
	CanaryName = "mcp-warden-canary"
	// AddressesKey is the key of that ConfigMap: the addresses of the canary's Service, separated by commas.
	AddressesKey = "addresses"
	// AddressesEnv is the variable from which the init container takes them.
	AddressesEnv = "MCP_WARDEN_CANARY_ADDRESSES"
	// AddressesPath is the file from which a prober takes them.
	AddressesPath = "/etc/mcp-warden-canary/" + AddressesKey

	// InitContainerName is the name of the init container of every server.
	InitContainerName = "isolation-probe"
	// ProberContainerName is the name of the container of every prober.
	ProberContainerName = "prober"
	// ExitReached is the code with which a prober ends that reached what it must not.
	ExitReached = 3

	// LabelComponent marks the pods of the operator's own components, here and in package plan.
	LabelComponent = "mcpwarden.io/component"
	// ComponentCanary is the value of LabelComponent of the canary's pods.
	ComponentCanary = "canary"
	// ComponentRestricted is that of probers which are restricted as a server is.
	ComponentRestricted = "restricted-prober"
	// ComponentUnrestricted is that of probers which nothing restricts.
	ComponentUnrestricted = "unrestricted-prober"
)

// Greeting is what the canary answers on a port: whatever else accepts a connection is not the canary.
func Greeting(port int) string {
	return "mcp-warden-canary " + strconv.Itoa(port) + "\n"
}

// maxAddresses is how many addresses a Service can have: one of each family.
const maxAddresses = 2

// ParseAddresses reads the addresses of the canary. None is no error.
func ParseAddresses(list string) ([]netip.Addr, error) {
	var out []netip.Addr
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		address, err := netip.ParseAddr(item)
		switch {
		case err != nil:
			return nil, fmt.Errorf("address of the canary: %w", err)
		case address.Zone() != "" || address.Is4In6():
			return nil, fmt.Errorf("address of the canary: %s has a zone, or is an IPv4 address in disguise", address)
		case len(out) == maxAddresses:
			return nil, fmt.Errorf("more than %d addresses of the canary", maxAddresses)
		}
		out = append(out, address)
	}
	return out, nil
}

// FormatAddresses is what ParseAddresses reads.
func FormatAddresses(addresses []netip.Addr) string {
	out := make([]string, len(addresses))
	for i, address := range addresses {
		out[i] = address.String()
	}
	return strings.Join(out, ",")
}

// Result of a probe.
type Result string

const (
	// Proven means that what is opened was reached, and what is not was not.
	Proven Result = "Proven"
	// NotEnforced means that what is not opened was reached.
	NotEnforced Result = "NotEnforced"
	// Unknown means that a control failed, so that nothing is shown.
	Unknown Result = "Unknown"
)

// Finding is what the init container of a server leaves behind as its termination message.
type Finding struct {
	Result Result `json:"result"`
	// Addresses that were probed, as in the ConfigMap.
	Addresses string `json:"addresses"`
	// Detail says what was reached and what was not.
	Detail string `json:"detail"`
}

// maxFinding is how much the kubelet keeps of a termination message, in bytes.
const maxFinding = 4096

// ParseFinding reads a termination message.
func ParseFinding(message string) (Finding, error) {
	var out Finding
	if len(message) > maxFinding {
		return out, fmt.Errorf("finding of %d bytes: at most %d", len(message), maxFinding)
	}
	decoder := json.NewDecoder(bytes.NewReader([]byte(message)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&out); err != nil {
		return Finding{}, fmt.Errorf("decode finding: %w", err)
	}
	if decoder.More() {
		return Finding{}, fmt.Errorf("decode finding: more than one value")
	}
	switch out.Result {
	case Proven, NotEnforced, Unknown:
		return out, nil
	}
	return Finding{}, fmt.Errorf("decode finding: no such result")
}

// Attempt is what came of connecting to a port of the canary.
type Attempt string

const (
	// Reached means that the canary answered.
	Reached Attempt = "reached"
	// Blocked means that no connection came about.
	Blocked Attempt = "not reached"
	// Odd means that something answered that is not the canary, or the attempt could not be made.
	Odd Attempt = "unclear"
)

// Pair is what came of both ports of one address, from a restricted pod.
type Pair struct {
	Address         netip.Addr
	Allowed, Denied Attempt
}

// Judge weighs the attempts of a restricted pod. A port that is closed and was reached is told whatever
// else is unclear; a proof needs both controls for every address.
func Judge(pairs []Pair) (Result, string) {
	if len(pairs) == 0 {
		return Unknown, "the address of the canary is not known"
	}
	result, details := Proven, make([]string, 0, len(pairs))
	for _, p := range pairs {
		details = append(details, fmt.Sprintf("%s %s, %s %s",
			netip.AddrPortFrom(p.Address, AllowedPort), p.Allowed, netip.AddrPortFrom(p.Address, DeniedPort), p.Denied))
		switch {
		case p.Denied == Reached:
			result = NotEnforced
		case result == Proven && (p.Denied != Blocked || p.Allowed != Reached):
			result = Unknown
		}
	}
	return result, strings.Join(details, "; ")
}
