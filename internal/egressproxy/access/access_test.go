package access

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestNormalizeHost(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, test := range []struct {
		in, want string
		err      error
	}{
		{in: "api.github.com", want: "api.github.com"},
		{in: "API.GitHub.COM", want: "api.github.com"},
		{in: "api.github.com.", want: "api.github.com"},
		{in: "Bücher.example", want: "xn--bcher-kva.example"},
		{in: "XN--BCHER-KVA.example.", want: "xn--bcher-kva.example"},
		{in: "api。github．com", want: "api.github.com"},
		{in: "apı.example", want: "xn--ap-ipa.example"}, // a dotless i is another name
		{in: "3com.example4you", want: "3com.example4you"},
		{in: "10.0.0.1.nip.io", want: "10.0.0.1.nip.io"}, // a name; where it leads is the guard's
		{in: long + ".example", want: long + ".example"},

		{in: "127.0.0.1", err: ErrAddress},
		{in: "127.0.0.1.", err: ErrAddress},
		{in: "127.1", err: ErrAddress},
		{in: "2130706433", err: ErrAddress},
		{in: "0x7f000001", err: ErrAddress},
		{in: "0X7F.1", err: ErrAddress},
		{in: "0x7f.0x0.0x0.0x1", err: ErrAddress},
		{in: "example.0x", err: ErrAddress},
		{in: "0177.0.0.1", err: ErrAddress},
		{in: "017700000001", err: ErrAddress},
		{in: "１２７.０.０.１", err: ErrAddress}, // full-width digits
		{in: "①②⑦.0.0.1", err: ErrAddress},
		{in: "999.999.999.999", err: ErrAddress},
		{in: "::1", err: ErrAddress},
		{in: "[::1]", err: ErrAddress},
		{in: "[::ffff:127.0.0.1]", err: ErrAddress},
		{in: "fe80::1%eth0", err: ErrAddress},
		{in: "fe80::1%25eth0", err: ErrAddress},
		{in: "api%2egithub.com", err: ErrAddress},

		{in: "", err: ErrHost},
		{in: ".", err: ErrHost},
		{in: "..", err: ErrHost},
		{in: "localhost", err: ErrHost},
		{in: "com.", err: ErrHost},
		{in: "api..github.com", err: ErrHost},
		{in: "api.github.com..", err: ErrHost},
		{in: ".api.github.com", err: ErrHost},
		{in: "*.github.com", err: ErrHost},
		{in: "api_v1.github.com", err: ErrHost},
		{in: "-api.github.com", err: ErrHost},
		{in: "api-.github.com", err: ErrHost},
		{in: "api.github.com\x00.evil.example", err: ErrHost},
		{in: "api.github.com\r\n", err: ErrHost},
		{in: "api.github.com ", err: ErrHost},
		{in: "api.github.com/", err: ErrHost},
		{in: "user@api.github.com", err: ErrHost},
		{in: "api.github.com#", err: ErrHost},
		{in: "xn--a.example", err: ErrHost},   // decodes to nothing that may be in a name
		{in: "xn--999.example", err: ErrHost}, // not punycode
		{in: "a\xffb.example", err: ErrHost},
		{in: "a\u200db.example", err: ErrHost}, // a joiner where none belongs
		{in: long + "a.example", err: ErrHost},
		{in: strings.Repeat("a.", 126) + "ab", err: ErrHost},
		{in: strings.Repeat("ü.", 600) + "example", err: ErrHost},
	} {
		got, err := NormalizeHost(test.in)
		if got != test.want || !errors.Is(err, test.err) || (err == nil) != (test.err == nil) {
			t.Errorf("NormalizeHost(%q) = %q, %v; want %q, %v", test.in, got, err, test.want, test.err)
		}
	}
}

func TestJudge(t *testing.T) {
	policy := mustParse(t, `{"version":1,"servers":[{"name":"a","credentialSHA256":"`+Digest("x")+`","rules":[
		{"host":"api.example.com","ports":[443,8443]},
		{"host":"*.example.com","ports":[443]},
		{"host":"ech.example.com","ports":[443],"encryptedClientHello":"Allow"},
		{"host":"*.deep.example.org","ports":[80],"encryptedClientHello":"Refuse"}]}]}`)
	grants := policy.Grants("a", "x")
	for _, test := range []struct {
		host string
		port uint16
		want Verdict
	}{
		{"api.example.com", 443, Verdict{Host: true, Port: true}},
		{"api.example.com", 8443, Verdict{Host: true, Port: true}},
		{"api.example.com", 80, Verdict{Host: true}},
		{"other.example.com", 443, Verdict{Host: true, Port: true}},
		{"other.example.com", 8443, Verdict{Host: true}},
		{"a.b.c.example.com", 443, Verdict{Host: true, Port: true}},
		{"ech.example.com", 443, Verdict{Host: true, Port: true, ECH: true}},
		{"sub.ech.example.com", 443, Verdict{Host: true, Port: true}},
		{"example.com", 443, Verdict{}},
		{"badexample.com", 443, Verdict{}},
		{"api.example.com.evil.net", 443, Verdict{}},
		{"com", 443, Verdict{}},
		{"deep.example.org", 80, Verdict{}},
		{"x.deep.example.org", 80, Verdict{Host: true, Port: true}},
		{"x.example.org", 80, Verdict{}},
	} {
		if got := grants.Judge(test.host, test.port); got != test.want {
			t.Errorf("%s:%d: %+v, want %+v", test.host, test.port, got, test.want)
		}
	}
}

func TestCredentials(t *testing.T) {
	policy := mustParse(t, `{"version":1,"servers":[
		{"name":"a","credentialSHA256":"`+Digest("of-a")+`","rules":[{"host":"a.example","ports":[443]}]},
		{"name":"b","credentialSHA256":"`+Digest("of-b")+`","rules":[]}]}`)
	for _, test := range []struct {
		server, password string
		want             bool
	}{
		{"a", "of-a", true},
		{"b", "of-b", true},
		{"a", "of-b", false},
		{"b", "of-a", false},
		{"a", "", false},
		{"", "", false},
		{"", "of-a", false},
		{"A", "of-a", false},
		{"a", "of-a ", false},
		{"a", Digest("of-a"), false},
		{"c", "of-a", false},
	} {
		grants := policy.Grants(test.server, test.password)
		if (grants != nil) != test.want {
			t.Errorf("%q with %q: %v, want %v", test.server, test.password, grants != nil, test.want)
		}
		if grants != nil && grants.Server != test.server {
			t.Errorf("%q got the grants of %q", test.server, grants.Server)
		}
	}
}

func TestCurrent(t *testing.T) {
	policy := func(password string) *Policy {
		return mustParse(t, `{"version":1,"servers":[{"name":"a","credentialSHA256":"`+Digest(password)+`","rules":[{"host":"a.example","ports":[443]}]}]}`)
	}
	old := policy("one").Grants("a", "one")
	if policy("one").Current(old) == nil {
		t.Error("the same credential: gone")
	}
	if policy("two").Current(old) != nil {
		t.Error("another credential: still there")
	}
	if mustParse(t, `{"version":1,"servers":[]}`).Current(old) != nil {
		t.Error("no such server: still there")
	}
}

func TestForbids(t *testing.T) {
	policy := mustParse(t, `{"version":1,"denied":["203.0.113.128/25","2a00:1::/32","::ffff:198.51.100.0/120"],"servers":[]}`)
	for addr, want := range map[string]bool{
		"0.0.0.0": true, "0.1.2.3": true, "10.0.0.1": true, "100.64.0.1": true, "100.100.100.200": true, "100.128.0.1": false,
		"127.0.0.1": true, "127.255.255.255": true, "168.63.129.16": true, "169.254.169.254": true, "172.16.0.1": true,
		"172.31.255.255": true, "172.32.0.1": false, "192.0.0.192": true, "192.168.1.1": true, "192.88.99.1": true, "198.18.0.1": true,
		"198.20.0.1": false, "224.0.0.1": true, "239.255.255.255": true, "240.0.0.1": true, "255.255.255.255": true,
		"8.8.8.8": false, "203.0.113.1": false, "203.0.113.200": true, "198.51.100.7": true, "192.0.2.1": false,
		"::": true, "::1": true, "::7f00:1": true, "::ffff:127.0.0.1": true, "::ffff:8.8.8.8": false, "::ffff:203.0.113.200": true,
		"64:ff9b::808:808": true, "64:ff9b:1::1": true, "100::1": true, "2001::1": true, "2001:10::1": true, "2001:20::1": true,
		"2001:200::1": false, "2002:7f00:1::": true, "2001:db8::1": false, "2606:4700::1111": false, "2a00:1::5": true, "3fff::1": false,
		"4000::1": true, "5f00::1": true, "fc00::1": true, "fd00:ec2::254": true, "fe80::1": true, "fec0::1": true, "ff02::1": true,
		"2606:4700::1111%eth0": true,
	} {
		if got := policy.Forbids(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: forbidden %v, want %v", addr, got, want)
		}
	}
	if !policy.Forbids(netip.Addr{}) {
		t.Error("no address: not forbidden")
	}
	for _, prefix := range ForbiddenNets() {
		if !policy.Forbids(prefix.Addr()) {
			t.Errorf("%s is among the forbidden ranges, but not forbidden", prefix)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	digest := Digest("x")
	server := func(rules string) string {
		return `{"version":1,"servers":[{"name":"a","credentialSHA256":"` + digest + `","rules":` + rules + `}]}`
	}
	for name, data := range map[string]string{
		"nothing":                  ``,
		"null":                     `null`,
		"an array":                 `[]`,
		"cut off":                  `{"version":1,"servers":[`,
		"something behind it":      `{"version":1,"servers":[]}{}`,
		"no version":               `{"servers":[]}`,
		"another version":          `{"version":2,"servers":[]}`,
		"an unknown field":         `{"version":1,"servers":[],"allowAll":true}`,
		"a field in another case":  `{"version":1,"Servers":[]}`,
		"a field twice":            `{"version":1,"servers":[],"servers":[]}`,
		"a server twice":           `{"version":1,"servers":[{"name":"a","credentialSHA256":"` + digest + `","rules":[]},{"name":"a","credentialSHA256":"` + digest + `","rules":[]}]}`,
		"a server without a name":  `{"version":1,"servers":[{"credentialSHA256":"` + digest + `","rules":[]}]}`,
		"a name with a colon":      `{"version":1,"servers":[{"name":"a:b","credentialSHA256":"` + digest + `","rules":[]}]}`,
		"a name with a line break": `{"version":1,"servers":[{"name":"a\nb","credentialSHA256":"` + digest + `","rules":[]}]}`,
		"no credential":            `{"version":1,"servers":[{"name":"a","rules":[]}]}`,
		"a short credential":       `{"version":1,"servers":[{"name":"a","credentialSHA256":"abcd","rules":[]}]}`,
		"a credential in capitals": `{"version":1,"servers":[{"name":"a","credentialSHA256":"` + strings.ToUpper(digest) + `","rules":[]}]}`,
		"a bare password":          `{"version":1,"servers":[{"name":"a","credentialSHA256":"` + strings.Repeat("z", 64) + `","rules":[]}]}`,
		"an unknown rule field":    server(`[{"host":"a.example","ports":[443],"cidr":"0.0.0.0/0"}]`),
		"no host":                  server(`[{"ports":[443]}]`),
		"an address":               server(`[{"host":"203.0.113.1","ports":[443]}]`),
		"everything":               server(`[{"host":"*","ports":[443]}]`),
		"a star alone":             server(`[{"host":"*.","ports":[443]}]`),
		"a top-level star":         server(`[{"host":"*.com","ports":[443]}]`),
		"a star within":            server(`[{"host":"a.*.example","ports":[443]}]`),
		"two stars":                server(`[{"host":"*.*.example","ports":[443]}]`),
		"capitals":                 server(`[{"host":"A.example","ports":[443]}]`),
		"a dot at the end":         server(`[{"host":"a.example.","ports":[443]}]`),
		"beyond ASCII":             server(`[{"host":"ü.example","ports":[443]}]`),
		"no ports":                 server(`[{"host":"a.example","ports":[]}]`),
		"port 0":                   server(`[{"host":"a.example","ports":[0]}]`),
		"port 65536":               server(`[{"host":"a.example","ports":[65536]}]`),
		"a port as text":           server(`[{"host":"a.example","ports":["443"]}]`),
		"too many ports":           server(`[{"host":"a.example","ports":[1` + strings.Repeat(",1", maxPorts) + `]}]`),
		"too many rules":           server(`[{"host":"a.example","ports":[1]}` + strings.Repeat(`,{"host":"a.example","ports":[1]}`, maxRules) + `]`),
		"another word for ECH":     server(`[{"host":"a.example","ports":[443],"encryptedClientHello":"allow"}]`),
		"a range with host bits":   `{"version":1,"denied":["10.0.0.1/8"],"servers":[]}`,
		"a range that is none":     `{"version":1,"denied":["example.com"],"servers":[]}`,
		"an empty range":           `{"version":1,"denied":[""],"servers":[]}`,
		"too large":                `{"version":1,"servers":[]}` + strings.Repeat(" ", MaxBytes),
	} {
		t.Run(name, func(t *testing.T) {
			policy, err := Parse([]byte(data))
			if err == nil || policy != nil {
				t.Fatalf("accepted: %.200s", data)
			}
			if strings.Contains(err.Error(), digest) {
				t.Errorf("the error carries a credential: %v", err)
			}
		})
	}
}

func TestEncode(t *testing.T) {
	list := List{
		Version: Version,
		Denied:  []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
		Servers: []Server{{Name: "github", CredentialSHA256: Digest("x"), Rules: []Rule{{Host: "api.github.com", Ports: []int32{443}, EncryptedClientHello: ECHAllow}}}},
	}
	data, err := Encode(list)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"version":1,"denied":["10.96.0.0/16"],"servers":[{"name":"github","credentialSHA256":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","rules":[{"host":"api.github.com","ports":[443],"encryptedClientHello":"Allow"}]}]}`
	if string(data) != want {
		t.Errorf("got  %s\nwant %s", data, want)
	}
	policy := mustParse(t, string(data))
	if policy.Servers() != 1 || !policy.Grants("github", "x").Judge("api.github.com", 443).ECH {
		t.Error("what was written says something else when it is read")
	}
	list.Servers[0].Rules[0].Ports = nil
	if _, err := Encode(list); err == nil {
		t.Error("wrote a list that the proxy would refuse")
	}
}

func mustParse(t testing.TB, data string) *Policy {
	t.Helper()
	policy, err := Parse([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

// FuzzHost: whatever comes in, a normal form is a name in the form that rules are written in, it is
// its own normal form, no resolver could take it for an address, and a rule for it matches it and
// nothing that only looks like it.
func FuzzHost(f *testing.F) {
	for _, seed := range []string{"api.github.com", "API.GitHub.com.", "Bücher.example", "127.1", "0x7f.1", "[::1]", "１２７.０.０.１", "xn--bcher-kva.example", "a..b", "*.a.b",
		"a\x00.b.c", "K.example", "ß.example", "api。github．com", "a\u200db.example", "xn--xn--a.b", "127.0.0.1.nip.io"} {
		f.Add(seed, "*.example")
	}
	f.Fuzz(func(t *testing.T, raw, rule string) {
		host, err := NormalizeHost(raw)
		if err != nil {
			if host != "" || (!errors.Is(err, ErrAddress) && !errors.Is(err, ErrHost)) {
				t.Fatalf("%q: %q, %v", raw, host, err)
			}
			return
		}
		if again, err := NormalizeHost(host); again != host || err != nil {
			t.Fatalf("%q: normal form %q has normal form %q, %v", raw, host, again, err)
		}
		if _, err := netip.ParseAddr(host); err == nil {
			t.Fatalf("%q: %q is an address", raw, host)
		}
		if len(host) > maxHost || strings.ContainsFunc(host, func(r rune) bool {
			return r != '-' && r != '.' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
		}) {
			t.Fatalf("%q: %q is not in normal form", raw, host)
		}
		for _, exact := range []string{host, "*." + host} {
			grants := grantsFor(t, exact)
			if got, want := grants.Judge(host, 443).Port, exact == host; got != want {
				t.Fatalf("rule %s, host %s: %v", exact, host, got)
			}
			if got, want := grants.Judge("sub."+host, 443).Port, exact != host; got != want {
				t.Fatalf("rule %s, host sub.%s: %v", exact, host, got)
			}
			if grants.Judge("x"+host, 443).Host || grants.Judge(host+".x", 443).Host {
				t.Fatalf("rule %s matches names beside %s", exact, host)
			}
		}
		if ValidateHostRule(rule) != nil {
			return
		}
		want := rule == host
		if parent, wild := strings.CutPrefix(rule, "*"); wild {
			want = strings.HasSuffix(host, parent) && len(host) > len(parent)
		}
		if got := grantsFor(t, rule).Judge(host, 443).Port; got != want {
			t.Fatalf("rule %s, host %s: %v, want %v", rule, host, got, want)
		}
	})
}

func grantsFor(t *testing.T, host string) *Grants {
	t.Helper()
	g := &Grants{Server: "a", exact: map[string][]grant{}, below: map[string][]grant{}}
	if err := g.add(&Rule{Host: host, Ports: []int32{443}}); err != nil {
		t.Fatal(err)
	}
	return g
}

// FuzzParse: a list that is accepted is within its bounds, means the same when it is written and
// read again, and never lets anybody in without a password.
func FuzzParse(f *testing.F) {
	digest := Digest("x")
	for _, seed := range []string{
		`{"version":1,"servers":[]}`,
		`{"version":1,"denied":["10.96.0.0/16","fd00::/8"],"servers":[{"name":"a","credentialSHA256":"` + digest + `","rules":[{"host":"*.example.com","ports":[443],"encryptedClientHello":"Allow"},{"host":"a.example.com","ports":[80,443]}]}]}`,
		`{"version":1,"denied":["::ffff:0.0.0.0/96"],"servers":[]}`,
		`{"version":1,"servers":null}`,
		`{"version":1,"servers":[{"name":"a","credentialSHA256":"","rules":[]}]}`,
		`{"version":1e0,"servers":[{}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		policy, err := Parse(data)
		if (policy == nil) != (err != nil) {
			t.Fatalf("%v, %v", policy, err)
		}
		if err != nil {
			return
		}
		if policy.Servers() > maxServers {
			t.Fatalf("%d servers", policy.Servers())
		}
		for _, addr := range []string{"127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "::ffff:10.0.0.1", "fd00:ec2::254", "64:ff9b::a00:1"} {
			if !policy.Forbids(netip.MustParseAddr(addr)) {
				t.Fatalf("%s is not forbidden", addr)
			}
		}
		list := List{Version: Version, Denied: policy.forbidden.Prefixes()}
		for name, g := range policy.servers {
			if name != g.Server || !validServerName(name) {
				t.Fatalf("server %q has the name %q", name, g.Server)
			}
			if policy.Grants(name, "") != nil || policy.Grants(name, name) != nil {
				t.Fatalf("%q gets in without its password", name)
			}
			list.Servers = append(list.Servers, listed(g))
		}
		slices.SortFunc(list.Servers, func(a, b Server) int { return strings.Compare(a.Name, b.Name) })
		first, err := Encode(list)
		if err != nil {
			if len(data) < MaxBytes/8 {
				t.Fatalf("cannot be written: %v", err)
			}
			return
		}
		again, err := Parse(first)
		if err != nil {
			t.Fatalf("cannot be read again: %v", err)
		}
		second, err := Encode(list)
		if err != nil || !bytes.Equal(first, second) {
			t.Fatalf("written twice, it differs: %v", err)
		}
		if !reflect.DeepEqual(again.servers, policy.servers) || !again.forbidden.Equal(policy.forbidden) {
			t.Fatal("read again, it means something else")
		}
	})
}

// listed is the entry of a list that gives these grants.
func listed(g *Grants) Server {
	out := Server{Name: g.Server}
	const digits = "0123456789abcdef"
	for _, b := range g.credential {
		out.CredentialSHA256 += string([]byte{digits[b>>4], digits[b&15]})
	}
	add := func(prefix string, all map[string][]grant) {
		for host, grants := range all {
			for _, one := range grants {
				rule := Rule{Host: prefix + host, Ports: one.ports}
				if one.ech {
					rule.EncryptedClientHello = ECHAllow
				}
				out.Rules = append(out.Rules, rule)
			}
		}
	}
	add("", g.exact)
	add("*.", g.below)
	return out
}
