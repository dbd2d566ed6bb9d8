package controllers

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/owners"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/rotation"
	"github.com/mcpwarden/mcp-warden/internal/status"
)

const (
	// defaultDebounce is how long a changed value must stay the same where the spec does not say.
	defaultDebounce = 30 * time.Second
	// maxSecret is how many bytes the data of a Secret may have.
	maxSecret = 1 << 20
)

// secretsSeen is what was seen of the Secrets of a server, in digests and never in values.
type secretsSeen struct {
	key rotation.Key
	// state of the rotation as the Deployment carries it.
	state rotation.State
	// references of the spec, by variable.
	references map[string]keyRef
	// sources that the spec names, by name and key.
	sources []source
	// desired version of the variables; its digest is empty while it cannot be told.
	desired rotation.Version
	// problems of the sources.
	problems []rotation.Verdict
	// snapshots of the server, by name.
	snapshots map[string]snapshot
	// ownersAge is after how long to look again at what fills the Secrets; zero for never.
	ownersAge time.Duration
	// files that the server reads, by the Secret that they come from.
	files []filesSeen
}

// keyRef names a key of a Secret.
type keyRef struct{ Secret, Key string }

// source is one key of a Secret that the spec names.
type source struct {
	keyRef
	// found says whether the value could be read.
	found bool
	value value
	// created is when the Secret was.
	created time.Time
	// owner fills the Secret; nil where nobody is known to.
	owner *v1alpha1.SecretOwner
}

// snapshot is a Secret with the values of the server's variables.
type snapshot struct {
	meta *metav1.PartialObjectMetadata
	// digest of its contents under the present key.
	digest string
	// immutable says that its contents cannot be changed.
	immutable bool
	// ours says that it belongs to this server too, and is labelled as such.
	ours bool
}

// filesSeen are the files that come from one Secret.
type filesSeen struct {
	source string
	keys   []string
	// wanted digest of the files; empty while a value is missing.
	wanted string
	// copied digest of what the server's copy holds for these keys; empty where it holds not all of them.
	copied string
	// copy of the server; nil where there is none.
	copy *metav1.PartialObjectMetadata
}

// filesVersion tells the versions of the server's copies apart; empty where it has none.
func (s *secretsSeen) filesVersion() string {
	hash, any := sha256.New(), false
	for _, f := range s.files {
		if f.copy != nil {
			any = true
			fmt.Fprintln(hash, f.copy.Name, versionOf(f.copy))
		}
	}
	if !any {
		return ""
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// observeSecrets looks at the Secrets of a server. That it cannot must not keep the server from being
// isolated, or stopped: it is told with the rest.
func (r *MCPServerReconciler) observeSecrets(ctx context.Context, server *v1alpha1.MCPServer, obs *observation) error {
	annotation := ""
	if obs.deployment != nil {
		annotation = obs.deployment.Annotations[plan.AnnotationRotation]
	}
	if len(plan.SecretsOf(&server.Spec)) == 0 && annotation == "" {
		return nil
	}
	obs.unread = r.lookAtSecrets(ctx, server, obs, annotation)
	return nil
}

// lookAtSecrets reads what the spec names of Secrets, and the copies that the server has of it.
func (r *MCPServerReconciler) lookAtSecrets(ctx context.Context, server *v1alpha1.MCPServer, obs *observation, annotation string) error {
	if why := r.surroundings.unread(kindSecret); why != "" {
		return errors.New(why) // of a change nobody would hear
	}
	key, err := r.digestKey.get(ctx)
	if err != nil {
		return err
	}
	s := &secretsSeen{key: key, references: map[string]keyRef{}}
	s.state, _ = rotation.Decode(annotation) // what cannot be read counts as lost, and is written anew
	if err := r.observeVariables(ctx, server, s); err != nil {
		return err
	}
	if err := r.observeFiles(ctx, server, s); err != nil {
		return err
	}
	if err := r.observeSnapshots(ctx, server, s, liveSnapshot(server, obs.deployment)); err != nil {
		return err
	}
	obs.secrets = s
	return nil
}

// observeVariables finds what the values of the variables are now.
func (r *MCPServerReconciler) observeVariables(ctx context.Context, server *v1alpha1.MCPServer, s *secretsSeen) error {
	values, size := map[string]value{}, 0
	for _, ref := range plan.ReferencesOf(&server.Spec) {
		from := keyRef{Secret: ref.Secret, Key: ref.Key}
		s.references[ref.Variable] = from
		v, problem, err := r.observeSource(ctx, server, s, from, ref.Variable)
		switch {
		case err != nil:
			return err
		case problem != nil:
			s.problems = append(s.problems, *problem)
		default:
			values[ref.Variable] = v
			size += len(ref.Variable) + v.size
		}
	}
	if size > maxSecret {
		s.problems = append(s.problems, invalidValue("The values of the variables have %d bytes in all, and a Secret holds at most %d: read large ones as files, with spec.secretFiles", size, maxSecret))
	}
	s.desired.References = plan.ReferencesHash(plan.ReferencesOf(&server.Spec))
	if len(s.problems) > 0 {
		return nil
	}
	s.desired.Digest = together(s.key, values)
	if len(s.references) > 0 {
		s.desired.Snapshot = plan.SnapshotName(server.Name, rotation.Short(s.desired.Digest))
	}
	return nil
}

// observeSource looks at one key; for a variable, where one is named, which cannot hold any value.
func (r *MCPServerReconciler) observeSource(ctx context.Context, server *v1alpha1.MCPServer, s *secretsSeen, from keyRef, variable string) (value, *rotation.Verdict, error) {
	name := types.NamespacedName{Namespace: server.Namespace, Name: from.Secret}
	seen, err := r.sources.look(ctx, s.key, name, []string{from.Key})
	if err != nil {
		return value{}, nil, err
	}
	v, found := seen.values[from.Key]
	if !slices.ContainsFunc(s.sources, func(other source) bool { return other.keyRef == from }) {
		entry := source{keyRef: from, found: found, value: v}
		if seen.meta != nil {
			entry.created = seen.meta.CreationTimestamp.Time
			var again time.Duration
			entry.owner, again = r.owners.look(ctx, server.Namespace, owners.Of(seen.meta))
			s.ownersAge = sooner(s.ownersAge, again)
		}
		s.sources = append(s.sources, entry)
	}
	return v, problemOfSource(from, variable, seen.meta != nil, found, v), nil
}

// problemOfSource says what is wrong with a source, and what to do; nil where nothing is.
func problemOfSource(from keyRef, variable string, exists, found bool, v value) *rotation.Verdict {
	switch {
	case !exists:
		return new(notFound("Secret %s does not exist: create it with the key %s, or take it out of the spec", from.Secret, from.Key))
	case !found:
		return new(notFound("Secret %s has no key %s: add it, or name another key in the spec", from.Secret, from.Key))
	case v.size == 0:
		return new(invalidValue("Key %s of Secret %s is empty: put the value in, or take it out of the spec", from.Key, from.Secret))
	case variable == "":
		return nil
	case !v.text:
		return new(invalidValue("Key %s of Secret %s is binary, and variable %s can only hold text: read it as a file, with spec.secretFiles, or store it in base64", from.Key, from.Secret, variable))
	case len(variable)+1+v.size+1 > maxVariable:
		return new(invalidValue("Key %s of Secret %s has %d bytes, and variable %s can hold at most %d: read it as a file, with spec.secretFiles",
			from.Key, from.Secret, v.size, variable, maxVariable-len(variable)-2))
	}
	return nil
}

func notFound(format string, args ...any) rotation.Verdict {
	return rotation.Verdict{Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonSourceNotFound, Message: fmt.Sprintf(format, args...) + "."}
}

func invalidValue(format string, args ...any) rotation.Verdict {
	return rotation.Verdict{Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonInvalidValue, Message: fmt.Sprintf(format, args...) + "."}
}

// observeFiles compares what the server's files hold with their sources.
func (r *MCPServerReconciler) observeFiles(ctx context.Context, server *v1alpha1.MCPServer, s *secretsSeen) error {
	keysOf := plan.FileKeysOf(&server.Spec)
	for _, name := range slices.Sorted(maps.Keys(keysOf)) {
		f := filesSeen{source: name, keys: keysOf[name]}
		values, complete := map[string]value{}, true
		for _, k := range f.keys {
			v, problem, err := r.observeSource(ctx, server, s, keyRef{Secret: name, Key: k}, "")
			if err != nil {
				return err
			}
			if problem != nil {
				complete = false
				s.problems = append(s.problems, *problem)
			}
			values[k] = v
		}
		if complete {
			f.wanted = together(s.key, values)
		}
		held, err := r.sources.look(ctx, s.key, types.NamespacedName{Namespace: server.Namespace, Name: plan.FilesName(server.Name, name)}, f.keys)
		if err != nil {
			return err
		}
		f.copy = held.meta
		if len(held.values) == len(f.keys) {
			f.copied = together(s.key, held.values)
		}
		s.files = append(s.files, f)
	}
	return nil
}

// observeSnapshots finds the snapshots of the server, and looks into those that the rotation is about.
func (r *MCPServerReconciler) observeSnapshots(ctx context.Context, server *v1alpha1.MCPServer, s *secretsSeen, live string) error {
	s.snapshots = map[string]snapshot{}
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(secretMeta().GroupVersionKind())
	if err := r.Client.List(ctx, list, client.InNamespace(server.Namespace), client.MatchingFields{secretServerIndex: server.Name}, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	for i := range list.Items {
		s.snapshots[list.Items[i].Name] = snapshot{meta: &list.Items[i]}
	}
	names := []string{live, s.state.Deployed.Snapshot, s.desired.Snapshot}
	if s.state.Good != nil {
		names = append(names, s.state.Good.Snapshot)
	}
	for _, name := range names {
		if name == "" || s.snapshots[name].ours {
			continue
		}
		seen, err := r.observeSnapshot(ctx, server, s.key, name)
		if err != nil {
			return err
		}
		if seen.meta == nil {
			delete(s.snapshots, name)
			continue
		}
		s.snapshots[name] = seen
	}
	return nil
}

func (r *MCPServerReconciler) observeSnapshot(ctx context.Context, server *v1alpha1.MCPServer, key rotation.Key, name string) (snapshot, error) {
	meta := secretMeta()
	if err := r.Client.Get(ctx, types.NamespacedName{Namespace: server.Namespace, Name: name}, meta); err != nil {
		return snapshot{}, client.IgnoreNotFound(err)
	}
	content, err := r.sources.lookAtAll(ctx, key, meta)
	if err != nil {
		return snapshot{}, client.IgnoreNotFound(err)
	}
	ours := content.immutable && plan.IsOwnedBy(meta, server) && isMarked(server, meta) &&
		plan.SnapshotName(server.Name, meta.Labels[plan.LabelSnapshot]) == name
	return snapshot{meta: meta, digest: content.digest, immutable: content.immutable, ours: ours}, nil
}

// intact tells whether a version's snapshot is there and holds what it should. One that was made
// under a key that is lost can only be told to be the server's own.
func (s *secretsSeen) intact(v rotation.Version) bool {
	if v.Snapshot == "" {
		return true
	}
	held := s.snapshots[v.Snapshot]
	if id, err := rotation.KeyIDOf(v.Digest); err != nil || id != s.key.ID() {
		return held.ours
	}
	return held.ours && held.digest == v.Digest
}

// input of the decision on what is rolled out.
func (s *secretsSeen) input(server *v1alpha1.MCPServer, obs *observation, now time.Time) rotation.Input {
	in := rotation.Input{
		Now: now, KeyID: s.key.ID(), State: s.state, Desired: s.desired, Debounce: defaultDebounce,
		Request: server.Annotations[v1alpha1.AnnotationRotateRequestedAt],
	}
	if spec := server.Spec.Rotation; spec != nil {
		in.Manual = spec.Strategy == v1alpha1.RotationManual
		if spec.Debounce != nil {
			in.Debounce = spec.Debounce.Duration
		}
	}
	if old := server.Status.Secrets; old != nil && old.DesiredDigest == s.desired.Digest && old.DesiredSince != nil {
		in.DesiredSince = old.DesiredSince.Time
	}
	if obs.deployment == nil {
		return in
	}
	in.Live = rotation.Live{Exists: true, Rollout: status.Rollout(obs.deployment, obs.pods)}
	in.Live.Snapshot = liveSnapshot(server, obs.deployment)
	if held := s.snapshots[in.Live.Snapshot]; held.ours {
		in.Live.References = held.meta.Annotations[plan.AnnotationReferences]
	}
	// What the state says is not to be corrected by a snapshot that somebody meddled with.
	ask := rotation.NeedsContents(s.state, in.Live.Snapshot, in.KeyID)
	if ask {
		in.Live.Digest = s.contents(cmp.Or(in.Live.Snapshot, s.state.Deployed.Snapshot))
	}
	in.Live.Lost = !s.intact(s.state.Deployed) && s.state.Deployed.Digest != s.desired.Digest
	if s.state.Deployed.Digest == "" { // nothing says what the pods' snapshot should hold
		in.Live.Lost = in.Live.Snapshot != "" && !s.snapshots[in.Live.Snapshot].ours
	}
	if good := s.state.Good; good != nil {
		if ask {
			in.Live.GoodDigest = s.contents(good.Snapshot)
		}
		in.Live.GoodLost = !s.intact(*good) && good.Digest != s.desired.Digest
	}
	return in
}

// contents is the digest of what a snapshot of the server holds; empty where that is not known.
func (s *secretsSeen) contents(name string) string {
	if name == "" {
		return together(s.key, nil)
	}
	if held := s.snapshots[name]; held.ours {
		return held.digest
	}
	return ""
}

// liveSnapshot is the name of the snapshot that a Deployment gives to its pods; empty for none.
func liveSnapshot(server *v1alpha1.MCPServer, d *appsv1.Deployment) string {
	if d == nil || d.Spec.Template.Labels[plan.LabelSnapshot] == "" {
		return ""
	}
	return plan.SnapshotName(server.Name, d.Spec.Template.Labels[plan.LabelSnapshot])
}

// labelOf is the label of the pods that have the values of a snapshot.
func labelOf(server *v1alpha1.MCPServer, snapshot string) string {
	return strings.TrimPrefix(snapshot, plan.SnapshotName(server.Name, ""))
}
