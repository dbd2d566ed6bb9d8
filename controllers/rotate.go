package controllers

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	accorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/owners"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/rotation"
	"github.com/mcpwarden/mcp-warden/internal/status"
)

// Copies of values are Secrets of ours; pods are told when their files changed; ReplicaSets and pods
// say by a label which snapshots they still need.
// +kubebuilder:rbac:groups="",resources=secrets,verbs=create;patch;delete
// +kubebuilder:rbac:groups="",resources=pods,verbs=patch
// +kubebuilder:rbac:groups=apps,resources=replicasets,verbs=list;watch

// queueRetry is how soon a server that waits for others to finish their rotation looks again.
const queueRetry = 2 * time.Second

// decision is what is done about a server's secrets.
type decision struct {
	rotation.Decision
	seen *secretsSeen
	// verdict for the condition SecretsCurrent.
	verdict rotation.Verdict
	// recheck is after how long the verdict may turn without an event; zero for never.
	recheck time.Duration
	// writeFiles are the files to be copied anew.
	writeFiles []*filesSeen
	// missingFiles says that a file of the spec cannot be given to a pod.
	missingFiles bool
}

// decide says which values the pods get. The caller must call done when they are applied.
func (r *MCPServerReconciler) decide(ctx context.Context, server *v1alpha1.MCPServer, obs *observation) (d *decision, done func(), err error) {
	done = func() {}
	if obs.secrets == nil {
		return nil, done, nil
	}
	d = &decision{seen: obs.secrets}
	in := obs.secrets.input(server, obs, r.Now())
	if server.Spec.DesiredState == v1alpha1.StateQuarantined { // nothing changes in a suspect
		d.State, d.Verdict = in.State, rotation.Verdict{Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonQuarantined, Message: "Nothing is rotated under quarantine."}
		d.Snapshots = append(snapshotsOf(in.State), in.Live.Snapshot)
	} else {
		d.Decision = rotation.Decide(in)
	}
	if d.WantsSlot {
		taken, err := r.slots.take(ctx, r.Client, client.ObjectKeyFromObject(server))
		if err != nil {
			return nil, done, err
		}
		if taken {
			done = func() { r.slots.leave(client.ObjectKeyFromObject(server)) }
			in.SlotFree = true
			d.Decision = rotation.Decide(in)
		} else {
			d.RequeueAfter = queueRetry
		}
	}
	d.decideFiles(server, in)
	d.judge(server, in)
	return d, done, nil
}

func snapshotsOf(s rotation.State) []string {
	out := []string{s.Deployed.Snapshot}
	if s.Good != nil {
		out = append(out, s.Good.Snapshot)
	}
	return out
}

// decideFiles finds the files whose copies are not what their sources hold. With Manual, those that
// pods have wait for a request, as variables do.
func (d *decision) decideFiles(server *v1alpha1.MCPServer, in rotation.Input) {
	if server.Spec.DesiredState == v1alpha1.StateQuarantined {
		return
	}
	requested := in.Request != "" && d.State.Request != in.State.Request
	for i := range d.seen.files {
		f := &d.seen.files[i]
		switch {
		case f.copied == f.wanted && f.wanted != "":
		case f.wanted == "":
			d.missingFiles = d.missingFiles || f.copied == ""
		case in.Manual && f.copied != "" && !requested:
			d.seen.problems = append(d.seen.problems, rotation.Verdict{
				Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonManualRotationPending,
				Message: fmt.Sprintf("Secret %s, which the server reads as files, has new values, and the strategy is Manual: request a rotation with the annotation %s.", f.source, v1alpha1.AnnotationRotateRequestedAt),
			})
		default:
			d.writeFiles = append(d.writeFiles, f)
		}
	}
}

// judge puts together what the sources, the rotation and the age of the values say.
func (d *decision) judge(server *v1alpha1.MCPServer, in rotation.Input) {
	maxAge := time.Duration(0)
	if spec := server.Spec.Rotation; spec != nil && spec.MaxAge != nil {
		maxAge = spec.MaxAge.Duration
	}
	var dated []rotation.Dated
	for _, s := range d.sourcesStatus(&server.Status, in.Now) {
		entry := rotation.Dated{Secret: s.Name, Key: s.Key, Expires: owners.Expires(&s)}
		if s.ChangedTime != nil {
			entry.Changed = s.ChangedTime.Time
		}
		dated = append(dated, entry)
	}
	age, turns := rotation.Age(dated, maxAge, in.Now)
	verdict := d.Verdict
	if verdict.Reason == v1alpha1.ReasonNoSecrets && len(d.seen.files) > 0 {
		verdict.Reason, verdict.Message = v1alpha1.ReasonCurrent, "The files hold the newest secrets."
	}
	verdicts := append(slices.Clone(d.seen.problems), verdict, age)
	for _, s := range d.seen.sources {
		if v := owners.Verdict(s.Secret, s.owner); v != nil {
			verdicts = append(verdicts, *v)
		}
	}
	d.verdict = rotation.Worst(verdicts...)
	d.recheck = sooner(sooner(d.RequeueAfter, turns), d.seen.ownersAge)
}

// sooner of two durations of which zero means never.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}

// forPlan is what the plan needs to know of the decision. Where nothing could be decided, the pods
// keep what they have, and a spec that may need more is held.
func (d *decision) forPlan(server *v1alpha1.MCPServer, obs *observation) plan.Secrets {
	switch {
	case obs.unread != nil:
		return unreadSecrets(server, obs.deployment)
	case d == nil:
		return plan.Secrets{}
	}
	out := plan.Secrets{Snapshot: d.State.Deployed.Snapshot, Label: labelOf(server, d.State.Deployed.Snapshot)}
	if d.State.Deployed.Digest != "" {
		out.State = d.State.Encode()
	}
	if d.Action == rotation.Hold || d.missingFiles {
		out.Hold = &plan.Hold{Reason: d.verdict.Reason, Message: d.verdict.Message}
	}
	return out
}

func unreadSecrets(server *v1alpha1.MCPServer, live *appsv1.Deployment) plan.Secrets {
	out := plan.Secrets{Snapshot: liveSnapshot(server, live)}
	out.Label = labelOf(server, out.Snapshot)
	if live != nil {
		out.State = live.Annotations[plan.AnnotationRotation]
	}
	if live == nil || server.Status.ObservedGeneration != server.Generation {
		out.Hold = &plan.Hold{Reason: v1alpha1.ReasonSourceUnreadable, Message: unreadMessage}
	}
	return out
}

const unreadMessage = "The Secrets cannot be looked at for the moment; it is tried again. The condition Reconciling says why."

// status of the server's secrets.
func (d *decision) status(old *v1alpha1.MCPServerStatus, obs *observation, now time.Time) *status.Secrets {
	switch {
	case obs.unread != nil:
		return &status.Secrets{Status: old.Secrets, Verdict: rotation.Verdict{
			Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonSourceUnreadable, Message: unreadMessage}}
	case d == nil:
		return nil
	}
	out := &status.Secrets{Verdict: d.verdict, Events: d.Events, Recheck: d.recheck, Status: &v1alpha1.SecretsStatus{
		DesiredDigest: d.seen.desired.Digest, DeployedDigest: d.State.Deployed.Digest, Sources: d.sourcesStatus(old, now),
	}}
	if !d.DesiredSince.IsZero() {
		out.Status.DesiredSince = new(metav1.NewTime(d.DesiredSince).Rfc3339Copy())
	}
	if n := len(d.State.Started); n > 0 {
		out.Status.LastRotationTime = new(metav1.Unix(d.State.Started[n-1], 0))
	}
	return out
}

// sourcesStatus says of each source when its value changed. What was seen before is kept: a source
// that cannot be read now has the age that it had, and one whose digest was made with a lost key too.
func (d *decision) sourcesStatus(old *v1alpha1.MCPServerStatus, now time.Time) []v1alpha1.SecretSource {
	var before []v1alpha1.SecretSource
	if old.Secrets != nil {
		before = old.Secrets.Sources
	}
	var out []v1alpha1.SecretSource
	for _, s := range d.seen.sources {
		entry := v1alpha1.SecretSource{Name: s.Secret, Key: s.Key, Digest: s.value.digest}
		i := slices.IndexFunc(before, func(b v1alpha1.SecretSource) bool { return b.Name == s.Secret && b.Key == s.Key })
		known := i >= 0 && before[i].Digest != ""
		switch {
		case !s.found && i >= 0:
			entry = before[i]
		case !s.found:
		case known && (before[i].Digest == s.value.digest || keyOf(before[i].Digest) != d.seen.key.ID()):
			entry.ChangedTime, entry.AgeSource = before[i].ChangedTime, before[i].AgeSource
		case known:
			entry.ChangedTime, entry.AgeSource = new(metav1.NewTime(now).Rfc3339Copy()), v1alpha1.AgeObserved
		default:
			entry.ChangedTime, entry.AgeSource = new(metav1.NewTime(s.created)), v1alpha1.AgeCreation
		}
		if entry.Owner = s.owner; !s.value.notAfter.IsZero() {
			entry.NotAfter = new(metav1.NewTime(s.value.notAfter))
		}
		out = append(out, entry)
	}
	slices.SortFunc(out, func(a, b v1alpha1.SecretSource) int {
		return slices.Compare([]string{a.Name, a.Key}, []string{b.Name, b.Key})
	})
	return out
}

// keyOf names the key that a digest was made with; empty for what is none.
func keyOf(digest string) string {
	id, err := rotation.KeyIDOf(digest)
	if err != nil {
		return ""
	}
	return id
}

// copySecrets makes the snapshots and files that pods are about to need.
func (r *MCPServerReconciler) copySecrets(ctx context.Context, server *v1alpha1.MCPServer, d *decision) error {
	if d == nil {
		return nil
	}
	versions := []rotation.Version{d.State.Deployed}
	if d.State.Good != nil {
		versions = append(versions, *d.State.Good)
	}
	for _, v := range versions { // what is lost and cannot be made from the sources is told by the verdict
		intact := d.seen.intact(v)
		if v.Snapshot == "" || !intact && v.Digest != d.seen.desired.Digest {
			continue
		}
		if !intact {
			if err := r.makeSnapshot(ctx, server, d.seen, v); err != nil {
				return fmt.Errorf("make snapshot %s: %w", v.Snapshot, err)
			}
		}
		r.inPlaceOf(server).saw(objectName{"Secret", v.Snapshot}, sha256.Sum256([]byte(v.Digest)), !intact, "data", r.Now())
	}
	return r.copyFiles(ctx, server, d)
}

// copyFiles brings the files up to date.
func (r *MCPServerReconciler) copyFiles(ctx context.Context, server *v1alpha1.MCPServer, d *decision) error {
	if d == nil {
		return nil
	}
	for _, f := range d.writeFiles {
		if err := r.copyOf(ctx, server, d.seen.key, f); err != nil {
			return fmt.Errorf("copy files of Secret %s: %w", f.source, err)
		}
	}
	return nil
}

// nudgeFiles has the kubelets of the pods look at the files as they are now, and says in what is seen of
// the Secrets when that is to be done again.
func (r *MCPServerReconciler) nudgeFiles(ctx context.Context, obs *observation, d *decision, seen *status.Secrets) error {
	if d == nil {
		return nil
	}
	again, err := r.nudge(ctx, obs.pods, d.seen.filesVersion())
	if err == nil {
		seen.Recheck = sooner(seen.Recheck, again)
	}
	return err
}

// errChanged says that a source has other values than a moment ago: everything is looked at again.
func errChanged(secret string) error {
	return apierrors.NewConflict(corev1.Resource("secrets"), secret, errors.New("its values changed while they were copied"))
}

// makeSnapshot copies the values of all variables. One of its name that is not what it should be was
// changed by somebody: it is made anew.
func (r *MCPServerReconciler) makeSnapshot(ctx context.Context, server *v1alpha1.MCPServer, s *secretsSeen, v rotation.Version) error {
	data, known := map[string][]byte{}, map[string]value{}
	for _, secret := range plan.SecretsOf(&server.Spec) {
		byKey := map[string][]string{}
		for variable, from := range s.references {
			if from.Secret == secret {
				byKey[from.Key] = append(byKey[from.Key], variable)
			}
		}
		if len(byKey) == 0 {
			continue
		}
		values, digests, err := r.sources.read(ctx, s.key, types.NamespacedName{Namespace: server.Namespace, Name: secret})
		if err != nil {
			return err
		}
		for key, variables := range byKey {
			for _, variable := range variables {
				data[variable], known[variable] = values[key], digests[key]
			}
		}
	}
	if together(s.key, known) != v.Digest {
		return errChanged(v.Snapshot)
	}
	o := plan.SnapshotSecret(server, labelOf(server, v.Snapshot), v.Digest, data)
	if held, exists := s.snapshots[v.Snapshot]; exists {
		if held.immutable && held.digest == v.Digest && metav1.GetControllerOfNoCopy(held.meta) == nil {
			_, err := r.sendSecret(ctx, o, held.meta.UID) // it only lost its labels, or its owner
			return err
		}
		if err := r.remove(ctx, server, o, held.meta); err != nil {
			return err
		}
	}
	made, err := r.sendSecret(ctx, o, "")
	if err != nil {
		return err
	}
	r.sources.learn(client.ObjectKeyFromObject(made), whole{ // it need not be read to be known
		uid: made.UID, resourceVersion: made.ResourceVersion, keyID: s.key.ID(), digest: v.Digest, immutable: true,
	})
	return nil
}

// copyOf brings the server's copy of a Secret's keys up to date.
func (r *MCPServerReconciler) copyOf(ctx context.Context, server *v1alpha1.MCPServer, key rotation.Key, f *filesSeen) error {
	values, digests, err := r.sources.read(ctx, key, types.NamespacedName{Namespace: server.Namespace, Name: f.source})
	if err != nil {
		return err
	}
	data, known := map[string][]byte{}, map[string]value{}
	for _, k := range f.keys {
		data[k], known[k] = values[k], digests[k]
	}
	if together(key, known) != f.wanted {
		return errChanged(f.source)
	}
	o, uid := plan.FilesSecret(server, f.source, f.wanted, data), types.UID("")
	if f.copy != nil {
		if !plan.IsOwnedBy(f.copy, server) {
			return nameConflict(o, "exists and does not belong to this MCPServer")
		}
		uid = f.copy.UID
	}
	written, err := r.sendSecret(ctx, o, uid)
	if err != nil {
		return err
	}
	f.copy = written
	return nil
}

// sendSecret applies a Secret, to the one of that UID or, with none, to none. It goes and comes as
// metadata: no cache is to hold the values, and no answer to repeat them.
func (r *MCPServerReconciler) sendSecret(ctx context.Context, o plan.Object, uid types.UID) (*metav1.PartialObjectMetadata, error) {
	config := o.Config.(*accorev1.SecretApplyConfiguration)
	if uid != "" {
		config.WithUID(uid)
	} else {
		config.WithResourceVersion(noObjectHasIt)
	}
	body, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("encode Secret %s: %w", o.Name, err)
	}
	meta := secretMeta()
	meta.Namespace, meta.Name = o.Namespace, o.Name
	err = r.Client.Patch(ctx, meta, client.RawPatch(types.ApplyPatchType, body), client.FieldOwner(plan.FieldManager), client.ForceOwnership)
	if apierrors.IsInvalid(err) { // its message may quote what was sent
		return nil, fmt.Errorf("the API server refused Secret %s/%s as invalid", o.Namespace, o.Name)
	}
	return meta, err
}

// remove deletes a Secret of the server, and no other.
func (r *MCPServerReconciler) remove(ctx context.Context, server *v1alpha1.MCPServer, o plan.Object, meta *metav1.PartialObjectMetadata) error {
	if !plan.IsOwnedBy(meta, server) && !isMarked(server, meta) {
		return nameConflict(o, "exists and does not belong to this MCPServer")
	}
	target := secretMeta()
	target.Namespace, target.Name = meta.Namespace, meta.Name
	if err := r.Client.Delete(ctx, target, client.Preconditions{UID: new(meta.UID)}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete Secret %s: %w", meta.Name, err)
	}
	return nil
}

// collect removes the snapshots and files that nothing needs any more.
func (r *MCPServerReconciler) collect(ctx context.Context, server *v1alpha1.MCPServer, obs *observation, d *decision) error {
	if d == nil {
		return nil
	}
	if server.Spec.DesiredState == v1alpha1.StateQuarantined {
		return r.withdraw(ctx, server, d)
	}
	settled := obs.deployment != nil && status.Rollout(obs.deployment, obs.pods) == rotation.Complete
	sets := &metav1.PartialObjectMetadataList{}
	sets.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("ReplicaSetList"))
	if err := r.Client.List(ctx, sets, client.InNamespace(server.Namespace), client.MatchingLabels(plan.SelectorLabels(server.Name)), client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list ReplicaSets: %w", err)
	}
	needed := map[string]bool{}
	for _, name := range append(snapshotsOf(d.State), d.Snapshots...) {
		needed[name] = true
	}
	for i := range sets.Items {
		needed[plan.SnapshotName(server.Name, sets.Items[i].Labels[plan.LabelSnapshot])] = true
	}
	for i := range obs.pods {
		needed[plan.SnapshotName(server.Name, obs.pods[i].Labels[plan.LabelSnapshot])] = true
	}
	for _, f := range d.seen.files {
		needed[plan.FilesName(server.Name, f.source)] = true
	}
	for name, held := range d.seen.snapshots {
		_, isSnapshot := held.meta.Labels[plan.LabelSnapshot]
		_, isFiles := held.meta.Labels[plan.LabelFiles]
		old := isSnapshot || isFiles && settled
		if !old || needed[name] || !plan.IsOwnedBy(held.meta, server) {
			continue
		}
		if err := r.remove(ctx, server, plan.Object{Kind: "Secret", Name: name, Namespace: server.Namespace}, held.meta); err != nil {
			return err
		}
	}
	return nil
}

// withdraw removes every copy of a value that was made for a server under quarantine. Its processes keep what they
// read; no pod and no container can be started with it any more. The copies are made again from their sources
// when the server is released.
func (r *MCPServerReconciler) withdraw(ctx context.Context, server *v1alpha1.MCPServer, d *decision) error {
	for name, held := range d.seen.snapshots {
		_, isSnapshot := held.meta.Labels[plan.LabelSnapshot]
		_, isFiles := held.meta.Labels[plan.LabelFiles]
		if !isSnapshot && !isFiles || !plan.IsOwnedBy(held.meta, server) {
			continue
		}
		if err := r.remove(ctx, server, plan.Object{Kind: "Secret", Name: name, Namespace: server.Namespace}, held.meta); err != nil {
			return err
		}
	}
	return nil
}
