package cel

import (
	"errors"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// refusal is a spec that must not get past admission.
type refusal struct {
	name string
	// patch of the base, as YAML.
	patch string
	// field that the error names; for a field that the API does not have, it is in the message only.
	field string
	// fix is the part of the error that says how to fix it, or names the bound.
	fix string
}

func spec(s string) string { return "spec: {" + s + "}" }

var refusals = slices.Concat(
	namesAndImages, processes, environment, secretFiles, rotations, resourceAmounts, filesystems, networks, hosts, selectors, scheduling, shapes)

var namesAndImages = []refusal{
	{"name starting with a digit", "metadata: {name: 1st}", "", "start with a letter"},
	{"name with a dot", "metadata: {name: a.b}", "", "at most 63 lower-case letters"},
	{"name too long for a Service", "metadata: {name: " + strings.Repeat("a", 64) + "}", "", "at most 63"},
	{"name of the operator's own policy", "metadata: {name: mcp-warden-default-deny}", "", "choose another name"},
	{"name of the egress proxy", "metadata: {name: mcp-warden-egress}", "", "choose another name"},
	{"name of every namespace's account", "metadata: {name: default}", "", "choose another name"},
	{"no spec", "spec: null", "spec", "Required value"},
	{"null spec", "spec: " + null, "spec", "Required value"},
	{"no image", spec("image: null"), "spec.image", "Required value"},
	{"null image", spec("image: " + null), "spec.image", "Required value"},
	{"empty image", spec("image: ''"), "spec.image", "at least 1 chars long"},
	{"image with a scheme", spec("image: 'https://registry.example/server'"), "spec.image", "no scheme"},
	{"image with white space", spec("image: 'registry.example/my server'"), "spec.image", "no white space"},
	{"image with a trailing newline", spec(`image: "server:v1\n"`), "spec.image", "no white space"},
	{"image with a leading newline", spec(`image: "\nserver:v1"`), "spec.image", "no white space"},
	{"image with two lines", spec(`image: "server:v1\nserver:v2"`), "spec.image", "no white space"},
	{"image in capitals", spec("image: registry.example/Server:v1"), "spec.image", "such as registry.example/team/server:v1.2.0"},
	{"image with an empty tag", spec("image: 'server:'"), "spec.image", "must be an image reference"},
	{"image with an empty path element", spec("image: registry.example//server"), "spec.image", "must be an image reference"},
	{"image with a trailing slash", spec("image: registry.example/server/"), "spec.image", "must be an image reference"},
	{"image with a path that climbs", spec("image: registry.example/../server"), "spec.image", "must be an image reference"},
	{"image with a short digest", spec("image: server@sha256:abc"), "spec.image", "64 hex digits"},
	{"image with a digest in capitals", spec("image: server@sha256:" + strings.Repeat("A", 64)), "spec.image", "64 hex digits"},
	{"image with a digest of another kind", spec("image: server@md5:" + strings.Repeat("a", 32)), "spec.image", "sha256"},
	{"image with two digests", spec("image: server@sha256:" + strings.Repeat("a", 64) + "@sha256:" + strings.Repeat("a", 64)), "spec.image", "must be an image reference"},
	{"image with a port out of range", spec("image: registry.example:65536/server"), "spec.image", "must be an image reference"},
	{"image with port 0", spec("image: registry.example:0/server"), "spec.image", "must be an image reference"},
	{"image with an empty host label", spec("image: registry..example/server"), "spec.image", "must be an image reference"},
	{"image with a look-alike letter", spec("image: registry.example/sеrver"), "spec.image", "must be an image reference"},
	{"image with a zero-width space", spec(`image: "registry.example/ser\u200bver"`), "spec.image", "must be an image reference"},
	{"image with a tag that is too long", spec("image: server:" + strings.Repeat("a", 129)), "spec.image", "must be an image reference"},
	{"image with a name that is too long", spec("image: registry.example/" + strings.Repeat("a", 240)), "spec.image", "at most 255 characters"},
	{"image too long", spec("image: " + strings.Repeat("a", 513)), "spec.image", "may not be more than 512"},
	{"image that is a number", spec("image: 1"), "spec.image", "must be of type string"},
	{"image that is a list", spec("image: [server]"), "spec.image", "must be of type string"},
	{"pull secret with a bad name", spec("imagePullSecrets: [{name: Reg_Cred}]"), "spec.imagePullSecrets[0].name", "lower-case letters, digits, '-' and '.'"},
	{"pull secret with an empty name", spec("imagePullSecrets: [{name: ''}]"), "spec.imagePullSecrets[0].name", "at least 1 chars long"},
	{"pull secret without a name", spec("imagePullSecrets: [{}]"), "spec.imagePullSecrets[0].name", "Required value"},
	{"pull secret twice", spec("imagePullSecrets: [{name: a}, {name: a}]"), "spec.imagePullSecrets[1]", "Duplicate value"},
	{"too many pull secrets", spec("imagePullSecrets: " + list(9, "{name: s%d}")), "spec.imagePullSecrets", "must have at most 8 items"},
}

var processes = []refusal{
	{"command with an empty program", spec("command: ['', run]"), "spec.command", "must not be empty"},
	{"command with NUL", spec(`command: ["run\u0000"]`), "spec.command", "NUL"},
	{"command too many", spec("command: " + list(65, "x")), "spec.command", "must have at most 64 items"},
	{"command element too long", spec("command: [" + strings.Repeat("a", 4097) + "]"), "spec.command[0]", "may not be more than 4096"},
	{"command as one string", spec("command: run it"), "spec.command", "must be of type array"},
	{"command with a number", spec("command: [1]"), "spec.command[0]", "must be of type string"},
	{"args too many", spec("args: " + list(129, "x")), "spec.args", "must have at most 128 items"},
	{"args element too long", spec("args: [" + strings.Repeat("a", 4097) + "]"), "spec.args[0]", "may not be more than 4096"},
	{"args with NUL", spec(`args: ["a\u0000b"]`), "spec.args", "NUL"},
	{"no transport", spec("transport: null"), "spec.transport", "Required value"},
	{"transport without a type", spec("transport: {type: null}"), "spec.transport.type", "Required value"},
	{"transport that is not offered", spec("transport: {type: SSE}"), "spec.transport.type", `supported values: "StreamableHTTP", "Stdio"`},
	{"a certificate of no Secret", spec("transport: {tls: {}}"), "spec.transport.tls.secretName", "Required value"},
	{"a certificate of an impossible name", spec("transport: {tls: {secretName: Server}}"), "spec.transport.tls.secretName", "must be"},
	{"transport in lower case", spec("transport: {type: streamablehttp}"), "spec.transport.type", `supported values: "StreamableHTTP", "Stdio"`},
	{"stdio without a command", spec("transport: {type: Stdio}"), "spec.command", "command is required for transport.type Stdio"},
	{"stdio with an empty command", spec("transport: {type: Stdio}, command: []"), "spec.command", "command is required for transport.type Stdio"},
	{"stdio with args alone", spec("transport: {type: Stdio}, args: [stdio]"), "spec.command", "command is required for transport.type Stdio"},
	{"the gateway's port", spec("transport: {port: 29010}"), "spec.transport.port", "on which the gateway in front of the server listens"},
	{"the gateway's admin port", spec("transport: {port: 29011}"), "spec.transport.port", "on which the gateway in front of the server listens"},
	{"transport without a port", spec("transport: {port: null}"), "spec.transport", "name the TCP port that the server listens on"},
	{"port 0", spec("transport: {port: 0}"), "spec.transport.port", "greater than or equal to 1"},
	{"port negative", spec("transport: {port: -1}"), "spec.transport.port", "greater than or equal to 1"},
	{"port too large", spec("transport: {port: 65536}"), "spec.transport.port", "less than or equal to 65535"},
	{"port as a string", spec("transport: {port: '8080'}"), "spec.transport.port", "must be of type integer"},
	{"port with a fraction", spec("transport: {port: 80.5}"), "spec.transport.port", "must be of type int"},
	{"path without a slash", spec("transport: {path: mcp}"), "spec.transport.path", "must be an absolute URL path such as /mcp"},
	{"path empty", spec("transport: {path: ''}"), "spec.transport.path", "at least 1 chars long"},
	{"path with a query", spec("transport: {path: '/mcp?a=b'}"), "spec.transport.path", "no query and no fragment"},
	{"path with a fragment", spec("transport: {path: '/mcp#a'}"), "spec.transport.path", "no query and no fragment"},
	{"path with an escape", spec("transport: {path: '/%2e%2e/mcp'}"), "spec.transport.path", "letters, digits and -._~/ only"},
	{"path with a newline", spec(`transport: {path: "/mcp\n"}`), "spec.transport.path", "letters, digits and -._~/ only"},
	{"path that climbs", spec("transport: {path: /a/../b}"), "spec.transport.path", "no '.' or '..' element"},
	{"path that ends in a climb", spec("transport: {path: /mcp/..}"), "spec.transport.path", "no '.' or '..' element"},
	{"path with two slashes", spec("transport: {path: //mcp}"), "spec.transport.path", "no '//'"},
	{"path that is a URL", spec("transport: {path: 'http://server/mcp'}"), "spec.transport.path", "must be an absolute URL path"},
	{"path too long", spec("transport: {path: /" + strings.Repeat("a", 256) + "}"), "spec.transport.path", "may not be more than 256"},
	{"replicas 0", spec("replicas: 0"), "spec.replicas", "greater than or equal to 1"},
	{"replicas negative", spec("replicas: -1"), "spec.replicas", "greater than or equal to 1"},
	{"replicas too many", spec("replicas: 101"), "spec.replicas", "less than or equal to 100"},
	{"replicas as a string", spec("replicas: '2'"), "spec.replicas", "must be of type integer"},
	{"desired state unknown", spec("desiredState: Paused"), "spec.desiredState", `supported values: "Running", "Stopped", "Quarantined"`},
	{"desired state in lower case", spec("desiredState: stopped"), "spec.desiredState", `supported values: "Running", "Stopped", "Quarantined"`},
	{"desired state empty", spec("desiredState: ''"), "spec.desiredState", `supported values: "Running", "Stopped", "Quarantined"`},
}

var environment = []refusal{
	{"variable without a value", spec("env: [{name: A}]"), "spec.env[0]", "set exactly one of value and valueFrom"},
	{"variable with both", spec("env: [{name: A, value: a, valueFrom: {secretKeyRef: {name: s, key: k}}}]"), "spec.env[0]", "set exactly one of value and valueFrom"},
	{"variable from nothing", spec("env: [{name: A, valueFrom: {}}]"), "spec.env[0].valueFrom", "set exactly one of secretKeyRef and configMapKeyRef"},
	{"variable from two sources", spec("env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}, configMapKeyRef: {name: s, key: k}}}]"), "spec.env[0].valueFrom", "set exactly one of secretKeyRef and configMapKeyRef"},
	{"variable twice", spec("env: [{name: A, value: a}, {name: A, value: b}]"), "spec.env[1]", "Duplicate value"},
	{"variable without a name", spec("env: [{value: a}]"), "spec.env[0].name", "Required value"},
	{"variable with an empty name", spec("env: [{name: '', value: a}]"), "spec.env[0].name", "at least 1 chars long"},
	{"variable starting with a digit", spec("env: [{name: 1A, value: a}]"), "spec.env[0].name", "not starting with a digit"},
	{"variable with =", spec("env: [{name: A=B, value: a}]"), "spec.env[0].name", "must be a variable name"},
	{"variable with a space", spec("env: [{name: 'A B', value: a}]"), "spec.env[0].name", "must be a variable name"},
	{"variable with a newline", spec(`env: [{name: "A\n", value: a}]`), "spec.env[0].name", "must be a variable name"},
	{"variable called ..", spec("env: [{name: .., value: a}]"), "spec.env[0].name", "nor starting with '..'"},
	{"variable called .", spec("env: [{name: ., value: a}]"), "spec.env[0].name", "neither '.'"},
	{"variable with letters beyond ASCII", spec("env: [{name: ÄÖ, value: a}]"), "spec.env[0].name", "must be a variable name"},
	{"variable name too long", spec("env: [{name: " + strings.Repeat("A", 257) + ", value: a}]"), "spec.env[0].name", "may not be more than 256"},
	{"value too long", spec("env: [{name: A, value: " + strings.Repeat("a", 32769) + "}]"), "spec.env[0].value", "may not be more than 32768"},
	{"value with NUL", spec(`env: [{name: A, value: "a\u0000"}]`), "spec.env[0].value", "NUL"},
	{"value that is a number", spec("env: [{name: A, value: 1}]"), "spec.env[0].value", "must be of type string"},
	{"value that is a boolean", spec("env: [{name: A, value: true}]"), "spec.env[0].value", "must be of type string"},
	{"values too long in all", spec("env: " + list(9, "{name: A%d, value: "+strings.Repeat("a", 30000)+"}")), "spec.env", "256 KiB in all"},
	{"too many variables", spec("env: " + list(129, "{name: A%d, value: a}")), "spec.env", "must have at most 128 items"},
	{"secret without a key", spec("env: [{name: A, valueFrom: {secretKeyRef: {name: s}}}]"), "spec.env[0].valueFrom.secretKeyRef.key", "Required value"},
	{"secret without a name", spec("env: [{name: A, valueFrom: {secretKeyRef: {key: k}}}]"), "spec.env[0].valueFrom.secretKeyRef.name", "Required value"},
	{"secret with a namespace in its name", spec("env: [{name: A, valueFrom: {secretKeyRef: {name: other/s, key: k}}}]"), "spec.env[0].valueFrom.secretKeyRef.name", "must be an object name"},
	{"secret with a key ..", spec("env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: ..}}}]"), "spec.env[0].valueFrom.secretKeyRef.key", "not starting with '..'"},
	{"secret with a key .", spec("env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: .}}}]"), "spec.env[0].valueFrom.secretKeyRef.key", "not '.'"},
	{"secret with a path as key", spec("env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: a/b}}}]"), "spec.env[0].valueFrom.secretKeyRef.key", "must be a data key"},
	{"secret with a key that is too long", spec("env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: " + strings.Repeat("k", 254) + "}}}]"), "spec.env[0].valueFrom.secretKeyRef.key", "may not be more than 253"},
	{"ConfigMap with a bad name", spec("env: [{name: A, valueFrom: {configMapKeyRef: {name: -c, key: k}}}]"), "spec.env[0].valueFrom.configMapKeyRef.name", "must be an object name"},
	{"ConfigMap with a name that is too long", spec("env: [{name: A, valueFrom: {configMapKeyRef: {name: " + strings.Repeat("c", 254) + ", key: k}}}]"), "spec.env[0].valueFrom.configMapKeyRef.name", "may not be more than 253"},
	{"optional secret", spec("env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k, optional: true}}}]"), "spec.env[0].valueFrom.secretKeyRef.optional", "unknown field"},
	{"variable from a field of the pod", spec("env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]"), "spec.env[0].valueFrom.fieldRef", "unknown field"},
}

func files(s string) string  { return spec("secretFiles: [" + s + "]") }
func rotate(s string) string { return spec("rotation: {" + s + "}") }

const (
	aFile    = "{mountPath: /run/secrets/db, secretRef: {name: db, keys: [password]}}"
	fileKeys = "spec.secretFiles[0].secretRef.keys"
)

var secretFiles = []refusal{
	{"secret file without a folder", files("{secretRef: {name: db, keys: [a]}}"), "spec.secretFiles[0].mountPath", "Required value"},
	{"secret file without a Secret", files("{mountPath: /a}"), "spec.secretFiles[0].secretRef", "Required value"},
	{"secret file of a Secret without a name", files("{mountPath: /a, secretRef: {keys: [a]}}"), "spec.secretFiles[0].secretRef.name", "Required value"},
	{"secret file of a Secret with an empty name", files("{mountPath: /a, secretRef: {name: '', keys: [a]}}"), "spec.secretFiles[0].secretRef.name", "at least 1 chars long"},
	{"secret file of another namespace", files("{mountPath: /a, secretRef: {name: other/db, keys: [a]}}"), "spec.secretFiles[0].secretRef.name", "must be an object name"},
	{"secret file of a namespace field", files("{mountPath: /a, secretRef: {name: db, namespace: other, keys: [a]}}"), "spec.secretFiles[0].secretRef.namespace", "unknown field"},
	{"secret file with every key", files("{mountPath: /a, secretRef: {name: db}}"), fileKeys, "Required value"},
	{"secret file without keys", files("{mountPath: /a, secretRef: {name: db, keys: []}}"), fileKeys, "at least 1 items"},
	{"secret file with too many keys", files("{mountPath: /a, secretRef: {name: db, keys: " + list(17, "k%d") + "}}"), fileKeys, "must have at most 16 items"},
	{"secret file with a key twice", files("{mountPath: /a, secretRef: {name: db, keys: [a, a]}}"), fileKeys + "[1]", "Duplicate value"},
	{"secret file with an empty key", files("{mountPath: /a, secretRef: {name: db, keys: ['']}}"), fileKeys + "[0]", "at least 1 chars long"},
	{"secret file with a key that climbs", files("{mountPath: /a, secretRef: {name: db, keys: [..]}}"), fileKeys + "[0]", "not starting with '..'"},
	{"secret file with a key of the kubelet's", files("{mountPath: /a, secretRef: {name: db, keys: [..data]}}"), fileKeys + "[0]", "not starting with '..'"},
	{"secret file with a key .", files("{mountPath: /a, secretRef: {name: db, keys: [.]}}"), fileKeys + "[0]", "not '.'"},
	{"secret file with a path as key", files("{mountPath: /a, secretRef: {name: db, keys: [a/b]}}"), fileKeys + "[0]", "must be a data key"},
	{"secret file with a key with a newline", files(`{mountPath: /a, secretRef: {name: db, keys: ["a\n"]}}`), fileKeys + "[0]", "must be a data key"},
	{"secret file with a key that is too long", files("{mountPath: /a, secretRef: {name: db, keys: [" + strings.Repeat("k", 254) + "]}}"), fileKeys + "[0]", "may not be more than 253"},
	{"secret file in a relative folder", files("{mountPath: run/secrets, secretRef: {name: db, keys: [a]}}"), "spec.secretFiles[0].mountPath", "must be an absolute path"},
	{"secret file in a folder that climbs", files("{mountPath: /run/../etc, secretRef: {name: db, keys: [a]}}"), "spec.secretFiles[0].mountPath", "no '.', '..' or empty element"},
	{"secret file in the root", files("{mountPath: /, secretRef: {name: db, keys: [a]}}"), "spec.secretFiles[0].mountPath", "at least 2 chars long"},
	{"secret file in a folder that is too long", files("{mountPath: /" + strings.Repeat("a", 256) + ", secretRef: {name: db, keys: [a]}}"), "spec.secretFiles[0].mountPath", "may not be more than 256"},
	{"secret file in the account's folder", files("{mountPath: /run/secrets/kubernetes.io, secretRef: {name: db, keys: [a]}}"), "spec.secretFiles[0].mountPath", "belong to the runtime"},
	{"secret file in /proc", files("{mountPath: /proc/db, secretRef: {name: db, keys: [a]}}"), "spec.secretFiles[0].mountPath", "belong to the runtime"},
	{"secret file over /tmp", files("{mountPath: /tmp, secretRef: {name: db, keys: [a]}}"), "spec.secretFiles", "must be mounted outside /tmp"},
	{"secret file within /tmp", files("{mountPath: /tmp/db, secretRef: {name: db, keys: [a]}}"), "spec.secretFiles", "must be mounted outside /tmp"},
	{"secret files in one folder", files(aFile + ", {mountPath: /run/secrets/db, secretRef: {name: other, keys: [a]}}"), "spec.secretFiles[1]", "Duplicate value"},
	{"secret files inside one another", files(aFile + ", {mountPath: /run/secrets, secretRef: {name: other, keys: [a]}}"), "spec.secretFiles", "not inside one another"},
	{"too many secret files", spec("secretFiles: " + list(17, "{mountPath: /s%d, secretRef: {name: db, keys: [a]}}")), "spec.secretFiles", "must have at most 16 items"},
	{"secret file with a mode", files("{mountPath: /a, secretRef: {name: db, keys: [a]}, mode: 511}"), "spec.secretFiles[0].mode", "unknown field"},
	{"optional secret file", files("{mountPath: /a, secretRef: {name: db, keys: [a], optional: true}}"), "spec.secretFiles[0].secretRef.optional", "unknown field"},
	{"secret files as an object", spec("secretFiles: {}"), "spec.secretFiles", "must be of type array"},
	{"variable of a Secret with a name that is no key", spec("env: [{name: " + strings.Repeat("A", 254) + ", valueFrom: {secretKeyRef: {name: s, key: k}}}]"), "spec.env[0]", "at most 253 characters: it becomes a key of a Secret"},
}

var rotations = []refusal{
	{"rotation by a strategy that is none", rotate("strategy: Recreate"), "spec.rotation.strategy", `supported values: "Rolling", "Manual"`},
	{"rotation by a strategy in lower case", rotate("strategy: manual"), "spec.rotation.strategy", `supported values: "Rolling", "Manual"`},
	{"rotation by an empty strategy", rotate("strategy: ''"), "spec.rotation.strategy", `supported values: "Rolling", "Manual"`},
	{"rotation with an interval", rotate("interval: 24h"), "spec.rotation.interval", "unknown field"},
	{"age too short", rotate("maxAge: 59s"), "spec.rotation.maxAge", "from 1m to 87600h"},
	{"age 0", rotate("maxAge: 0s"), "spec.rotation.maxAge", "from 1m to 87600h"},
	{"age negative", rotate("maxAge: -1h"), "spec.rotation.maxAge", "from 1m to 87600h"},
	{"age too long", rotate("maxAge: 87600h1s"), "spec.rotation.maxAge", "from 1m to 87600h"},
	{"age in days", rotate("maxAge: 90d"), "spec.rotation.maxAge", "such as 2160h for 90 days"},
	{"age in milliseconds", rotate("maxAge: 90000000ms"), "spec.rotation.maxAge", "hours, minutes and seconds"},
	{"age with a fraction", rotate("maxAge: 1.5h"), "spec.rotation.maxAge", "hours, minutes and seconds"},
	{"age without a unit", rotate("maxAge: '2160'"), "spec.rotation.maxAge", "must be a duration"},
	{"age that is a number", rotate("maxAge: 2160"), "spec.rotation.maxAge", "must be of type string"},
	{"age that is empty", rotate("maxAge: ''"), "spec.rotation.maxAge", "must be a duration"},
	{"age with a newline", rotate(`maxAge: "2160h\n"`), "spec.rotation.maxAge", "must be a duration"},
	{"age of too many characters", rotate("maxAge: " + strings.Repeat("1h", 17)), "spec.rotation.maxAge", "may not be more than 32"},
	{"age beyond every number", rotate("maxAge: 99999999h"), "spec.rotation.maxAge", "from 1m to 87600h"},
	{"debounce too long", rotate("debounce: 1h1s"), "spec.rotation.debounce", "from 0s to 1h"},
	{"debounce negative", rotate("debounce: -1s"), "spec.rotation.debounce", "from 0s to 1h"},
	{"debounce in milliseconds", rotate("debounce: 500ms"), "spec.rotation.debounce", "hours, minutes and seconds"},
	{"debounce that is a number", rotate("debounce: 30"), "spec.rotation.debounce", "must be of type string"},
	{"debounce of too many characters", rotate("debounce: " + strings.Repeat("1s", 17)), "spec.rotation.debounce", "may not be more than 32"},
	{"debounce beyond every number", rotate("debounce: 99999999h"), "spec.rotation.debounce", "from 0s to 1h"},
	{"deadline too short", rotate("progressDeadlineSeconds: 9"), "spec.rotation.progressDeadlineSeconds", "greater than or equal to 10"},
	{"deadline too long", rotate("progressDeadlineSeconds: 3601"), "spec.rotation.progressDeadlineSeconds", "less than or equal to 3600"},
	{"deadline as a duration", rotate("progressDeadlineSeconds: 5m"), "spec.rotation.progressDeadlineSeconds", "must be of type integer"},
}

var resourceAmounts = []refusal{
	{"cpu request above limit", spec("resources: {requests: {cpu: 2}, limits: {cpu: 1500m}}"), "spec.resources", "requests.cpu must not be greater than limits.cpu: lower the request or raise the limit"},
	{"memory request above limit", spec("resources: {requests: {memory: 1Gi}, limits: {memory: 1G}}"), "spec.resources", "requests.memory must not be greater than limits.memory"},
	{"storage request above limit", spec("resources: {requests: {ephemeral-storage: 2Gi}, limits: {ephemeral-storage: 1Gi}}"), "spec.resources", "requests.ephemeral-storage must not be greater than limits.ephemeral-storage"},
	{"cpu too small", spec("resources: {requests: {cpu: 500u}}"), "spec.resources.requests.cpu", "from 1m to 1024"},
	{"cpu 0", spec("resources: {limits: {cpu: 0}}"), "spec.resources.limits.cpu", "from 1m to 1024"},
	{"cpu negative", spec("resources: {limits: {cpu: -1}}"), "spec.resources.limits.cpu", "from 1m to 1024"},
	{"cpu too large", spec("resources: {limits: {cpu: 1025}}"), "spec.resources.limits.cpu", "from 1m to 1024"},
	{"cpu in a unit that is none", spec("resources: {limits: {cpu: 2cores}}"), "spec.resources.limits.cpu", "should match"},
	{"cpu with a fraction and no quotes", spec("resources: {limits: {cpu: 0.5}}"), "spec.resources.limits.cpu", "must be of type"},
	{"cpu empty", spec("resources: {limits: {cpu: ''}}"), "spec.resources.limits.cpu", "should match"},
	{"cpu beyond every number", spec("resources: {limits: {cpu: '1e999999999'}}"), "spec.resources.limits.cpu", "from 1m to 1024"},
	{"cpu request beyond every number", spec("resources: {requests: {cpu: '1e999999999'}, limits: {cpu: 1}}"), "spec.resources.requests.cpu", "from 1m to 1024"},
	{"cpu below every number", spec("resources: {limits: {cpu: '1e-999999999'}}"), "spec.resources.limits.cpu", "from 1m to 1024"},
	{"cpu of too many digits", spec("resources: {limits: {cpu: '1." + strings.Repeat("0", 40) + "'}}"), "spec.resources.limits.cpu", "from 1m to 1024"},
	{"memory beyond every number", spec("resources: {requests: {memory: '1E999999999'}}"), "spec.resources.requests.memory", "from 4Mi to 16Ti"},
	{"storage beyond every number", spec("resources: {limits: {ephemeral-storage: '1e+99999999'}}"), "spec.resources.limits.ephemeral-storage", "from 1Mi to 16Ti"},
	{"cpu with an exponent that is none", spec("resources: {limits: {cpu: '1e.5'}}"), "spec.resources.limits.cpu", "from 1m to 1024"},
	{"memory in thousandths", spec("resources: {limits: {memory: 512m}}"), "spec.resources.limits.memory", "from 4Mi to 16Ti"},
	{"memory without a unit", spec("resources: {limits: {memory: 512}}"), "spec.resources.limits.memory", "such as 256Mi or 1Gi"},
	{"memory too large", spec("resources: {limits: {memory: 17Ti}}"), "spec.resources.limits.memory", "from 4Mi to 16Ti"},
	{"memory too small", spec("resources: {requests: {memory: 4095Ki}}"), "spec.resources.requests.memory", "from 4Mi to 16Ti"},
	{"memory in a unit that is none", spec("resources: {limits: {memory: 512MB}}"), "spec.resources.limits.memory", "should match"},
	{"memory with a space", spec("resources: {limits: {memory: '512 Mi'}}"), "spec.resources.limits.memory", "should match"},
	{"storage too small", spec("resources: {limits: {ephemeral-storage: 1023Ki}}"), "spec.resources.limits.ephemeral-storage", "from 1Mi to 16Ti"},
	{"storage too large", spec("resources: {requests: {ephemeral-storage: 17Ti}}"), "spec.resources.requests.ephemeral-storage", "from 1Mi to 16Ti"},
	{"a resource that is not offered", spec("resources: {limits: {nvidia.com/gpu: 1}}"), "spec.resources.limits.nvidia.com/gpu", "unknown field"},
	{"claims", spec("resources: {claims: [{name: gpu}]}"), "spec.resources.claims", "unknown field"},
}

func writable(s string) string { return spec("filesystem: {writablePaths: [" + s + "]}") }
func data(s string) string     { return spec("filesystem: {data: [" + s + "]}") }

var filesystems = []refusal{
	{"writable path relative", writable("{path: cache}"), "spec.filesystem.writablePaths[0].path", "must be an absolute path such as /var/cache/app"},
	{"writable path climbing", writable("{path: /var/../etc}"), "spec.filesystem.writablePaths[0].path", "no '.', '..' or empty element"},
	{"writable path ending in ..", writable("{path: /var/..}"), "spec.filesystem.writablePaths[0].path", "no '.', '..' or empty element"},
	{"writable path with a dot", writable("{path: /var/./cache}"), "spec.filesystem.writablePaths[0].path", "no '.', '..' or empty element"},
	{"writable path with a trailing slash", writable("{path: /cache/}"), "spec.filesystem.writablePaths[0].path", "no trailing '/'"},
	{"writable path with two slashes", writable("{path: /var//cache}"), "spec.filesystem.writablePaths[0].path", "empty element"},
	{"writable root", writable("{path: /}"), "spec.filesystem.writablePaths[0].path", "at least 2 chars long"},
	{"writable path with a newline", writable(`{path: "/cache\n"}`), "spec.filesystem.writablePaths[0].path", "must be an absolute path"},
	{"writable path with a colon", writable("{path: '/cache:/etc'}"), "spec.filesystem.writablePaths[0].path", "letters, digits and -._@+"},
	{"writable path with a variable", writable("{path: '/cache/$(HOME)'}"), "spec.filesystem.writablePaths[0].path", "letters, digits and -._@+"},
	{"writable path too long", writable("{path: /" + strings.Repeat("a", 256) + "}"), "spec.filesystem.writablePaths[0].path", "may not be more than 256"},
	{"writable path missing", writable("{sizeLimit: 1Mi}"), "spec.filesystem.writablePaths[0].path", "Required value"},
	{"writable /proc", writable("{path: /proc}"), "spec.filesystem.writablePaths[0].path", "belong to the runtime: choose another folder"},
	{"writable within /sys", writable("{path: /sys/fs/cgroup}"), "spec.filesystem.writablePaths[0].path", "belong to the runtime"},
	{"writable within /dev", writable("{path: /dev/shm}"), "spec.filesystem.writablePaths[0].path", "belong to the runtime"},
	{"writable account folder", writable("{path: /var/run/secrets/kubernetes.io/serviceaccount}"), "spec.filesystem.writablePaths[0].path", "service account folder"},
	{"writable account folder by its short way", writable("{path: /run/secrets/kubernetes.io}"), "spec.filesystem.writablePaths[0].path", "service account folder"},
	{"writable within /tmp", writable("{path: /tmp/cache}"), "spec.filesystem.writablePaths", "/tmp is writable already"},
	{"writable paths nested", writable("{path: /var}, {path: /var/cache}"), "spec.filesystem.writablePaths", "list only the outer one"},
	{"writable path twice", writable("{path: /cache}, {path: /cache}"), "spec.filesystem.writablePaths[1]", "Duplicate value"},
	{"too many writable paths", spec("filesystem: {writablePaths: " + list(9, "{path: /cache%d}") + "}"), "spec.filesystem.writablePaths", "must have at most 8 items"},
	{"size limit too small", writable("{path: /cache, sizeLimit: 63Ki}"), "spec.filesystem.writablePaths[0].sizeLimit", "from 64Ki to 1Ti"},
	{"size limit 0", writable("{path: /cache, sizeLimit: 0}"), "spec.filesystem.writablePaths[0].sizeLimit", "from 64Ki to 1Ti"},
	{"size limit negative", writable("{path: /cache, sizeLimit: -1Mi}"), "spec.filesystem.writablePaths[0].sizeLimit", "from 64Ki to 1Ti"},
	{"size limit too large", writable("{path: /cache, sizeLimit: 2Ti}"), "spec.filesystem.writablePaths[0].sizeLimit", "from 64Ki to 1Ti"},
	{"size limit that is none", writable("{path: /cache, sizeLimit: big}"), "spec.filesystem.writablePaths[0].sizeLimit", "should match"},
	{"size limit beyond every number", writable("{path: /cache, sizeLimit: '1e999999999'}"), "spec.filesystem.writablePaths[0].sizeLimit", "from 64Ki to 1Ti"},
	{"size limit below every number", writable("{path: /cache, sizeLimit: '1e-999999999'}"), "spec.filesystem.writablePaths[0].sizeLimit", "from 64Ki to 1Ti"},
	{"size limit of too many digits", writable("{path: /cache, sizeLimit: '100000.0000000000'}"), "spec.filesystem.writablePaths[0].sizeLimit", "from 64Ki to 1Ti"},
	{"size limit in a list", writable("{path: /cache, sizeLimit: [1Mi]}"), "spec.filesystem.writablePaths[0].sizeLimit", "must be of type"},
	{"data from nothing", data("{mountPath: /data}"), "spec.filesystem.data[0]", "set exactly one of claimName and configMapName"},
	{"data from both", data("{mountPath: /data, claimName: a, configMapName: b}"), "spec.filesystem.data[0]", "set exactly one of claimName and configMapName"},
	{"data in a writable ConfigMap", data("{mountPath: /data, configMapName: a, access: ReadWrite}"), "spec.filesystem.data[0]", "a ConfigMap can only be read"},
	{"data with an access that is none", data("{mountPath: /data, claimName: a, access: WriteOnly}"), "spec.filesystem.data[0].access", `supported values: "ReadOnly", "ReadWrite"`},
	{"data without a folder", data("{claimName: a}"), "spec.filesystem.data[0].mountPath", "Required value"},
	{"data in a relative folder", data("{mountPath: data, claimName: a}"), "spec.filesystem.data[0].mountPath", "must be an absolute path"},
	{"data in /proc", data("{mountPath: /proc/self, claimName: a}"), "spec.filesystem.data[0].mountPath", "belong to the runtime"},
	{"data in /tmp", data("{mountPath: /tmp, claimName: a}"), "spec.filesystem.data", "mount data elsewhere"},
	{"data within /tmp", data("{mountPath: /tmp/data, claimName: a}"), "spec.filesystem.data", "mount data elsewhere"},
	{"data folders nested", data("{mountPath: /data, claimName: a}, {mountPath: /data/b, claimName: b}"), "spec.filesystem.data", "choose separate folders"},
	{"data folder twice", data("{mountPath: /data, claimName: a}, {mountPath: /data, claimName: b}"), "spec.filesystem.data[1]", "Duplicate value"},
	{"data folder that is writable too", spec("filesystem: {writablePaths: [{path: /data}], data: [{mountPath: /data, claimName: a}]}"), "spec.filesystem", "must not be equal or lie inside one another"},
	{"data within a writable folder", spec("filesystem: {writablePaths: [{path: /data}], data: [{mountPath: /data/a, claimName: a}]}"), "spec.filesystem", "choose separate folders"},
	{"writable folder within data", spec("filesystem: {writablePaths: [{path: /data/a}], data: [{mountPath: /data, claimName: a}]}"), "spec.filesystem", "choose separate folders"},
	{"claim with a bad name", data("{mountPath: /data, claimName: A}"), "spec.filesystem.data[0].claimName", "must be an object name"},
	{"claim with an empty name", data("{mountPath: /data, claimName: ''}"), "spec.filesystem.data[0].claimName", "at least 1 chars long"},
	{"ConfigMap with a path as name", data("{mountPath: /data, configMapName: ../a}"), "spec.filesystem.data[0].configMapName", "must be an object name"},
	{"sub-path absolute", data("{mountPath: /data, claimName: a, subPath: /docs}"), "spec.filesystem.data[0].subPath", "must be a relative path such as docs/public"},
	{"sub-path climbing", data("{mountPath: /data, claimName: a, subPath: docs/../../b}"), "spec.filesystem.data[0].subPath", "no '.' or '..' element"},
	{"sub-path ..", data("{mountPath: /data, claimName: a, subPath: ..}"), "spec.filesystem.data[0].subPath", "no '.' or '..' element"},
	{"sub-path with a trailing slash", data("{mountPath: /data, claimName: a, subPath: docs/}"), "spec.filesystem.data[0].subPath", "must be a relative path"},
	{"sub-path empty", data("{mountPath: /data, claimName: a, subPath: ''}"), "spec.filesystem.data[0].subPath", "at least 1 chars long"},
	{"sub-path too long", data("{mountPath: /data, claimName: a, subPath: " + strings.Repeat("a", 257) + "}"), "spec.filesystem.data[0].subPath", "may not be more than 256"},
	{"folder of a ConfigMap", data("{mountPath: /data, configMapName: a, subPath: docs/public}"), "spec.filesystem.data[0]", "one of its keys"},
	{"too many data folders", spec("filesystem: {data: " + list(17, "{mountPath: /data%d, claimName: a}") + "}"), "spec.filesystem.data", "must have at most 16 items"},
	{"host path", data("{mountPath: /data, hostPath: /etc}"), "spec.filesystem.data[0].hostPath", "unknown field"},
}

func ingress(s string) string { return spec("network: {ingress: [" + s + "]}") }
func egress(s string) string  { return spec("network: {egress: [" + s + "]}") }
func cidr(s string) string    { return egress("{to: {cidr: '" + s + "'}, ports: [443]}") }

const toCIDR = "spec.network.egress[0].to.cidr"

func host(s string) string { return egress("{to: {host: '" + s + "'}, ports: [443]}") }

const toHost = "spec.network.egress[0].to.host"

var hosts = []refusal{
	{"host that is empty", host(""), toHost, "at least 3 chars long"},
	{"host of one label", host("localhost"), toHost, "at least two labels"},
	{"host in upper case", host("API.example.com"), toHost, "in lower case"},
	{"host with a trailing dot", host("api.example.com."), toHost, "no trailing dot"},
	{"host with a leading dot", host(".example.com"), toHost, "at least two labels"},
	{"host with an empty label", host("api..example.com"), toHost, "at least two labels"},
	{"host with a scheme", host("https://api.example.com"), toHost, "no scheme"},
	{"host with a port", host("api.example.com:443"), toHost, "no port"},
	{"host with a path", host("api.example.com/v1"), toHost, "at least two labels"},
	{"host with a user", host("user@api.example.com"), toHost, "at least two labels"},
	{"host with white space", host(" api.example.com"), toHost, "at least two labels"},
	{"host with a newline", egress(`{to: {host: "api.example.com\n"}, ports: [443]}`), toHost, "at least two labels"},
	{"host with an underscore", host("my_api.example.com"), toHost, "at least two labels"},
	{"host that starts with a hyphen", host("-api.example.com"), toHost, "at least two labels"},
	{"host with a label that ends with a hyphen", host("api-.example.com"), toHost, "at least two labels"},
	{"host with a label too long", host(strings.Repeat("a", 64) + ".example.com"), toHost, "at least two labels"},
	{"host too long", host(strings.Repeat("a.", 126) + "ab"), toHost, "may not be more than 253"},
	{"host of other letters", host("bücher.example.com"), toHost, "in their xn-- form"},
	{"host that is an address", host("203.0.113.10"), toHost, "no address"},
	{"host that is a short address", host("127.1"), toHost, "no address"},
	{"host that is an address in hex", host("0x7f.0x1"), toHost, "no address"},
	{"host that is a number", host("2130706433"), toHost, "no address"},
	{"host that is an IPv6 address", host("[2001:db8::1]"), toHost, "no address"},
	{"every host", host("*"), toHost, "at least 3 chars long"},
	{"every host of one domain of the root", host("*.com"), toHost, "after '*.'"},
	{"every host of the root", host("*.*"), toHost, "after '*.'"},
	{"wildcard within a label", host("api*.example.com"), toHost, "after '*.'"},
	{"wildcard in the middle", host("api.*.example.com"), toHost, "after '*.'"},
	{"two wildcards", host("*.*.example.com"), toHost, "after '*.'"},
	{"a proxy's variable beside a host", spec("env: [{name: HTTPS_PROXY, value: 'http://proxy.example:3128'}], network: {egress: [{to: {host: api.example.com}, ports: [443]}]}"), "spec.env", "are set for the server"},
	{"a proxy's exception beside a host", spec("env: [{name: no_proxy, value: '*'}], network: {egress: [{to: {host: api.example.com}, ports: [443]}]}"), "spec.env", "are set for the server"},
}

var networks = []refusal{
	{"ingress from an empty peer", ingress("{}"), "spec.network.ingress[0]", "set namespaceSelector, podSelector or both"},
	{"ingress from an address", ingress("{cidr: 10.0.0.0/8}"), "spec.network.ingress[0].cidr", "unknown field"},
	{"ingress from too many", spec("network: {ingress: " + list(33, "{podSelector: {}}") + "}"), "spec.network.ingress", "must have at most 32 items"},
	{"enforcement of another kind", spec("network: {enforcement: Enforce}"), "spec.network.enforcement", "supported values: \"Report\", \"Require\""},
	{"egress to nothing", egress("{to: {}, ports: [443]}"), "spec.network.egress[0].to", "set exactly one of host, cidr, service and pods"},
	{"egress without a target", egress("{ports: [443]}"), "spec.network.egress[0].to", "Required value"},
	{"egress to two targets", egress("{to: {cidr: 203.0.113.0/24, service: {name: a}}, ports: [443]}"), "spec.network.egress[0].to", "set exactly one of host, cidr, service and pods"},
	{"egress to three targets", egress("{to: {cidr: 203.0.113.0/24, service: {name: a}, pods: {podSelector: {}}}, ports: [443]}"), "spec.network.egress[0].to", "set exactly one of host, cidr, service and pods"},
	{"egress to a host and a range", egress("{to: {host: api.example.com, cidr: 203.0.113.0/24}, ports: [443]}"), "spec.network.egress[0].to", "set exactly one of host, cidr, service and pods"},
	{"egress to a host without ports", egress("{to: {host: api.example.com}}"), "spec.network.egress[0].ports", "Required value"},
	{"encrypted client hello for a range", egress("{to: {cidr: 203.0.113.0/24}, ports: [443], encryptedClientHello: Allow}"), "spec.network.egress[0]", "set it only where to.host is set"},
	{"encrypted client hello of another kind", egress("{to: {host: api.example.com}, ports: [443], encryptedClientHello: Yes please}"), "spec.network.egress[0].encryptedClientHello", "Unsupported value"},
	{"egress without ports", egress("{to: {cidr: 203.0.113.0/24}}"), "spec.network.egress[0].ports", "Required value"},
	{"egress with no ports", egress("{to: {cidr: 203.0.113.0/24}, ports: []}"), "spec.network.egress[0].ports", "at least 1 items"},
	{"egress to port 0", egress("{to: {cidr: 203.0.113.0/24}, ports: [0]}"), "spec.network.egress[0].ports[0]", "greater than or equal to 1"},
	{"egress to port 65536", egress("{to: {cidr: 203.0.113.0/24}, ports: [65536]}"), "spec.network.egress[0].ports[0]", "less than or equal to 65535"},
	{"egress to a named port", egress("{to: {cidr: 203.0.113.0/24}, ports: [https]}"), "spec.network.egress[0].ports[0]", "must be of type integer"},
	{"egress to a port twice", egress("{to: {cidr: 203.0.113.0/24}, ports: [443, 443]}"), "spec.network.egress[0].ports[1]", "Duplicate value"},
	{"egress to too many ports", egress("{to: {cidr: 203.0.113.0/24}, ports: " + list(33, "1%d") + "}"), "spec.network.egress[0].ports", "must have at most 32 items"},
	{"too many egress rules", spec("network: {egress: " + list(65, "{to: {cidr: 203.0.113.0/24}, ports: [443]}") + "}"), "spec.network.egress", "must have at most 64 items"},
	{"egress to pods that are not named", egress("{to: {pods: {}}, ports: [443]}"), "spec.network.egress[0].to.pods", "set namespaceSelector, podSelector or both"},
	{"cidr with host bits", cidr("203.0.113.7/24"), toCIDR, "no bit set beyond the prefix"},
	{"cidr without a prefix", cidr("203.0.113.7"), toCIDR, "for one address use /32 or /128"},
	{"cidr with a prefix too long", cidr("203.0.113.0/33"), toCIDR, "must be an address range"},
	{"cidr with a prefix in leading zeros", cidr("10.0.0.0/08"), toCIDR, "must be an address range"},
	{"cidr with an address in leading zeros", cidr("010.0.0.0/8"), toCIDR, "must be an address range"},
	{"cidr with a mask", cidr("10.0.0.0/255.0.0.0"), toCIDR, "must be an address range"},
	{"cidr that is a host name", cidr("api.example/32"), toCIDR, "must be an address range"},
	{"cidr that is empty", cidr(""), toCIDR, "at least 1 chars long"},
	{"cidr with white space", cidr(" 203.0.113.0/24"), toCIDR, "must be an address range"},
	{"cidr with a newline", egress(`{to: {cidr: "203.0.113.0/24\n"}, ports: [443]}`), toCIDR, "must be an address range"},
	{"cidr too long", cidr(strings.Repeat("1", 50)), toCIDR, "may not be more than 49"},
	{"cidr of IPv6 with host bits", cidr("2001:db8::1/32"), toCIDR, "no bit set beyond the prefix"},
	{"cidr of IPv6 with a zone", cidr("fe80::1%eth0/128"), toCIDR, "must be an address range"},
	{"cidr of IPv6 with a prefix too long", cidr("2001:db8::/129"), toCIDR, "must be an address range"},
	{"cidr of IPv4 within IPv6", cidr("::ffff:203.0.113.0/120"), toCIDR, "must be an address range"},
	{"cidr of the metadata service", cidr("169.254.169.254/32"), toCIDR, "cloud metadata addresses, which no rule opens: name another range"},
	{"cidr of link-local", cidr("169.254.0.0/16"), toCIDR, "lies wholly within"},
	{"cidr of loopback", cidr("127.0.0.1/32"), toCIDR, "lies wholly within"},
	{"cidr of this network", cidr("0.0.0.0/32"), toCIDR, "lies wholly within"},
	{"cidr of multicast", cidr("224.0.0.0/24"), toCIDR, "lies wholly within"},
	{"cidr of broadcast", cidr("255.255.255.255/32"), toCIDR, "lies wholly within"},
	{"cidr of Azure's metadata", cidr("168.63.129.16/32"), toCIDR, "lies wholly within"},
	{"cidr of Alibaba's metadata", cidr("100.100.100.200/32"), toCIDR, "lies wholly within"},
	{"cidr of Oracle's metadata", cidr("192.0.0.192/32"), toCIDR, "lies wholly within"},
	{"cidr of IPv6 link-local", cidr("fe80::/64"), toCIDR, "lies wholly within"},
	{"cidr of IPv6 loopback", cidr("::1/128"), toCIDR, "lies wholly within"},
	{"cidr of IPv6 unspecified", cidr("::/128"), toCIDR, "lies wholly within"},
	{"cidr of IPv6 multicast", cidr("ff02::/16"), toCIDR, "lies wholly within"},
	{"cidr of Amazon's IPv6 metadata", cidr("fd00:ec2::254/128"), toCIDR, "lies wholly within"},
	{"cidr of Google's IPv6 metadata", cidr("fd20:ce::254/128"), toCIDR, "lies wholly within"},
	{"cidr of link-local behind NAT64", cidr("64:ff9b::a9fe:a9fe/128"), toCIDR, "lies wholly within"},
	{"service with its namespace in the name", egress("{to: {service: {name: data/postgres}}, ports: [5432]}"), "spec.network.egress[0].to.service.name", "the namespace goes into service.namespace"},
	{"service with its DNS name", egress("{to: {service: {name: postgres.data.svc}}, ports: [5432]}"), "spec.network.egress[0].to.service.name", "must be the name of a Service"},
	{"service without a name", egress("{to: {service: {namespace: data}}, ports: [5432]}"), "spec.network.egress[0].to.service.name", "Required value"},
	{"service with a name too long", egress("{to: {service: {name: " + strings.Repeat("a", 64) + "}}, ports: [5432]}"), "spec.network.egress[0].to.service.name", "may not be more than 63"},
	{"service in a bad namespace", egress("{to: {service: {name: postgres, namespace: Data}}, ports: [5432]}"), "spec.network.egress[0].to.service.namespace", "must be the name of a namespace"},
	{"service in an empty namespace", egress("{to: {service: {name: postgres, namespace: ''}}, ports: [5432]}"), "spec.network.egress[0].to.service.namespace", "at least 1 chars long"},
}

const podSelector = "spec.network.ingress[0].podSelector"

func expression(s string) string {
	return ingress("{podSelector: {matchExpressions: [{" + s + "}]}}")
}

var selectors = []refusal{
	{"label value with a space", ingress("{podSelector: {matchLabels: {role: 'an agent'}}}"), podSelector + ".matchLabels[role]", "must be a label value"},
	{"label value with a trailing dash", ingress("{podSelector: {matchLabels: {role: agent-}}}"), podSelector + ".matchLabels[role]", "starting and ending with a letter or digit"},
	{"label value too long", ingress("{podSelector: {matchLabels: {role: " + strings.Repeat("a", 64) + "}}}"), podSelector + ".matchLabels.role", "may not be more than 63"},
	{"label value that is a number", ingress("{podSelector: {matchLabels: {role: 1}}}"), podSelector + ".matchLabels.role", "must be of type string"},
	{"label key with a space", ingress("{podSelector: {matchLabels: {'a role': agent}}}"), podSelector + ".matchLabels", "every key must be a label key"},
	{"label key empty", ingress("{podSelector: {matchLabels: {'': agent}}}"), podSelector + ".matchLabels", "every key must be a label key"},
	{"label key with two slashes", ingress("{podSelector: {matchLabels: {a/b/c: agent}}}"), podSelector + ".matchLabels", "every key must be a label key"},
	{"label key with an empty prefix", ingress("{podSelector: {matchLabels: {/role: agent}}}"), podSelector + ".matchLabels", "every key must be a label key"},
	{"label key with a bad prefix", ingress("{podSelector: {matchLabels: {a..b/role: agent}}}"), podSelector + ".matchLabels", "every key must be a label key"},
	{"label key too long", ingress("{podSelector: {matchLabels: {" + strings.Repeat("a", 64) + ": agent}}}"), podSelector + ".matchLabels", "at most 63"},
	{"label key far too long", ingress("{podSelector: {matchLabels: {" + strings.Repeat("a", 1000) + ": agent}}}"), podSelector + ".matchLabels", "at most 63"},
	{"label key of a namespace", ingress("{namespaceSelector: {matchLabels: {'a b': agent}}}"), "spec.network.ingress[0].namespaceSelector.matchLabels", "every key must be a label key"},
	{"label key of an egress target", egress("{to: {pods: {podSelector: {matchLabels: {'a b': c}}}}, ports: [1]}"), "spec.network.egress[0].to.pods.podSelector.matchLabels", "every key must be a label key"},
	{"too many labels", ingress("{podSelector: {matchLabels: {a: a, b: a, c: a, d: a, e: a, f: a, g: a, h: a, i: a}}}"), podSelector + ".matchLabels", "must have at most 8 items"},
	{"In without values", expression("key: role, operator: In"), podSelector + ".matchExpressions[0]", "In and NotIn need values"},
	{"NotIn with no values", expression("key: role, operator: NotIn, values: []"), podSelector + ".matchExpressions[0]", "In and NotIn need values"},
	{"Exists with values", expression("key: role, operator: Exists, values: [a]"), podSelector + ".matchExpressions[0]", "Exists and DoesNotExist take none"},
	{"operator that is none", expression("key: role, operator: Equals, values: [a]"), podSelector + ".matchExpressions[0].operator", `supported values: "In", "NotIn", "Exists", "DoesNotExist"`},
	{"operator of nodes only", expression("key: role, operator: Gt, values: ['1']"), podSelector + ".matchExpressions[0].operator", `supported values: "In", "NotIn", "Exists", "DoesNotExist"`},
	{"operator missing", expression("key: role"), podSelector + ".matchExpressions[0].operator", "Required value"},
	{"expression without a key", expression("operator: Exists"), podSelector + ".matchExpressions[0].key", "Required value"},
	{"expression with a bad key", expression("key: a b, operator: Exists"), podSelector + ".matchExpressions[0].key", "must be a label key such as role or example.com/role"},
	{"expression with a bad prefix", expression("key: a..b/c, operator: Exists"), podSelector + ".matchExpressions[0].key", "must be a label key"},
	{"expression with a prefix too long", expression("key: " + strings.Repeat("a", 254) + "/c, operator: Exists"), podSelector + ".matchExpressions[0].key", "optional DNS prefix"},
	{"expression with a key too long", expression("key: " + strings.Repeat("a", 318) + ", operator: Exists"), podSelector + ".matchExpressions[0].key", "may not be more than 317"},
	{"expression with a bad value", expression("key: role, operator: In, values: ['a b']"), podSelector + ".matchExpressions[0].values[0]", "must be a label value"},
	{"expression with too many values", expression("key: role, operator: In, values: " + list(17, "v%d")), podSelector + ".matchExpressions[0].values", "must have at most 16 items"},
	{"too many expressions", ingress("{podSelector: {matchExpressions: " + list(9, "{key: k%d, operator: Exists}") + "}}"), podSelector + ".matchExpressions", "must have at most 8 items"},
}

func place(s string) string { return spec("scheduling: {" + s + "}") }
func nodeTerm(s string) string {
	return place("affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [" + s + "]}}}")
}
func podTerm(s string) string {
	return place("affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [" + s + "]}}")
}

const (
	nodeTerms = "spec.scheduling.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
	podTerms  = "spec.scheduling.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution"
)

var scheduling = []refusal{
	{"node label with a bad value", place("nodeSelector: {disk: 'a b'}"), "spec.scheduling.nodeSelector[disk]", "must be a label value"},
	{"node label with a bad key", place("nodeSelector: {'a b': ssd}"), "spec.scheduling.nodeSelector", "every key must be a label key"},
	{"node label that is a boolean", place("nodeSelector: {disk: true}"), "spec.scheduling.nodeSelector.disk", "must be of type string"},
	{"too many node labels", place("nodeSelector: {a: a, b: a, c: a, d: a, e: a, f: a, g: a, h: a, i: a}"), "spec.scheduling.nodeSelector", "must have at most 8 items"},
	{"toleration of everything without Exists", place("tolerations: [{}]"), "spec.scheduling.tolerations[0]", "without a key the operator must be Exists"},
	{"toleration Exists with a value", place("tolerations: [{key: a, operator: Exists, value: b}]"), "spec.scheduling.tolerations[0]", "remove value, or use operator Equal"},
	{"toleration with an operator that is none", place("tolerations: [{key: a, operator: In}]"), "spec.scheduling.tolerations[0].operator", `supported values: "Equal", "Exists"`},
	{"toleration with an effect that is none", place("tolerations: [{key: a, effect: Never}]"), "spec.scheduling.tolerations[0].effect", `supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"`},
	{"toleration with seconds for another effect", place("tolerations: [{key: a, effect: NoSchedule, tolerationSeconds: 1}]"), "spec.scheduling.tolerations[0]", "tolerationSeconds goes with effect NoExecute only"},
	{"toleration with seconds for no effect", place("tolerations: [{key: a, tolerationSeconds: 1}]"), "spec.scheduling.tolerations[0]", "tolerationSeconds goes with effect NoExecute only"},
	{"toleration with negative seconds", place("tolerations: [{key: a, effect: NoExecute, tolerationSeconds: -1}]"), "spec.scheduling.tolerations[0].tolerationSeconds", "greater than or equal to 0"},
	{"toleration with too many seconds", place("tolerations: [{key: a, effect: NoExecute, tolerationSeconds: 2147483648}]"), "spec.scheduling.tolerations[0].tolerationSeconds", "less than or equal to 2147483647"},
	{"toleration with a bad key", place("tolerations: [{key: 'a b'}]"), "spec.scheduling.tolerations[0].key", "must be a label key"},
	{"toleration with a bad value", place("tolerations: [{key: a, value: '-b'}]"), "spec.scheduling.tolerations[0].value", "must be a label value"},
	{"too many tolerations", place("tolerations: " + list(17, "{key: k%d}")), "spec.scheduling.tolerations", "must have at most 16 items"},
	{"node affinity without terms", nodeTerm(""), nodeTerms, "at least 1 items"},
	{"node affinity with an empty term", nodeTerm("{}"), nodeTerms + "[0]", "matches no node: add one"},
	{"node affinity with a term of no expression", nodeTerm("{matchExpressions: []}"), nodeTerms + "[0]", "matches no node: add one"},
	{"node affinity by field", nodeTerm("{matchFields: [{key: metadata.name, operator: In, values: [a]}]}"), nodeTerms + "[0].matchFields", "unknown field"},
	{"node affinity In without values", nodeTerm("{matchExpressions: [{key: a, operator: In}]}"), nodeTerms + "[0].matchExpressions[0]", "In, NotIn, Gt and Lt need values"},
	{"node affinity Exists with values", nodeTerm("{matchExpressions: [{key: a, operator: Exists, values: [b]}]}"), nodeTerms + "[0].matchExpressions[0]", "Exists and DoesNotExist take none"},
	{"node affinity Gt without a number", nodeTerm("{matchExpressions: [{key: a, operator: Gt, values: [many]}]}"), nodeTerms + "[0].matchExpressions[0]", "exactly one value, a whole number"},
	{"node affinity Lt with two numbers", nodeTerm("{matchExpressions: [{key: a, operator: Lt, values: ['1', '2']}]}"), nodeTerms + "[0].matchExpressions[0]", "exactly one value, a whole number"},
	{"node affinity with an operator that is none", nodeTerm("{matchExpressions: [{key: a, operator: Equal, values: [b]}]}"), nodeTerms + "[0].matchExpressions[0].operator", `supported values: "In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"`},
	{"node affinity with a bad key", nodeTerm("{matchExpressions: [{key: a/, operator: Exists}]}"), nodeTerms + "[0].matchExpressions[0].key", "must be a label key"},
	{"node affinity with a bad value", nodeTerm("{matchExpressions: [{key: a, operator: In, values: ['b c']}]}"), nodeTerms + "[0].matchExpressions[0].values[0]", "must be a label value"},
	{"node affinity with too many terms", nodeTerm(strings.Trim(list(9, "{matchExpressions: [{key: a, operator: Exists}]}"), "[]")), nodeTerms, "must have at most 8 items"},
	{"node preference of weight 0", place("affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 0, preference: {matchExpressions: [{key: a, operator: Exists}]}}]}}"), "spec.scheduling.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight", "greater than or equal to 1"},
	{"node preference of weight 101", place("affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 101, preference: {matchExpressions: [{key: a, operator: Exists}]}}]}}"), "spec.scheduling.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight", "less than or equal to 100"},
	{"node preference for nothing", place("affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1}]}}"), "spec.scheduling.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference", "Required value"},
	{"pod affinity without a selector", podTerm("{topologyKey: kubernetes.io/hostname}"), podTerms + "[0].labelSelector", "Required value"},
	{"pod affinity without a place", podTerm("{labelSelector: {}}"), podTerms + "[0].topologyKey", "Required value"},
	{"pod affinity with an empty place", podTerm("{labelSelector: {}, topologyKey: ''}"), podTerms + "[0].topologyKey", "at least 1 chars long"},
	{"pod affinity with a bad place", podTerm("{labelSelector: {}, topologyKey: a b}"), podTerms + "[0].topologyKey", "must be a label key"},
	{"pod affinity with a bad label key", podTerm("{labelSelector: {matchLabels: {'a b': c}}, topologyKey: zone}"), podTerms + "[0].labelSelector.matchLabels", "every key must be a label key"},
	{"pod affinity by list of namespaces", podTerm("{labelSelector: {}, topologyKey: zone, namespaces: [other]}"), podTerms + "[0].namespaces", "unknown field"},
	{"pod affinity with too many terms", podTerm(strings.Trim(list(5, "{labelSelector: {}, topologyKey: zone}"), "[]")), podTerms, "must have at most 4 items"},
	{"pod preference without a term", place("affinity: {podAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1}]}}"), "spec.scheduling.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm", "Required value"},
	{"pod preference of weight 0", place("affinity: {podAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 0, podAffinityTerm: {labelSelector: {}, topologyKey: zone}}]}}"), "spec.scheduling.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight", "greater than or equal to 1"},
	{"spread without a skew", place("topologySpreadConstraints: [{topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]"), "spec.scheduling.topologySpreadConstraints[0].maxSkew", "Required value"},
	{"spread with a skew of 0", place("topologySpreadConstraints: [{maxSkew: 0, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]"), "spec.scheduling.topologySpreadConstraints[0].maxSkew", "greater than or equal to 1"},
	{"spread with a skew of 101", place("topologySpreadConstraints: [{maxSkew: 101, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]"), "spec.scheduling.topologySpreadConstraints[0].maxSkew", "less than or equal to 100"},
	{"spread with a behaviour that is none", place("topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: Evict}]"), "spec.scheduling.topologySpreadConstraints[0].whenUnsatisfiable", `supported values: "DoNotSchedule", "ScheduleAnyway"`},
	{"spread over a bad place", place("topologySpreadConstraints: [{maxSkew: 1, topologyKey: a b, whenUnsatisfiable: DoNotSchedule}]"), "spec.scheduling.topologySpreadConstraints[0].topologyKey", "must be a label key"},
	{"spread twice the same", place("topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}, {maxSkew: 2, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]"), "spec.scheduling.topologySpreadConstraints[1]", "Duplicate value"},
	{"spread over too many places", place("topologySpreadConstraints: " + list(9, "{maxSkew: 1, topologyKey: z%d, whenUnsatisfiable: DoNotSchedule}")), "spec.scheduling.topologySpreadConstraints", "must have at most 8 items"},
	{"priority of the system", place("priorityClassName: system-cluster-critical"), "spec.scheduling.priorityClassName", "name another PriorityClass"},
	{"priority with a bad name", place("priorityClassName: High"), "spec.scheduling.priorityClassName", "must be an object name"},
	{"priority with an empty name", place("priorityClassName: ''"), "spec.scheduling.priorityClassName", "at least 1 chars long"},
	{"runtime with a bad name", place("runtimeClassName: 'g visor'"), "spec.scheduling.runtimeClassName", "must be an object name"},
	{"runtime with a name too long", place("runtimeClassName: " + strings.Repeat("g", 254)), "spec.scheduling.runtimeClassName", "may not be more than 253"},
	{"a node by name", place("nodeName: node-1"), "spec.scheduling.nodeName", "unknown field"},
}

var shapes = []refusal{
	{"a security context", spec("securityContext: {privileged: true}"), "spec.securityContext", "unknown field"},
	{"a pod template", spec("template: {spec: {hostNetwork: true}}"), "spec.template", "unknown field"},
	{"a service account", spec("serviceAccountName: admin"), "spec.serviceAccountName", "unknown field"},
	{"volumes", spec("volumes: [{name: a, hostPath: {path: /}}]"), "spec.volumes", "unknown field"},
	{"a field in other letters", spec("Image: server"), "spec.Image", "unknown field"},
	{"an unknown field of the object", "spec2: {}", "spec2", "unknown field"},
	{"spec as a list", "spec: []", "spec", "must be of type object"},
	{"spec as a string", "spec: run it", "spec", "must be of type object"},
	{"env as an object", spec("env: {}"), "spec.env", "must be of type array"},
	{"network as a string", spec("network: open"), "spec.network", "must be of type object"},
	{"an entry of a list that is null", spec("env: [" + null + "]"), "spec.env[0]", "must be of type object"},
	{"a null argument", spec("args: [" + null + "]"), "spec.args[0]", "must be of type string"},
}

func TestRefused(t *testing.T) {
	if len(refusals) < 80 {
		t.Errorf("%d refused specs are tested, want at least 80", len(refusals))
	}
	for _, tc := range refusals {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			checkRefused(t, create(t, patched(t, tc.patch)), tc)
		})
	}
}

// checkRefused expects an error that names the field and the fix.
func checkRefused(t *testing.T, err error, want refusal) {
	t.Helper()
	if err == nil {
		t.Fatal("accepted")
	}
	if want.fix == "unknown field" {
		text := `unknown field "` + want.field + `"`
		if !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want a bad request with %s", err, text)
		}
		return
	}
	if !apierrors.IsInvalid(err) {
		t.Fatalf("not refused as invalid: %v", err)
	}
	if !slices.ContainsFunc(causes(err), func(c metav1.StatusCause) bool {
		return c.Field == want.field && strings.Contains(c.Message, want.fix)
	}) {
		t.Errorf("no cause names field %q with %q:\n%s", want.field, want.fix, describe(err))
	}
	if strings.Contains(err.Error(), "internal error") || strings.Contains(err.Error(), "rule: Forbidden") {
		t.Errorf("the rule itself failed: %v", err)
	}
}

// causes of an error; the field of a rule of the whole object is "<nil>", which means the root.
func causes(err error) []metav1.StatusCause {
	status := apierrors.APIStatus(nil)
	if !errors.As(err, &status) || status.Status().Details == nil {
		return nil
	}
	out := slices.Clone(status.Status().Details.Causes)
	for i := range out {
		if out[i].Field == "<nil>" {
			out[i].Field = ""
		}
	}
	return out
}

func describe(err error) string {
	var b strings.Builder
	for _, c := range causes(err) {
		b.WriteString("  " + c.Field + ": " + c.Message + "\n")
	}
	return b.String()
}
