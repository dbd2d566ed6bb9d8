package status

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// toolsOf is a list as it is written here: name=digest, separated by spaces.
func toolsOf(list string) *v1alpha1.ToolsStatus {
	var tools []Tool
	for part := range strings.FieldsSeq(list) {
		name, digest, _ := strings.Cut(part, "=")
		tools = append(tools, Tool{name, digest})
	}
	return NewInventory(tools, "digest of "+list)
}

// after is the status that follows on one, and the events between the two.
func after(old v1alpha1.MCPServerStatus, at time.Time, change func(*Input)) (v1alpha1.MCPServerStatus, []Event) {
	in := input()
	in.Server.Status, in.Now = old, at
	change(&in)
	out := Compute(in)
	var events []Event
	for _, e := range Transitions(&old, &out) {
		if e.Action == "Observe" {
			events = append(events, e)
		}
	}
	return out, events
}

func TestToolsObserved(t *testing.T) {
	saw := func(tools Tools) func(*Input) { return func(in *Input) { in.Tools = &tools } }
	nothing := func(*Input) {}
	var current v1alpha1.MCPServerStatus
	var changed time.Time
	for i, step := range []struct {
		name   string
		change func(*Input)
		want   metav1.ConditionStatus
		reason string
		isNew  bool
		event  string
	}{
		{"nobody looked yet", nothing, "Unknown", "NotObserved", false, ""},
		{"the first look", saw(Tools{Inventory: toolsOf("a=1 b=2")}), "True", "Observed", true, ""},
		{"nobody looked since", nothing, "True", "Observed", false, ""},
		{"nothing changed", saw(Tools{}), "True", "Observed", false, ""},
		{"a definition changed", saw(Tools{Inventory: toolsOf("a=1 b=3")}), "True", "Observed", true, `from 2 to 2: changed "b".`},
		{"tools came and went", saw(Tools{Inventory: toolsOf("b=3 c=4 d=5")}), "True", "Observed", true, `from 2 to 3: added "c", "d"; removed "a".`},
		{"no answer", saw(Tools{Trouble: "silent"}), "False", "InventoryUnreadable", false, "silent"},
		{"an error of the operator's", func(in *Input) { in.Problem = &Problem{Reason: "ReconcileError", Waiting: true}; in.Plan = nil }, "False", "InventoryUnreadable", false, ""},
		{"heard again", saw(Tools{}), "True", "Observed", false, ""},
		{"stopped", state(v1alpha1.StateStopped), "Unknown", "Stopped", false, ""},
		{"in quarantine", state(v1alpha1.StateQuarantined), "Unknown", "Quarantined", false, ""},
		{"released", nothing, "Unknown", "NotObserved", false, ""},
		{"the same as before", saw(Tools{}), "True", "Observed", false, ""},
		{"a tool twice", saw(Tools{Inventory: toolsOf("b=3 c=4 d=5 d=6")}), "True", "Observed", true, `from 3 to 4: changed "d".`},
		{"no gateway", func(in *Input) { in.Plan.GatewayImage = "" }, "Unknown", "NoGateway", false, ""},
	} {
		at := now.Add(time.Duration(i) * time.Minute)
		next, events := after(current, at, step.change)
		c := meta.FindStatusCondition(next.Conditions, v1alpha1.ConditionToolsObserved)
		if c.Status != step.want || c.Reason != step.reason {
			t.Errorf("%s: %s, %s; want %s, %s", step.name, c.Status, c.Reason, step.want, step.reason)
		}
		if step.isNew {
			changed = at
		}
		if next.Tools != nil && !next.Tools.LastChangedTime.Time.Equal(changed) {
			t.Errorf("%s: changed at %s, want %s", step.name, next.Tools.LastChangedTime, changed)
		}
		if (len(events) > 0) != (step.event != "") || (len(events) > 0 && !strings.Contains(events[0].Note, step.event)) {
			t.Errorf("%s: events %v, want %q", step.name, events, step.event)
		}
		current = next
	}
}

// What the status says already is no news: else every look would be a reconcile.
func TestIsNews(t *testing.T) {
	var nobody v1alpha1.MCPServerStatus
	seen, _ := after(nobody, now, func(in *Input) { in.Tools = &Tools{Inventory: toolsOf("a=1")} })
	troubled, _ := after(seen, now, func(in *Input) { in.Tools = &Tools{Trouble: "silent"} })
	for _, tc := range []struct {
		name string
		of   v1alpha1.MCPServerStatus
		look Tools
		want bool
	}{
		{"the first", nobody, Tools{Inventory: toolsOf("a=1")}, true},
		{"the same list", seen, Tools{Inventory: toolsOf("a=1")}, false},
		{"unchanged", seen, Tools{}, false},
		{"another list", seen, Tools{Inventory: toolsOf("a=2")}, true},
		{"trouble", seen, Tools{Trouble: "silent"}, true},
		{"the same trouble", troubled, Tools{Trouble: "silent"}, false},
		{"another trouble", troubled, Tools{Trouble: "lies"}, true},
		{"heard again", troubled, Tools{}, true},
	} {
		if got := tc.look.IsNews(&tc.of); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

// Whatever a server calls its tools, what is told of them is short, and what can be printed.
func TestHostileNames(t *testing.T) {
	var tools []Tool
	for i := range 2048 {
		tools = append(tools, Tool{fmt.Sprintf("%04d\x1b[2J\n\u202e\xff%s", i, strings.Repeat("\u00e9", 200)), strings.Repeat("f", 64)})
	}
	now := NewInventory(tools, "digest")
	if now.Count != 2048 || len(now.Items) != 256 || !now.Truncated {
		t.Fatalf("%d tools, %d told, truncated %v", now.Count, len(now.Items), now.Truncated)
	}
	for _, item := range now.Items {
		if len(item.Name) > 128 || !utf8.ValidString(item.Name) || strings.ContainsAny(item.Name, "\x1b\n\u202e\ufffd") {
			t.Fatalf("told as %q", item.Name)
		}
	}
	note := changeOfTools(toolsOf("a=1 b=1 c=1 d=1 e=1 f=1 g=1"), now)
	if len(note) > maxMessage || !strings.Contains(note, "and 251 more; removed") || !strings.Contains(note, "and 2 more.") {
		t.Errorf("%d bytes: %s", len(note), note)
	}
	if note := changeOfTools(now, NewInventory(tools[:2000], "another")); !strings.Contains(note, "beyond those that status.tools lists") {
		t.Error(note)
	}
}
