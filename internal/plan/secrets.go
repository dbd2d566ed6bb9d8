package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	accorev1 "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

const (
	// AnnotationRotation of a Deployment holds the state of the server's rotation: it is written together
	// with the pod template that it tells of.
	AnnotationRotation = "mcpwarden.io/rotation"
	// LabelSnapshot of a snapshot, of a pod template and so of pods and ReplicaSets says which values they
	// have: the short form of a digest.
	LabelSnapshot = "mcpwarden.io/snapshot"
	// AnnotationDigest of a snapshot, or of a copy of secret files, is the digest of what it holds.
	AnnotationDigest = "mcpwarden.io/digest"
	// AnnotationReferences of a snapshot says for which variables and keys it was made.
	AnnotationReferences = "mcpwarden.io/references"
	// LabelFiles marks a Secret that holds a copy of secret files, with "true" as its value.
	LabelFiles = "mcpwarden.io/secret-files"

	// fileMode of secret files: readable by the pod's group, which the server has.
	fileMode = 0o440
	// noSnapshot is what a Deployment without pods refers to while there is no snapshot.
	noSnapshot = "pending"
)

// Secrets says which values the pods of a server get. No value is in it.
type Secrets struct {
	// Snapshot is the name of the Secret with the values of env; empty where there is none.
	Snapshot string
	// Label is the short digest of what the snapshot holds.
	Label string
	// State is what AnnotationRotation is to hold; empty for none.
	State string
	// Hold says why no pod may start with the present spec; nil where one may.
	Hold *Hold
}

// Hold says why the Deployment is left as it is, or not created.
type Hold struct {
	// Reason for the conditions.
	Reason string
	// Message says what is missing, and how to fix it.
	Message string
}

// Reference is a variable of a server that gets its value from a Secret.
type Reference struct {
	// Variable is its name.
	Variable string
	// Secret and Key are where the value is.
	Secret, Key string
}

// ReferencesOf lists the variables that get their values from Secrets, in the order of the spec.
func ReferencesOf(spec *v1alpha1.MCPServerSpec) []Reference {
	var out []Reference
	for i := range spec.Env {
		env := &spec.Env[i]
		if env.ValueFrom != nil && env.ValueFrom.SecretKeyRef != nil {
			out = append(out, Reference{env.Name, string(env.ValueFrom.SecretKeyRef.Name), env.ValueFrom.SecretKeyRef.Key})
		}
	}
	return out
}

// SecretsOf names every Secret whose values a server gets, sorted.
func SecretsOf(spec *v1alpha1.MCPServerSpec) []string {
	names := map[string]bool{}
	for _, ref := range ReferencesOf(spec) {
		names[ref.Secret] = true
	}
	for name := range FileKeysOf(spec) {
		names[name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// FileKeysOf are the keys that a server, or the gateway before it, reads as files, by Secret, sorted.
func FileKeysOf(spec *v1alpha1.MCPServerSpec) map[string][]string {
	out := map[string][]string{}
	for i := range spec.SecretFiles {
		ref := &spec.SecretFiles[i].SecretRef
		for _, key := range ref.Keys {
			out[string(ref.Name)] = append(out[string(ref.Name)], string(key))
		}
	}
	if tls := spec.Transport.TLS; tls != nil {
		out[string(tls.SecretName)] = append(out[string(tls.SecretName)], corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
	}
	for name, keys := range out {
		slices.Sort(keys)
		out[name] = slices.Compact(keys)
	}
	return out
}

// ReferencesHash tells one set of references from another (16 hex digits).
func ReferencesHash(refs []Reference) string {
	lines := make([]string, len(refs))
	for i, ref := range refs {
		lines[i] = ref.Variable + "=" + ref.Secret + "/" + ref.Key
	}
	slices.Sort(lines)
	return shortHash(strings.Join(lines, "\n"))
}

func shortHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

// SnapshotName is the name of the Secret with a server's values of a short digest.
func SnapshotName(server, label string) string { return server + "-env-" + label }

// FilesName is the name of the Secret with the keys of another that a server reads as files.
func FilesName(server, source string) string { return server + "-file-" + shortHash(source) }

// SnapshotSecret holds the values of a server's variables, under the names of those. It cannot be
// changed: a pod that starts late gets the same as the ones before it.
func SnapshotSecret(server *v1alpha1.MCPServer, label, digest string, values map[string][]byte) Object {
	b := builder{server: server}
	config := accorev1.Secret(SnapshotName(server.Name, label), server.Namespace).
		WithLabels(b.labels()).
		WithLabels(map[string]string{LabelSnapshot: label}).
		WithAnnotations(map[string]string{AnnotationDigest: digest, AnnotationReferences: ReferencesHash(ReferencesOf(&server.Spec))}).
		WithOwnerReferences(b.owner()).
		WithType(corev1.SecretTypeOpaque).
		WithImmutable(true).
		WithData(values)
	return Object{Kind: "Secret", Name: *config.Name, Namespace: server.Namespace, Config: config}
}

// FilesSecret holds the keys of a source that a server reads as files.
func FilesSecret(server *v1alpha1.MCPServer, source, digest string, values map[string][]byte) Object {
	b := builder{server: server}
	config := accorev1.Secret(FilesName(server.Name, source), server.Namespace).
		WithLabels(b.labels()).
		WithLabels(map[string]string{LabelFiles: "true"}).
		WithAnnotations(map[string]string{AnnotationDigest: digest}).
		WithOwnerReferences(b.owner()).
		WithType(corev1.SecretTypeOpaque).
		WithData(values)
	return Object{Kind: "Secret", Name: *config.Name, Namespace: server.Namespace, Config: config}
}

// secretFiles are the volumes of a server's secret files, and their mounts. Projected volumes are
// refreshed in place, all files of one at the same moment; a mount with a subPath never is.
func secretFiles(server string, files []v1alpha1.SecretFile) (vols []*accorev1.VolumeApplyConfiguration, mounts []*accorev1.VolumeMountApplyConfiguration) {
	for i := range files {
		volume, mount := secretFolder(fmt.Sprintf("secret-%d", i), FilesName(server, string(files[i].SecretRef.Name)), string(files[i].MountPath), files[i].SecretRef.Keys)
		vols, mounts = append(vols, volume), append(mounts, mount)
	}
	return vols, mounts
}

func secretFolder(name, secret, path string, keys []v1alpha1.DataKey) (*accorev1.VolumeApplyConfiguration, *accorev1.VolumeMountApplyConfiguration) {
	projection := accorev1.SecretProjection().WithName(secret)
	for _, key := range keys {
		projection.WithItems(accorev1.KeyToPath().WithKey(string(key)).WithPath(string(key)))
	}
	volume := accorev1.Volume().WithName(name).WithProjected(accorev1.ProjectedVolumeSource().
		WithDefaultMode(fileMode).WithSources(accorev1.VolumeProjection().WithSecret(projection)))
	return volume, accorev1.VolumeMount().WithName(name).WithMountPath(path).WithReadOnly(true)
}
