package message

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for name, test := range map[string]struct {
		in   string
		want Message
	}{
		"request": {
			in:   ` {"extra":{"a":[1,{"a":2}]},"id":123456789012345678901234567890,"method":"tools/call","jsonrpc":"2.0","params":{"arguments":{"Name":"x"},"name":"fetch"}}` + "\n",
			want: Message{Kind: Request, ID: []byte("123456789012345678901234567890"), Method: "tools/call", Params: Params{Raw: []byte(`{"arguments":{"Name":"x"},"name":"fetch"}`), Name: []byte(`"fetch"`), Arguments: []byte(`{"Name":"x"}`)}},
		},
		"escaped": {
			in:   `{"jsonrpc":"2.0","id":"\u0061","\u006dethod":"tools\/list"}`,
			want: Message{Kind: Request, ID: []byte(`"\u0061"`), Method: "tools/list"},
		},
		"modern": {
			in: `{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///x","_meta":{"progressToken":"p","io.modelcontextprotocol/protocolVersion":"2026-07-28","traceparent":"00-x"}}}`,
			want: Message{Kind: Request, ID: []byte("1"), Method: "resources/read", Params: Params{
				Raw: []byte(`{"uri":"file:///x","_meta":{"progressToken":"p","io.modelcontextprotocol/protocolVersion":"2026-07-28","traceparent":"00-x"}}`),
				URI: []byte(`"file:///x"`),
				Meta: Meta{
					Raw:             []byte(`{"progressToken":"p","io.modelcontextprotocol/protocolVersion":"2026-07-28","traceparent":"00-x"}`),
					ProtocolVersion: []byte(`"2026-07-28"`), ProgressToken: []byte(`"p"`), Traceparent: []byte(`"00-x"`),
				},
			}},
		},
		"notification": {
			in:   `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}`,
			want: Message{Kind: Notification, Method: "notifications/cancelled", Params: Params{Raw: []byte(`{"requestId":7}`), RequestID: []byte("7")}},
		},
		"result": {
			in:   `{"jsonrpc":"2.0","id":-1,"result":{"isError":true,"content":["\ud800"]}}`,
			want: Message{Kind: Response, ID: []byte("-1"), Result: []byte(`{"isError":true,"content":["\ud800"]}`), ToolFailed: true},
		},
		"error": {
			in:   `{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"?"}}`,
			want: Message{Kind: Response, ID: []byte("null"), Error: []byte(`{"code":-32700,"message":"?"}`), ErrorCode: -32700},
		},
		"null params": {
			in:   `{"jsonrpc":"2.0","id":1,"method":"ping","params":null}`,
			want: Message{Kind: Request, ID: []byte("1"), Method: "ping", Params: Params{Raw: []byte("null")}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Parse([]byte(test.in))
			if err != nil {
				t.Fatal(err)
			}
			if string(m.Raw) != test.in {
				t.Errorf("Raw is %s", m.Raw)
			}
			test.want.Raw = []byte(test.in)
			got, _ := json.Marshal(m)
			want, _ := json.Marshal(test.want)
			if !bytes.Equal(got, want) {
				t.Errorf("got  %+v\nwant %+v", *m, test.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	deep := func(n int) string {
		return `{"jsonrpc":"2.0","method":"m","params":{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}}`
	}
	if _, err := Parse([]byte(deep(MaxDepth - 2))); err != nil {
		t.Errorf("the deepest allowed: %v", err)
	}
	many := new(strings.Builder)
	for i := range 200 {
		many.WriteString(`"k` + strings.Repeat("x", i) + `":1,`)
	}
	for name, test := range map[string]struct {
		in   string
		code int
		say  string
	}{
		"empty":                  {"", CodeParse, "unexpected end"},
		"batch":                  {`[{"jsonrpc":"2.0","id":1,"method":"m"}]`, CodeInvalidRequest, "not one JSON object"},
		"two":                    {`{"jsonrpc":"2.0","id":1,"method":"m"} {}`, CodeParse, "follows"},
		"trailing comma":         {`{"jsonrpc":"2.0","id":1,"method":"m",}`, CodeParse, "key is missing"},
		"version":                {`{"jsonrpc":"1.0","id":1,"method":"m"}`, CodeInvalidRequest, "jsonrpc"},
		"no version":             {`{"id":1,"method":"m"}`, CodeInvalidRequest, "jsonrpc"},
		"id null":                {`{"jsonrpc":"2.0","id":null,"method":"m"}`, CodeInvalidRequest, `"id"`},
		"id object":              {`{"jsonrpc":"2.0","id":{},"method":"m"}`, CodeInvalidRequest, `"id"`},
		"id null, result":        {`{"jsonrpc":"2.0","id":null,"result":{}}`, CodeInvalidRequest, `"id"`},
		"method number":          {`{"jsonrpc":"2.0","id":1,"method":7}`, CodeInvalidRequest, "method"},
		"method no text":         {`{"jsonrpc":"2.0","id":1,"method":"\ud800x"}`, CodeInvalidRequest, "method"},
		"params array":           {`{"jsonrpc":"2.0","id":1,"method":"m","params":[1]}`, CodeInvalidRequest, "params"},
		"both":                   {`{"jsonrpc":"2.0","id":1,"method":"m","result":{}}`, CodeInvalidRequest, "both"},
		"result and error":       {`{"jsonrpc":"2.0","id":1,"error":{},"result":{}}`, CodeInvalidRequest, "both"},
		"neither":                {`{"jsonrpc":"2.0","id":1}`, CodeInvalidRequest, "neither"},
		"result, no id":          {`{"jsonrpc":"2.0","result":{}}`, CodeInvalidRequest, "without an id"},
		"twice":                  {`{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}`, CodeInvalidRequest, "twice"},
		"twice by an escape":     {`{"jsonrpc":"2.0","id":1,"method":"a","\u006dethod":"b"}`, CodeInvalidRequest, "twice"},
		"twice in params":        {`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}`, CodeInvalidRequest, "twice"},
		"twice in arguments":     {`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"arguments":{"x":[{"y":1,"y":2}]}}}`, CodeInvalidRequest, "twice"},
		"twice of many":          {`{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":{` + many.String() + `"kx":1}}}`, CodeInvalidRequest, "twice"},
		"wrong case":             {`{"jsonrpc":"2.0","id":1,"Method":"m"}`, CodeInvalidRequest, "case"},
		"wrong case beside":      {`{"jsonrpc":"2.0","id":1,"method":"m","METHOD":"n"}`, CodeInvalidRequest, "case"},
		"wrong case, long s":     {`{"jsonrpc":"2.0","id":1,"method":"m","param\u017f":{}}`, CodeInvalidRequest, "case"},
		"wrong case, Kelvin":     {`{"jsonrpc":"2.0","id":1,"method":"m","params":{"progressTo` + "\u212a" + `en":1}}`, CodeInvalidRequest, "case"},
		"wrong case in params":   {`{"jsonrpc":"2.0","id":1,"method":"m","params":{"Name":"x"}}`, CodeInvalidRequest, "case"},
		"wrong case in meta":     {`{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"io.modelcontextprotocol/protocolversion":"x"}}}`, CodeInvalidRequest, "case"},
		"key half a pair":        {`{"jsonrpc":"2.0","id":1,"method":"m","params":{"\udc00":1}}`, CodeInvalidRequest, "Unicode"},
		"deep":                   {deep(MaxDepth - 1), CodeInvalidRequest, "deep"},
		"not UTF-8":              {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}", CodeParse, "UTF-8"},
		"not UTF-8, a surrogate": {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xed\xa0\x80\"}", CodeParse, "UTF-8"},
		"raw newline in text":    {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\nb\"}", CodeParse, "control"},
		"leading zero":           {`{"jsonrpc":"2.0","id":01,"method":"m"}`, CodeParse, "comma"},
		"byte order mark":        {"\ufeff" + `{"jsonrpc":"2.0","id":1,"method":"m"}`, CodeParse, "not a value"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(test.in))
			var problem *Error
			if !errors.As(err, &problem) {
				t.Fatalf("got %v", err)
			}
			if problem.Code != test.code || !strings.Contains(problem.Problem, test.say) {
				t.Errorf("got %d %v, want %d %s", problem.Code, problem, test.code, test.say)
			}
		})
	}
}

func TestWith(t *testing.T) {
	raw := append(make([]byte, 0, 1<<10), ` {"params":{"_meta":{"progressToken":"a"},"x":1e400}, "id" : 12345678901234567890,"jsonrpc":"2.0","method":"m"}`...)
	m, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	got := m.With(Change{m.ID, []byte("7")}, Change{m.Params.Meta.ProgressToken, []byte(`"token"`)}, Change{m.Params.Meta.SubscriptionID, []byte("no")})
	if want := ` {"params":{"_meta":{"progressToken":"token"},"x":1e400}, "id" : 7,"jsonrpc":"2.0","method":"m"}`; string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	back, err := Parse(got)
	if err != nil {
		t.Fatal(err)
	}
	if again := back.With(Change{back.ID, m.ID}, Change{back.Params.Meta.ProgressToken, m.Params.Meta.ProgressToken}); !bytes.Equal(again, raw) {
		t.Errorf("and back: %s", again)
	}
}

// Two ids have the same key if and only if they are the same value, as far as every parser sees it.
func TestKey(t *testing.T) {
	same := [][]string{
		{`"é"`, `"\u00e9"`, `"\u00E9"`}, {`"a/b"`, `"a\/b"`}, {`"\n\u0001\""`, `"\u000a\u0001\u0022"`}, {`"\ud83d\ude00"`, `"😀"`}, {`"1"`}, {`"\\u00e9"`},
		{`1`, `1.0`, `1e0`, `10E-1`}, {`0`, `-0`, `0.0`}, {`1.5`}, {`-7`, `-7.00`},
		{`9007199254740992`}, {`9007199254740993`}, {`9007199254740993.0`}, {`1e400`}, {`"\ud800"`}, {`"\udc00"`},
	}
	groups := map[string]int{}
	for i, ids := range same {
		for _, id := range ids {
			key := Key([]byte(id))
			if group, has := groups[key]; has && group != i {
				t.Errorf("%s has the key of another value: %s", id, key)
			} else if groups[key] = i; key != Key([]byte(ids[0])) || !json.Valid([]byte(key)) {
				t.Errorf("%s has the key %s, and %s has %s", id, key, ids[0], Key([]byte(ids[0])))
			}
		}
	}
}

// FuzzParse compares with encoding/json: what passes here is JSON there with the same values, and what is JSON there fails here only for
// a reason that is stricter on purpose.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","_meta":{"progressToken":1}}}`,
		`{"jsonrpc":"2.0","id":"\u00e9\ud83d\ude00","result":{"isError":true,"x":[1.5e-7,null,true,{}]}}`,
		`{"jsonrpc":"2.0","error":{"code":-32601}}`, `[]`, `{"a":1,"a":2}`, `"\ud800"`, "\xff", `{"jsonrpc":"2.0","Id":1}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		valid := Valid(data)
		var problem *Error
		if valid == nil != json.Valid(data) && (!errors.As(valid, &problem) || (problem.Code == CodeParse && problem.Problem != "not UTF-8")) {
			t.Fatalf("Valid says %v, encoding/json %v", valid, json.Valid(data))
		}
		m, err := Parse(data)
		if err != nil {
			return
		}
		if valid != nil {
			t.Fatalf("Parse takes what Valid refuses: %v", valid)
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatal(err)
		}
		for key, got := range map[string][]byte{"id": m.ID, "params": m.Params.Raw, "result": m.Result, "error": m.Error} {
			if !bytes.Equal(got, want[key]) {
				t.Fatalf("%s is %q, not %q", key, got, want[key])
			}
		}
		if m.Kind != Response {
			var method string
			if err := json.Unmarshal(want["method"], &method); err != nil || method != m.Method {
				t.Fatalf("the method is %q, not %s", m.Method, want["method"])
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	raw := []byte(`{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"text":"` + strings.Repeat("hello ", 40) + `"},"_meta":{"progressToken":1}}}`)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}
