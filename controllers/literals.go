package controllers

import (
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/credentials"
)

// literalReport is what was found in one spec of a server.
type literalReport struct {
	uid        types.UID
	generation int64
	report     *credentials.Report
}

// literalCredentials looks at each spec once: nothing but the spec changes what it spells out. What
// an operator of another version found is no answer, because it had other rules: so what was found is
// kept here and not taken from the status.
func (r *MCPServerReconciler) literalCredentials(server *v1alpha1.MCPServer) *credentials.Report {
	key := client.ObjectKeyFromObject(server)
	if known, ok := r.literals.Load(key); ok {
		if known := known.(literalReport); known.uid == server.UID && known.generation == server.Generation {
			return known.report
		}
	}
	report := credentials.Find(&server.Spec)
	r.literals.Store(key, literalReport{server.UID, server.Generation, report})
	return report
}

// redactedError is an error whose text repeats no value of the spec: the API server, or an admission
// policy, may quote what it refuses.
type redactedError struct {
	error
	text string
}

func (e *redactedError) Error() string { return e.text }

func (e *redactedError) Unwrap() error { return e.error }

func redactedFor(server *v1alpha1.MCPServer, err error) error {
	if err == nil || isProblem(err) { // a problem's message is ours
		return err
	}
	return &redactedError{err, credentials.Redact(server, err.Error())}
}
