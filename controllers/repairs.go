package controllers

import (
	"crypto/sha256"
	"encoding/json"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/compliance"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// maxRepairs is how many repairs of one server are told at once.
const maxRepairs = 16

// objectName is an object of a server's namespace.
type objectName struct{ kind, name string }

// inPlace is what the operator last saw in place of one server: what differs from it, though the same is planned,
// somebody else changed. What was changed while no operator ran is put right without being told apart from what an
// operator of another version would plan.
type inPlace struct {
	uid types.UID
	// was are digests of what was planned and in place after the last pass, and is those of this pass.
	was, is map[objectName][sha256.Size]byte
	repairs []compliance.Repair
}

// inPlaceOf is what is remembered of a server. Only a pass over that server may use it.
func (r *MCPServerReconciler) inPlaceOf(server *v1alpha1.MCPServer) *inPlace {
	key := client.ObjectKeyFromObject(server)
	if known, ok := r.inPlace.Load(key); ok {
		if known := known.(*inPlace); known.uid == server.UID {
			return known
		}
	}
	fresh := &inPlace{uid: server.UID}
	r.inPlace.Store(key, fresh)
	return fresh
}

// begin begins a pass. What is not seen by its end is not in place any more.
func (i *inPlace) begin() { i.is = make(map[objectName][sha256.Size]byte, len(i.was)) }

// end ends a pass in which everything was seen.
func (i *inPlace) end() { i.was = i.is }

// saw notes that an object is in place; changed says that it was not, and had to be written, path where it differed: empty
// where it was missing, which no change of the plan explains.
func (i *inPlace) saw(o objectName, digest [sha256.Size]byte, changed bool, path string, now time.Time) {
	if known, ok := i.was[o]; ok && changed && (path == "" || known == digest) {
		i.repairs = slices.DeleteFunc(i.repairs, func(r compliance.Repair) bool { return r.Kind == o.kind && r.Name == o.name || !r.Shown(now) })
		i.repairs = append(i.repairs[max(0, len(i.repairs)-maxRepairs+1):], compliance.Repair{Drift: compliance.Drift{Kind: o.kind, Name: o.name, Path: path}, Time: now})
	}
	i.is[o] = digest
}

// planDigest is the same for what is planned the same.
func planDigest(o plan.Object) ([sha256.Size]byte, error) {
	body, err := json.Marshal(o.Config)
	return sha256.Sum256(body), err
}
