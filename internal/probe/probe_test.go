package probe

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseAddresses(t *testing.T) {
	for list, want := range map[string]string{
		"":                      "",
		" ":                     "",
		"10.96.0.9":             "10.96.0.9",
		"10.96.0.9,fd00::9":     "10.96.0.9,fd00::9",
		" 10.96.0.9 , fd00::9,": "10.96.0.9,fd00::9",
	} {
		got, err := ParseAddresses(list)
		if err != nil || FormatAddresses(got) != want {
			t.Errorf("%q: %v, %v; want %s", list, got, err, want)
		}
	}
	for _, list := range []string{"canary", "10.96.0.9:80", "10.96.0.0/16", "fe80::1%eth0", "::ffff:10.96.0.9", "10.96.0.1,10.96.0.2,10.96.0.3", "None"} {
		if got, err := ParseAddresses(list); err == nil {
			t.Errorf("%q was read as %v", list, got)
		}
	}
}

func TestJudge(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.96.0.9"), netip.MustParseAddr("fd00::9")
	for name, tc := range map[string]struct {
		pairs []Pair
		want  Result
	}{
		"no address":                         {nil, Unknown},
		"all as it must be":                  {[]Pair{{v4, Reached, Blocked}}, Proven},
		"both families":                      {[]Pair{{v4, Reached, Blocked}, {v6, Reached, Blocked}}, Proven},
		"the canary is down":                 {[]Pair{{v4, Blocked, Blocked}}, Unknown},
		"another answers on the open port":   {[]Pair{{v4, Odd, Blocked}}, Unknown},
		"another answers on the closed port": {[]Pair{{v4, Reached, Odd}}, Unknown},
		"nothing is enforced":                {[]Pair{{v4, Reached, Reached}}, NotEnforced},
		"the closed port alone answers":      {[]Pair{{v4, Blocked, Reached}}, NotEnforced},
		"IPv6 is not enforced":               {[]Pair{{v4, Reached, Blocked}, {v6, Reached, Reached}}, NotEnforced},
		"IPv6 is open, IPv4 unclear":         {[]Pair{{v4, Blocked, Blocked}, {v6, Reached, Reached}}, NotEnforced},
		"IPv6 open first, IPv4 unclear":      {[]Pair{{v6, Reached, Reached}, {v4, Blocked, Blocked}}, NotEnforced},
		"IPv6 is unclear":                    {[]Pair{{v4, Reached, Blocked}, {v6, Blocked, Blocked}}, Unknown},
	} {
		if got, detail := Judge(tc.pairs); got != tc.want {
			t.Errorf("%s: %s (%s), want %s", name, got, detail, tc.want)
		}
	}
}

func TestParseFinding(t *testing.T) {
	good := `{"result":"Proven","addresses":"10.96.0.9","detail":"x"}`
	if got, err := ParseFinding(good); err != nil || got != (Finding{Proven, "10.96.0.9", "x"}) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, message := range []string{"", "Proven", "{}", `{"result":"proven"}`, `{"result":"Proven","more":1}`, good + good, good + "x",
		`{"result":"Proven","detail":"` + strings.Repeat("x", 4096) + `"}`} {
		if got, err := ParseFinding(message); err == nil {
			t.Errorf("%.40q was read as %+v", message, got)
		}
	}
}

func FuzzParseFinding(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"result":"Proven","addresses":"10.96.0.9","detail":"x"}`, `{"result":"Unknown"} `, "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, message string) {
		finding, err := ParseFinding(message)
		if (err != nil) != (finding == Finding{}) {
			t.Errorf("%q: %+v with error %v", message, finding, err)
		}
	})
}
