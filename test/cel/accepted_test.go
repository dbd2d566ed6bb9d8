package cel

import (
	"strings"
	"testing"
)

// accepted are forms that users expect to work, as patches of the base.
var accepted = []struct{ name, patch string }{
	{"the base", "{}"},
	{"a name of one letter", "metadata: {name: a}"},
	{"the longest name", "metadata: {name: " + strings.Repeat("a", 63) + "}"},
	{"a generated name", "metadata: {name: null, generateName: github-}"},
	{"image without registry and tag", spec("image: server")},
	{"image by digest", spec("image: registry.example/team/server@sha256:" + strings.Repeat("0a", 32))},
	{"image by tag and digest", spec("image: registry.example/team/server:v1@sha256:" + strings.Repeat("0a", 32))},
	{"registry with a port", spec("image: registry.example:5000/server:v1")},
	{"registry with the highest port", spec("image: registry.example:65535/server:v1")},
	{"registry without a dot", spec("image: localhost:5000/server")},
	{"registry by IPv4 address", spec("image: 10.0.0.1:5000/server")},
	{"registry by IPv6 address", spec("image: '[2001:db8::1]:5000/server'")},
	{"nested repository", spec("image: europe-docker.pkg.dev/project/repo/team/a.b/c_d/e__f/g--h:1.2.3-rc.1_x")},
	{"longest tag", spec("image: server:" + strings.Repeat("a", 128))},
	{"longest name of an image", spec("image: " + strings.Repeat("a", 255) + ":v1@sha256:" + strings.Repeat("0a", 32))},
	{"pull secrets", spec("imagePullSecrets: [{name: a}, {name: b.c}]")},
	{"command and args", spec(`command: [/bin/server], args: ["", "--a=b c", "line\nline", "ünïcode", "$(HOME)"]`)},
	{"empty lists", spec("command: [], args: [], env: [], imagePullSecrets: [], network: {ingress: [], egress: []}, filesystem: {writablePaths: [], data: []}")},
	{"a proof required", spec("network: {enforcement: Require}")},
	{"a proof reported", spec("network: {enforcement: Report}")},
	{"empty objects", spec("network: {}, filesystem: {}, resources: {requests: {}, limits: {}}, scheduling: {affinity: {}}")},
	{"port 1", spec("transport: {port: 1}")},
	{"port 443", spec("transport: {port: 443}")},
	{"port 65535", spec("transport: {port: 65535}")},
	{"stdio", spec("transport: {type: Stdio, port: null}, command: [/server], args: [stdio]")},
	{"stdio with the Service on any port and path", spec("transport: {type: Stdio, port: 29010, path: /files}, command: [/server]")},
	{"path /", spec("transport: {path: /}")},
	{"a certificate", spec("transport: {tls: {secretName: server-tls}}")},
	{"path with a trailing slash", spec("transport: {path: /v1/mcp/}")},
	{"path with dots in names", spec("transport: {path: /a.b/..c/.well-known/~x}")},
	{"variables of every kind", spec(`env: [{name: A, value: ""}, {name: _b.c-D, value: "line\nline"}, {name: C, valueFrom: {secretKeyRef: {name: s, key: .dockerconfigjson}}}, {name: D, valueFrom: {configMapKeyRef: {name: c, key: a.b_c-d}}}]`)},
	{"values of 256 KiB in all", spec("env: " + list(8, "{name: A%d, value: "+strings.Repeat("a", 32768)+"}"))},
	{"longest name of a variable", spec("env: [{name: " + strings.Repeat("A", 256) + ", value: a}, {name: " + strings.Repeat("B", 253) + ", valueFrom: {secretKeyRef: {name: s, key: k}}}]")},
	{"secret files of every kind", files(aFile + ", {mountPath: /run/secrets/db-2, secretRef: {name: a.b, keys: [tls.crt, tls.key, .dockerconfigjson, A_b-c]}}, {mountPath: /tmpfiles, secretRef: {name: db, keys: [password]}}")},
	{"most secret files", spec("secretFiles: " + list(16, "{mountPath: /s%d, secretRef: {name: db, keys: [a]}}"))},
	{"most keys of a secret file", files("{mountPath: /a, secretRef: {name: " + strings.Repeat("a", 253) + ", keys: " + list(16, "k%d") + "}}")},
	{"longest key of a secret file", files("{mountPath: /a, secretRef: {name: db, keys: [" + strings.Repeat("k", 253) + "]}}")},
	{"rotation left empty", rotate("")},
	{"rotation by its defaults", rotate("strategy: Rolling, debounce: 30s, progressDeadlineSeconds: 300")},
	{"rotation with the smallest bounds", rotate("strategy: Manual, maxAge: 1m, debounce: 0s, progressDeadlineSeconds: 10")},
	{"rotation with the largest bounds", rotate("maxAge: 87600h, debounce: 1h, progressDeadlineSeconds: 3600")},
	{"durations of several units", rotate("maxAge: 2159h59m60s, debounce: 59m60s")},
	{"quantities as numbers", spec("resources: {requests: {cpu: 1, memory: 134217728}, limits: {cpu: 2, memory: 268435456}}")},
	{"quantities as strings", spec(`resources: {requests: {cpu: "0.5", memory: 128974848}, limits: {cpu: "1.5", memory: 1.5Gi, ephemeral-storage: 1G}}`)},
	{"quantities with exponents", spec(`resources: {requests: {cpu: "100e-3"}, limits: {cpu: "1e1", memory: "129e6", ephemeral-storage: "1E9"}}`)},
	{"request and limit equal in two forms", spec("resources: {requests: {cpu: 1000m, memory: 1Gi}, limits: {cpu: 1, memory: 1024Mi}}")},
	{"only a request above the default limit", spec("resources: {requests: {cpu: 4, memory: 8Gi}}")},
	{"smallest amounts", spec("resources: {limits: {cpu: 1m, memory: 4Mi, ephemeral-storage: 1Mi}}")},
	{"largest amounts", spec("resources: {limits: {cpu: 1024, memory: 16Ti, ephemeral-storage: 16Ti}}")},
	{"1 replica", spec("replicas: 1")},
	{"100 replicas", spec("replicas: 100")},
	{"stopped", spec("desiredState: Stopped")},
	{"quarantined", spec("desiredState: Quarantined")},
	{"writable paths with and without a bound", writable("{path: /tmp, sizeLimit: 16Mi}, {path: /var/cache/app}, {path: /home/user/.npm, sizeLimit: 1073741824}, {path: /var/cache/app2, sizeLimit: '1e9'}")},
	{"folders that only begin alike", spec("filesystem: {writablePaths: [{path: /data}, {path: /data-b}], data: [{mountPath: /data2, claimName: a}, {mountPath: /tmpfiles, claimName: a}]}")},
	{"data of every kind", data("{mountPath: /a, claimName: a}, {mountPath: /b, claimName: a, subPath: x/y/..z, access: ReadWrite}, {mountPath: /c, configMapName: c.d, access: ReadOnly}, {mountPath: /d/e.yaml, configMapName: c, subPath: e.yaml}")},
	{"anybody in the cluster", ingress("{namespaceSelector: {}}")},
	{"anybody in the namespace", ingress("{podSelector: {}}")},
	{"selectors of every kind", ingress("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: agents}}, podSelector: {matchLabels: {role: '', example.com/Role_1: a.b}, matchExpressions: [{key: a.example/b, operator: In, values: [a, b]}, {key: b, operator: NotIn, values: ['']}, {key: c, operator: Exists}, {key: d, operator: DoesNotExist, values: []}]}}")},
	{"the longest label", ingress("{podSelector: {matchLabels: {" + strings.Repeat("a", 253) + "/" + strings.Repeat("b", 63) + ": " + strings.Repeat("c", 63) + "}}}")},
	{"everywhere over IPv4", cidr("0.0.0.0/0")},
	{"everywhere over IPv6", cidr("::/0")},
	{"one address", cidr("203.0.113.7/32")},
	{"one IPv6 address", cidr("2001:db8::7/128")},
	{"an IPv6 range in capitals", cidr("2001:DB8::/32")},
	{"an IPv6 range in full", cidr("2001:0db8:0000:0000:0000:0000:0000:0000/32")},
	{"private addresses", cidr("10.0.0.0/8")},
	{"a range that holds link-local and more", cidr("169.0.0.0/8")},
	{"hosts", egress("{to: {host: api.github.com}, ports: [443]}, {to: {host: '*.githubusercontent.com'}, ports: [80, 443], encryptedClientHello: Allow}, {to: {host: xn--bcher-kva.example}, ports: [443], encryptedClientHello: Refuse}, {to: {host: a.b}, ports: [65535]}, {to: {host: r3---sn-a1.4.example}, ports: [443]}")},
	{"host of the longest name", egress("{to: {host: " + strings.Repeat(strings.Repeat("a", 63)+".", 3) + strings.Repeat("b", 61) + "}, ports: [443]}")},
	{"a proxy's variable without a host", spec("env: [{name: HTTPS_PROXY, value: 'http://proxy.example:3128'}], network: {egress: [{to: {cidr: 203.0.113.0/24}, ports: [3128]}]}")},
	{"targets of every kind", egress("{to: {service: {name: a}}, ports: [1, 65535]}, {to: {service: {name: a, namespace: b}}, ports: [80]}, {to: {pods: {podSelector: {}}}, ports: [80]}, {to: {pods: {namespaceSelector: {}}}, ports: [80]}")},
	{"tolerations of every kind", place("tolerations: [{operator: Exists}, {key: a}, {key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 0}, {key: a, operator: Equal, value: b, effect: PreferNoSchedule}, {key: a, operator: Exists, value: ''}]")},
	{"node affinity of every kind", nodeTerm("{matchExpressions: [{key: a, operator: In, values: [b]}, {key: a, operator: NotIn, values: [b]}, {key: a, operator: Exists}, {key: a, operator: DoesNotExist}, {key: a, operator: Gt, values: ['8']}, {key: a, operator: Lt, values: ['16']}]}")},
	{"affinity to pods of any namespace", podTerm("{labelSelector: {}, namespaceSelector: {}, topologyKey: topology.kubernetes.io/zone}")},
	{"spread over one place in two ways", place("topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}, {maxSkew: 2, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]")},
	{"node labels and classes", place("nodeSelector: {kubernetes.io/os: linux, disk: ''}, priorityClassName: high, runtimeClassName: gvisor")},
	{"the example of the documentation", full},
}

// full has every field of the API.
const full = `
metadata: {name: github, namespace: default}
spec:
  image: ghcr.io/github/github-mcp-server:v1.2.0
  imagePullSecrets: [{name: regcred}]
  command: []
  args: []
  transport: {type: StreamableHTTP, port: 8080, path: /mcp}
  env:
  - {name: LOG_LEVEL, value: info}
  - {name: GITHUB_TOKEN, valueFrom: {secretKeyRef: {name: github-token, key: token}}}
  secretFiles:
  - {mountPath: /run/secrets/db, secretRef: {name: db, keys: [password]}}
  rotation: {strategy: Rolling, maxAge: 2160h, debounce: 30s, progressDeadlineSeconds: 300}
  filesystem:
    writablePaths: [{path: /var/cache/app, sizeLimit: 128Mi}]
    data:
    - {mountPath: /workspace, claimName: project-a, subPath: docs, access: ReadOnly}
  network:
    ingress:
    - {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: agents}}, podSelector: {matchLabels: {role: agent}}}
    egress:
    - {to: {cidr: 203.0.113.0/24}, ports: [5432]}
    - {to: {service: {name: postgres, namespace: data}}, ports: [5432]}
    - {to: {pods: {namespaceSelector: {}, podSelector: {}}}, ports: [6379]}
  resources: {}
  replicas: 2
  scheduling: {nodeSelector: {}, tolerations: [], affinity: {}, topologySpreadConstraints: []}
  desiredState: Running
`

func TestAccepted(t *testing.T) {
	if len(accepted) < 25 {
		t.Errorf("%d accepted specs are tested, want at least 25", len(accepted))
	}
	for _, tc := range accepted {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if err := create(t, patched(t, tc.patch)); err != nil {
				t.Errorf("refused: %v", err)
			}
		})
	}
}
