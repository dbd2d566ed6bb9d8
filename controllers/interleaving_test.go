package controllers_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// interleaving knows which of two images a policy forbids at every moment, and sees every rollout.
type interleaving struct {
	mu sync.Mutex
	// forbidden are the images that a policy is sure to forbid: from when the API server has confirmed it until
	// before the next change of it is sent.
	forbidden map[string]bool
	// asked says that the operator asked for the policies since its last rollout.
	asked bool
	// freeSince says whether an image was, at any moment since then, not sure to be forbidden.
	freeSince map[string]bool
	rollouts  int
	broken    []string
}

var racing = []string{"one.example/server:v1", "two.example/server:v1"}

// set notes what is forbidden from now on, for sure.
func (i *interleaving) set(images ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.forbidden = map[string]bool{}
	for _, image := range images {
		i.forbidden[image] = true
	}
	for _, image := range racing {
		i.freeSince[image] = i.freeSince[image] || !i.forbidden[image]
	}
}

// see is told of every request of the operator before it is sent.
func (i *interleaving) see(namespace string) func(request) error {
	return func(r request) error {
		i.mu.Lock()
		defer i.mu.Unlock()
		switch {
		case r.verb == "list" && r.resource == "mcppolicies" && !r.metadata:
			i.asked = true
			for _, image := range racing {
				i.freeSince[image] = !i.forbidden[image]
			}
		case r.verb == "patch" && r.resource == "deployments" && r.namespace == namespace:
			for _, image := range racing {
				if strings.Contains(r.body, `"image":"`+image) {
					i.rollouts++
					if !i.asked || !i.freeSince[image] {
						i.broken = append(i.broken, image)
					}
					i.asked = false
				}
			}
		}
		return nil
	}
}

// Policies and servers change in any order and at any moment: what a policy in force forbids is never rolled out.
func TestNoOrderOfChangesRollsAViolationOut(t *testing.T) {
	const steps = 600
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	o := exclusive(t)
	server := example(newNamespace(t), "web")
	server.Spec.Image = racing[0]
	watched := &interleaving{forbidden: map[string]bool{}, freeSince: map[string]bool{racing[0]: true, racing[1]: true}}
	o.before(watched.see(server.Namespace))
	settled(t, o, server)
	policy := &v1alpha1.MCPPolicy{ObjectMeta: metav1.ObjectMeta{Name: "racing-" + server.Namespace}}
	removeLater(t, policy)
	for step := range steps {
		switch choice := random.IntN(8); {
		case choice < 4:
			image := racing[random.IntN(2)]
			edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.Image = image })
		case choice < 7:
			forbid := random.IntN(2)
			watched.set() // while it is written nothing is sure
			enforceOnly(t, policy, server.Namespace, racing[1-forbid])
			watched.set(racing[forbid])
		default:
			watched.set()
			if err := client.IgnoreNotFound(admin.Delete(t.Context(), policy)); err != nil {
				t.Fatal(err)
			}
		}
		if step%60 == 59 { // let it catch up now and then, so that not all of it is one pile
			o.calm(t, server.Namespace)
		}
	}
	o.calm(t, server.Namespace)
	watched.mu.Lock()
	defer watched.mu.Unlock()
	if len(watched.broken) > 0 {
		t.Errorf("%d of %d rollouts were not asked for, or of an image that a policy forbade all the time since", len(watched.broken), watched.rollouts)
	}
	if watched.rollouts < steps/50 {
		t.Errorf("%d rollouts in %d steps: this shows little", watched.rollouts, steps)
	}
	t.Logf("%d rollouts in %d steps", watched.rollouts, steps)
}

// enforceOnly makes a policy, or changes it, so that it allows one image.
func enforceOnly(t *testing.T, policy *v1alpha1.MCPPolicy, namespace, image string) {
	t.Helper()
	repository, _, _ := strings.Cut(image, ":")
	spec := v1alpha1.MCPPolicySpec{
		NamespaceSelector: v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{"kubernetes.io/metadata.name": v1alpha1.LabelValue(namespace)}},
		Action:            v1alpha1.PolicyEnforce,
		Images:            &v1alpha1.ImagePolicy{AllowedRepositories: []v1alpha1.RepositoryPattern{v1alpha1.RepositoryPattern(repository)}},
	}
	eventually(t, func() string {
		fresh := &v1alpha1.MCPPolicy{ObjectMeta: metav1.ObjectMeta{Name: policy.Name}, Spec: spec}
		err := admin.Create(t.Context(), fresh)
		if apierrors.IsAlreadyExists(err) {
			if err = admin.Get(t.Context(), client.ObjectKeyFromObject(policy), fresh); err == nil {
				fresh.Spec = spec
				err = admin.Update(t.Context(), fresh)
			}
		}
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return fmt.Sprintf("the policy cannot be written: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		return ""
	})
}
