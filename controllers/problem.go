package controllers

import (
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/status"
)

// problemError is an error that already knows what the status should say.
type problemError struct {
	problem status.Problem
}

func (e *problemError) Error() string { return e.problem.Reason + ": " + e.problem.Message }

// isProblem tells an error that knows what the status should say from one of the API server.
func isProblem(err error) bool {
	known := (*problemError)(nil)
	return errors.As(err, &known)
}

func invalidSpec(errs field.ErrorList) error {
	messages := make([]string, len(errs))
	for i, err := range errs {
		messages[i] = err.Error()
	}
	return &problemError{status.Problem{Reason: v1alpha1.ReasonInvalidSpec, Message: strings.Join(messages, "; ")}}
}

func nameConflict(o plan.Object, why string) error {
	return conflictOver(fmt.Sprintf(
		"%s %s/%s %s; it is left untouched: delete it, or give the MCPServer another name", o.Kind, o.Namespace, o.Name, why))
}

func conflictOver(message string) error {
	return &problemError{status.Problem{Reason: v1alpha1.ReasonNameConflict, Message: message}}
}

// leftover is an object of an MCPServer of the same name that the garbage collector has yet to take.
func leftover(o plan.Object) error {
	return &problemError{status.Problem{Reason: v1alpha1.ReasonProgressing, Waiting: true, Message: fmt.Sprintf(
		"waiting until %s %s/%s of the former MCPServer of this name is gone", o.Kind, o.Namespace, o.Name)}}
}

// problemOf says what the status should tell of an error: a refusal of the API server stays until
// somebody changes the spec or what refuses it (which is looked for now and then), everything else passes.
func problemOf(err error) *status.Problem {
	if err == nil {
		return nil
	}
	if known := (*problemError)(nil); errors.As(err, &known) {
		return &known.problem
	}
	if apierrors.IsInvalid(err) || apierrors.IsRequestEntityTooLargeError(err) {
		return &status.Problem{Reason: v1alpha1.ReasonRejected, Message: err.Error()}
	}
	return &status.Problem{Reason: v1alpha1.ReasonReconcileError, Message: err.Error(), Waiting: true}
}

func equalStatus(a, b *v1alpha1.MCPServerStatus) bool {
	return equality.Semantic.DeepEqual(a, b)
}
