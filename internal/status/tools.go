package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// What of a server's tools is kept, and told in an event: how many, and how many bytes of each name.
const (
	maxTools, maxToolName = 256, 128
	maxToldTools          = 5
	maxToldName           = 48
)

// Tools is what a look at a server's tools has shown.
type Tools struct {
	// Inventory is the list; nil where it is the one that the status has, or where there is trouble.
	Inventory *v1alpha1.ToolsStatus
	// Trouble says why there is none; empty where there is one.
	Trouble string
}

// Tool is one tool as a server tells of it: nothing of it can be trusted.
type Tool struct{ Name, Digest string }

// NewInventory makes a list fit for a status: bounded, and of what can be printed. When it changed is for Compute to say.
func NewInventory(tools []Tool, digest string) *v1alpha1.ToolsStatus {
	out := &v1alpha1.ToolsStatus{Count: int32(len(tools)), Digest: digest, Truncated: len(tools) > maxTools}
	for _, tool := range tools[:min(len(tools), maxTools)] {
		out.Items = append(out.Items, v1alpha1.ToolStatus{Name: printable(tool.Name), Digest: tool.Digest})
	}
	return out
}

// printable replaces what is no visible character: control characters, those that turn the direction of text, and broken bytes.
func printable(name string) string {
	return boundedTo(strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, name), maxToolName)
}

// IsNews tells whether the status of a server does not say yet what a look has shown.
func (t *Tools) IsNews(of *v1alpha1.MCPServerStatus) bool {
	c := meta.FindStatusCondition(of.Conditions, v1alpha1.ConditionToolsObserved)
	switch {
	case c == nil:
		return true
	case t.Trouble != "":
		return c.Status != metav1.ConditionFalse || c.Message != bounded(t.Trouble)
	case t.Inventory != nil && (of.Tools == nil || of.Tools.Digest != t.Inventory.Digest):
		return true
	}
	return c.Status != metav1.ConditionTrue
}

// setTools tells which tools the server has. What was seen stands while nobody can look, and where nobody has.
func setTools(out *v1alpha1.MCPServerStatus, in Input) {
	if in.Tools != nil && in.Tools.Inventory != nil && (out.Tools == nil || out.Tools.Digest != in.Tools.Inventory.Digest) {
		out.Tools = in.Tools.Inventory.DeepCopy()
		out.Tools.LastChangedTime = metav1.NewTime(in.Now)
	}
	set(out, in, v1alpha1.ConditionToolsObserved, toolsObserved(out, in))
}

func toolsObserved(out *v1alpha1.MCPServerStatus, in Input) verdict {
	unknown := func(reason, message string) verdict { return verdict{metav1.ConditionUnknown, reason, message} }
	before := meta.FindStatusCondition(out.Conditions, v1alpha1.ConditionToolsObserved)
	switch {
	case in.Server.Spec.DesiredState == v1alpha1.StateStopped:
		return unknown(v1alpha1.ReasonStopped, "No pod runs that could be asked.")
	case in.Server.Spec.DesiredState == v1alpha1.StateQuarantined:
		return unknown(v1alpha1.ReasonQuarantined, "Nobody reaches the pods, not even to ask for their tools.")
	case in.Problem == nil && in.Plan.GatewayImage == "":
		return unknown(v1alpha1.ReasonNoGateway, "No gateway stands in front of the server that could tell; it gets one with the next change of its spec, if the operator runs with --component-image.")
	case in.Tools != nil && in.Tools.Trouble != "":
		return verdict{metav1.ConditionFalse, v1alpha1.ReasonInventoryUnreadable, in.Tools.Trouble}
	case in.Tools != nil && out.Tools != nil:
		return verdict{metav1.ConditionTrue, v1alpha1.ReasonObserved, fmt.Sprintf("The server has %d tools.", out.Tools.Count)}
	case before != nil && before.Status != metav1.ConditionUnknown:
		return verdict{before.Status, before.Reason, before.Message}
	}
	return unknown(v1alpha1.ReasonNotObserved, "No pod that is ready has told of its tools yet.")
}

// toolsEvents tell of tools that changed, and of a gateway that cannot be asked any more.
func toolsEvents(old, now *v1alpha1.MCPServerStatus) []Event {
	var out []Event
	if old.Tools != nil && now.Tools != nil && old.Tools.Digest != now.Tools.Digest {
		out = append(out, Event{corev1.EventTypeWarning, v1alpha1.ReasonToolsChanged, "Observe", changeOfTools(old.Tools, now.Tools)})
	}
	if c, turned := turnedTo(old, now, v1alpha1.ConditionToolsObserved); turned && c.Status == metav1.ConditionFalse {
		out = append(out, Event{corev1.EventTypeWarning, c.Reason, "Observe", c.Message})
	}
	return out
}

// changeOfTools names what came, went and is described in another way, as far as the lists go.
func changeOfTools(old, now *v1alpha1.ToolsStatus) string {
	was, is := digestsByName(old), digestsByName(now)
	var added, removed, changed []string
	for _, item := range now.Items {
		switch digest, ok := was[item.Name]; {
		case !ok:
			added = append(added, item.Name)
		case digest != is[item.Name]:
			changed = append(changed, item.Name)
		}
	}
	for _, item := range old.Items {
		if _, ok := is[item.Name]; !ok {
			removed = append(removed, item.Name)
		}
	}
	var parts []string
	for _, part := range []struct {
		what  string
		names []string
	}{{"added", added}, {"removed", removed}, {"changed", changed}} {
		if len(part.names) > 0 {
			parts = append(parts, part.what+" "+told(part.names))
		}
	}
	what := cmp.Or(strings.Join(parts, "; "), "beyond those that status.tools lists")
	return bounded(fmt.Sprintf("The server's tools changed, from %d to %d: %s.", old.Count, now.Count, what))
}

// digestsByName are the digests of the tools; those of one name, which a server should not have twice, together.
func digestsByName(tools *v1alpha1.ToolsStatus) map[string]string {
	out := map[string]string{}
	for _, item := range tools.Items {
		out[item.Name] += item.Digest
	}
	return out
}

func told(names []string) string {
	names = slices.Compact(names)
	quoted := make([]string, 0, maxToldTools)
	for _, name := range names[:min(len(names), maxToldTools)] {
		quoted = append(quoted, fmt.Sprintf("%q", boundedTo(name, maxToldName)))
	}
	list := strings.Join(quoted, ", ")
	if more := len(names) - len(quoted); more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return list
}
