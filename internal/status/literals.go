package status

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/credentials"
)

// maxListed bounds the fields that a message lists, in bytes.
const maxListed = 600

const remedy = " Put it into a Secret and name that by env[].valueFrom.secretKeyRef or by secretFiles; args and command can refer to a variable as $(NAME). What stood here is known to whoever may read MCPServers: replace it."

// noLiteralCredentials says which fields hold a credential. The message has the names of fields and rules only.
func noLiteralCredentials(r *credentials.Report) verdict {
	var items []string
	for _, f := range r.Findings {
		items = append(items, fmt.Sprintf("%s (%s, rule %s)", f.Field, f.Description, f.Rule))
	}
	switch {
	case len(items) > 0:
		return verdict{metav1.ConditionFalse, v1alpha1.ReasonLiteralCredentialFound, "A credential is spelt out in " + list(items, r.More) + "." + remedy}
	case len(r.Unchecked) > 0:
		return verdict{metav1.ConditionUnknown, v1alpha1.ReasonNotAllChecked,
			"Too large to be looked at with every rule: " + list(r.Unchecked, 0) + ". Move large values to a ConfigMap and mount it with filesystem.data."}
	}
	return verdict{metav1.ConditionTrue, v1alpha1.ReasonNoneFound, "No literal credential was found in env, args and command."}
}

// list puts as many items in a row as a message has room for, and says how many there are beside them.
func list(items []string, more int) string {
	n, length := 0, 0
	for n < len(items) && (n == 0 || length+len(items[n]) <= maxListed) {
		length += len(items[n])
		n++
	}
	out := strings.Join(items[:n], ", ")
	if more += len(items) - n; more > 0 {
		out += fmt.Sprintf(" and %d more", more)
	}
	return out
}
