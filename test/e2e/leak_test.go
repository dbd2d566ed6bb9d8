//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/kubernetes"
	clientmetadata "k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// The kinds of what is said in a run, wherever that may be but in the data of Secrets.
const (
	saidInLogs    = "log"     // of the operator, in the cluster and outside
	saidInEvents  = "event"   // of every namespace
	saidInStatus  = "status"  // of MCPServers
	saidInObjects = "object"  // every other field of every kind, and the metadata of Secrets
	saidInMetrics = "metrics" // of the operator
	saidInOutput  = "output"  // of the tests, errors among it
)

// heard holds all that is said in the run.
var heard *listener

// listener records what is said anywhere in a run, and finds planted values in it.
type listener struct {
	mu      sync.Mutex
	files   map[string]*os.File
	planted map[string][]byte
	control string

	clients  *kubernetes.Clientset
	followed sets.Set[string]
	restore  func()
}

// listen begins to record.
func listen(ctx context.Context, config *rest.Config) (*listener, error) {
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	l := &listener{files: map[string]*os.File{}, planted: map[string][]byte{}, control: "control-" + random(),
		clients: clients, followed: sets.New[string]()}
	for _, kind := range []string{saidInLogs, saidInEvents, saidInStatus, saidInObjects, saidInMetrics, saidInOutput} {
		if l.files[kind], err = os.CreateTemp("", "e2e-heard-"); err != nil {
			return nil, err
		}
		if err := os.Remove(l.files[kind].Name()); err != nil { // so that nothing is left of a run that is killed
			return nil, err
		}
	}
	if err := l.watchAll(ctx, config); err != nil {
		return nil, err
	}
	ctrl.SetLogger(l.logger())
	l.restore, err = l.overhear()
	return l, err
}

// add records what is said; nothing breaks it up that another says meanwhile.
func (l *listener) add(kind string, said []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.files[kind].Write(said); err != nil {
		panic(err) // the run would prove nothing
	}
}

// logger is for operators in this process. It takes as much as the operator's own may be told to write.
func (l *listener) logger() logr.Logger {
	return funcr.New(func(_, said string) { l.add(saidInLogs, []byte(said+"\n")) }, funcr.Options{Verbosity: 7})
}

// plant makes a value known that must be said nowhere.
func (l *listener) plant(value []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.planted[string(value)] = value
}

// random is the part of a value that tells it from all others: with what URLs, JSON and HTML escape.
func random() string {
	raw := make([]byte, 12)
	_, _ = rand.Read(raw) // never fails
	return hex.EncodeToString(raw[:6]) + "&/+<" + hex.EncodeToString(raw[6:])
}

// overhear copies what the tests print. The returned function ends that.
func (l *listener) overhear() (func(), error) {
	var ends []func()
	for _, stream := range []**os.File{&os.Stdout, &os.Stderr} {
		read, write, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		real, done := *stream, make(chan struct{})
		*stream = write
		go func() {
			defer close(done)
			buffer := make([]byte, 64<<10)
			for {
				n, err := read.Read(buffer)
				_, _ = real.Write(buffer[:n])
				l.add(saidInOutput, buffer[:n])
				if err != nil {
					return
				}
			}
		}()
		ends = append(ends, func() {
			_ = write.Close()
			<-done
			*stream = real
		})
	}
	return func() {
		for _, end := range ends {
			end()
		}
	}, nil
}

// watchAll records every version of every object from now on; of Secrets the metadata alone.
func (l *listener) watchAll(ctx context.Context, config *rest.Config) error {
	kinds, err := l.kinds(config)
	if err != nil {
		return err
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	metas, err := clientmetadata.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := dynamicinformer.NewDynamicSharedInformerFactory(objects, 0)
	metaFactory := metadatainformer.NewSharedInformerFactory(metas, 0)
	for _, kind := range kinds {
		informer := factory.ForResource(kind)
		if kind.Resource == "secrets" {
			informer = metaFactory.ForResource(kind)
		}
		if _, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { l.see(ctx, kind.Resource, o) },
			UpdateFunc: func(_, o any) { l.see(ctx, kind.Resource, o) },
		}); err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	metaFactory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	metaFactory.WaitForCacheSync(ctx.Done())
	return nil
}

// kinds are all that can be watched.
func (l *listener) kinds(config *rest.Config) ([]schema.GroupVersionResource, error) {
	found, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	lists, err := found.ServerPreferredResources()
	if err != nil {
		return nil, err
	}
	var out []schema.GroupVersionResource
	for _, list := range lists {
		group, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, resource := range list.APIResources {
			// These are also there under another name, or say several times a second that somebody lives.
			skip := group.Group == "" && slices.Contains([]string{"events", "endpoints"}, resource.Name) || resource.Name == "leases"
			if !skip && slices.Contains(resource.Verbs, "watch") && slices.Contains(resource.Verbs, "list") {
				out = append(out, group.WithResource(resource.Name))
			}
		}
	}
	return out, nil
}

// unescape undoes what encoding/json does to text.
var unescape = strings.NewReplacer(`\u0026`, "&", `\u003c`, "<", `\u003e`, ">", `\"`, `"`, `\\`, `\`)

func (l *listener) see(ctx context.Context, resource string, seen any) {
	raw, err := json.Marshal(seen)
	if err != nil {
		panic(err)
	}
	kind := saidInObjects
	switch resource {
	case "events":
		kind = saidInEvents
	case "mcpservers":
		kind = saidInStatus
	case "pods":
		l.follow(ctx, seen)
	}
	// JSON escapes what logs and messages do not.
	l.add(kind, append(raw, '\n'))
	l.add(kind, []byte(unescape.Replace(string(raw))+"\n"))
}

// follow records what a container of the operator says, from its first word to its last.
func (l *listener) follow(ctx context.Context, seen any) {
	pod := &corev1.Pod{}
	o, ok := seen.(interface{ UnstructuredContent() map[string]any })
	if !ok || runtime.DefaultUnstructuredConverter.FromUnstructured(o.UnstructuredContent(), pod) != nil || pod.Namespace != operatorNamespace {
		return
	}
	for _, c := range pod.Status.ContainerStatuses {
		if c.State.Running == nil || c.Name != "manager" {
			continue
		}
		l.mu.Lock()
		known := l.followed.Has(c.ContainerID)
		l.followed.Insert(c.ContainerID)
		l.mu.Unlock()
		if known {
			continue
		}
		go func() {
			stream, err := l.clients.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{Container: c.Name, Follow: true}).Stream(ctx)
			if err != nil {
				return // what matters is read again at the end
			}
			defer stream.Close()
			l.addLines(saidInLogs, stream)
		}()
	}
}

// addLines records a stream, line by line, until it ends.
func (l *listener) addLines(kind string, stream io.Reader) {
	for lines := bufio.NewReader(stream); ; {
		line, err := lines.ReadBytes('\n')
		l.add(kind, line)
		if err != nil {
			return
		}
	}
}

// lastWords reads the logs of the operator's pods that are there at the end, and of their restarts.
func (l *listener) lastWords(ctx context.Context) error {
	pods := &corev1.PodList{}
	if err := k8s.List(ctx, pods, client.InNamespace(operatorNamespace), client.MatchingLabels{"app.kubernetes.io/name": "mcp-warden"}); err != nil {
		return err
	}
	for i := range pods.Items {
		for _, c := range pods.Items[i].Status.ContainerStatuses {
			for _, previous := range []bool{true, false} {
				if previous && c.RestartCount == 0 {
					continue
				}
				raw, err := l.clients.CoreV1().Pods(operatorNamespace).GetLogs(pods.Items[i].Name,
					&corev1.PodLogOptions{Container: c.Name, Previous: previous}).DoRaw(ctx)
				if err != nil {
					return fmt.Errorf("log of %s: %w", pods.Items[i].Name, err)
				}
				l.add(saidInLogs, raw)
			}
		}
	}
	return nil
}

// sayControl says a value everywhere where values are looked for: if it is not found there, nothing
// else would be. Its forms are in the data of a ConfigMap.
func (l *listener) sayControl(ctx context.Context) (undo func(), err error) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-control-"}}
	if err := k8s.Create(ctx, namespace); err != nil {
		return nil, err
	}
	// What the operator logs of a server is its name, which cannot be any string.
	name := "control-" + hex.EncodeToString([]byte(l.control)[len("control-"):][:8])
	l.plant([]byte(name))
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "control", Namespace: namespace.Name}, Data: map[string]string{"name": name}}
	for form, said := range sayAll([]byte(l.control)) {
		config.Data[strings.ReplaceAll(form, " ", "-")] = "before " + string(said) + " after"
	}
	server := &v1alpha1.MCPServer{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace.Name},
		Spec:       v1alpha1.MCPServerSpec{Image: name, Transport: v1alpha1.Transport{Type: v1alpha1.TransportStreamableHTTP, Port: new(int32(serverPort))}},
	}
	// What can never be met is an error, which the operator logs.
	server.Spec.Filesystem = &v1alpha1.Filesystem{WritablePaths: []v1alpha1.WritablePath{{Path: "/tmp", SizeLimit: new(resource.MustParse("64Gi"))}}}
	event := &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "control-", Namespace: namespace.Name}, EventTime: metav1.NowMicro(), Type: corev1.EventTypeNormal,
		Reason: "Control", Action: "Control", Note: l.control, ReportingController: "e2e", ReportingInstance: "e2e",
		Regarding: corev1.ObjectReference{Kind: "ConfigMap", Namespace: namespace.Name, Name: config.Name},
	}
	for _, o := range []client.Object{config, server, event} {
		if err := k8s.Create(ctx, o); err != nil {
			return nil, err
		}
	}
	fmt.Println("what is planted is looked for in this line too:", l.control)
	l.plant([]byte(l.control))
	err = wait.PollUntilContextTimeout(ctx, time.Second/4, deadline, true, func(ctx context.Context) (bool, error) {
		err := k8s.Get(ctx, client.ObjectKeyFromObject(server), server)
		return meta.IsStatusConditionTrue(server.Status.Conditions, v1alpha1.ConditionStalled), err
	})
	return func() { _ = k8s.Delete(context.Background(), namespace) }, err
}

// finding is a planted value in a place.
type finding struct{ value, form, kind string }

func (l *listener) search() error {
	found, size, err := l.findAll()
	if err != nil {
		return err
	}
	var problems []error
	var elsewhere []finding
	control := map[string]bool{}
	for f := range found {
		if strings.HasPrefix(f.value, "control-") {
			control[f.kind], control[f.form] = true, true
			continue
		}
		elsewhere = append(elsewhere, f)
	}
	wanted := slices.Sorted(maps.Keys(formsOf([]byte(l.control))))
	for _, want := range append(wanted, saidInLogs, saidInEvents, saidInStatus, saidInObjects, saidInOutput) {
		if !control[want] {
			problems = append(problems, fmt.Errorf("the value that was said on purpose is not found: %s", want))
		}
	}
	for _, f := range elsewhere {
		hint, _, _ := strings.Cut(f.value, ".")
		problems = append(problems, fmt.Errorf("a planted value (%q..., %d bytes) is said in a %s: %s\n%s", hint[:min(len(hint), 16)], len(f.value), f.kind, f.form, found[f]))
	}
	fmt.Printf("leaks: %d planted values in %d forms each were looked for in %d MiB: %d found\n", len(l.planted)-2, len(wanted), size>>20, len(elsewhere))
	return errors.Join(problems...)
}

// prefix is how much of a form leads to the rest of it.
const prefix = 10

// findAll looks for every form of every value, and returns the surroundings of what it finds.
func (l *listener) findAll() (found map[finding]string, size int, err error) {
	type pattern struct {
		finding
		bytes []byte
	}
	patterns := map[[prefix]byte][]pattern{}
	for value, raw := range l.planted {
		for form, said := range formsOf(raw) {
			key := [prefix]byte(said)
			patterns[key] = append(patterns[key], pattern{finding{value: value, form: form}, said})
		}
	}
	found = map[finding]string{}
	for kind, file := range l.files {
		said, err := io.ReadAll(io.NewSectionReader(file, 0, math.MaxInt64)) // it may still be written to
		if err != nil {
			return nil, 0, err
		}
		size += len(said)
		for i := 0; i+prefix <= len(said); i++ {
			for _, p := range patterns[[prefix]byte(said[i:i+prefix])] {
				if bytes.HasPrefix(said[i:], p.bytes) {
					p.kind = kind
					found[p.finding] = string(said[max(0, i-200):i])
				}
			}
		}
	}
	return found, size, nil
}

// excerpt is how much of a long value is looked for.
const excerpt = 48

// formsOf are the forms in which a value could be said, or enough of each to know it: as it is, escaped,
// encoded, printed as bytes, and as a digest that has no key, which whoever guesses the value can check.
func formsOf(value []byte) map[string][]byte {
	head := value[:min(len(value), excerpt)]
	out := map[string][]byte{}
	for form, said := range sayAll(head) {
		out[form] = said
	}
	for form, said := range digestsOf(value) {
		out[form] = said[:12] // they are often cut
	}
	for offset := range 3 {
		// Only whole groups of three bytes are the same whatever stands before and after.
		skip := (3 - offset) % 3
		group := head[skip : skip+(len(head)-skip)/3*3]
		out[fmt.Sprintf("base64 at %d", offset)] = []byte(base64.StdEncoding.EncodeToString(group))
		out[fmt.Sprintf("base64url at %d", offset)] = []byte(base64.URLEncoding.EncodeToString(group))
	}
	return out
}

// sayAll writes a value in every form.
func sayAll(value []byte) map[string][]byte {
	numbers := strings.Trim(fmt.Sprintf("%d", value), "[]")
	out := map[string][]byte{
		"raw":              value,
		"hex":              []byte(hex.EncodeToString(value)),
		"HEX":              []byte(strings.ToUpper(hex.EncodeToString(value))),
		"query":            []byte(url.QueryEscape(string(value))),
		"path":             []byte(url.PathEscape(string(value))),
		"quoted":           []byte(strings.Trim(strconv.Quote(string(value)), `"`)),
		"bytes":            []byte(numbers),
		"bytes in Go":      []byte(strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", value), "[]byte{"), "}")),
		"bytes with comma": []byte(strings.ReplaceAll(numbers, " ", ",")),
	}
	for offset := range 3 {
		padded := append(bytes.Repeat([]byte{'-'}, offset), value...)
		out[fmt.Sprintf("base64 at %d", offset)] = []byte(base64.StdEncoding.EncodeToString(padded))
		out[fmt.Sprintf("base64url at %d", offset)] = []byte(base64.URLEncoding.EncodeToString(padded))
	}
	maps.Copy(out, digestsOf(value))
	return out
}

func digestsOf(value []byte) map[string][]byte {
	out := map[string][]byte{}
	for suffix, content := range map[string][]byte{"": value, "-newline": append(slices.Clone(value), '\n')} {
		sum5, sum1, sum224, sum256, sum512 := md5.Sum(content), sha1.Sum(content), sha256.Sum224(content), sha256.Sum256(content), sha512.Sum512(content)
		for name, sum := range map[string][]byte{"md5": sum5[:], "sha1": sum1[:], "sha224": sum224[:], "sha256": sum256[:], "sha512": sum512[:]} {
			out[name+suffix] = []byte(hex.EncodeToString(sum))
			out[name+suffix+"-base64"] = []byte(base64.StdEncoding.EncodeToString(sum))
			out[name+suffix+"-base64url"] = []byte(base64.URLEncoding.EncodeToString(sum))
		}
	}
	return out
}

// listened runs all tests while everything that is said is recorded, and then looks for what was planted.
func listened(config *rest.Config, run func() int) int {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Hour) // longer than any run, such as one with E2E_IDLE=1h
	defer cancel()
	var err error
	if heard, err = listen(ctx, config); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: listen:", err)
		return 1
	}
	code := 1
	undo, err := heard.sayControl(ctx)
	if err == nil {
		code = run()
		undo()
		err = heard.lastWords(ctx)
	}
	heard.restore()
	if err == nil {
		err = heard.search()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: leaks:", err)
		return 1
	}
	return code
}
