// Package registry is the cluster's image registry. Its content outlives the
// process.
package registry

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
)

// maxManifest is far above what any manifest needs.
const maxManifest = 8 << 20

var manifestPath = regexp.MustCompile(`^/v2/.+/manifests/[^/]+$`)

// manifest is one accepted upload.
type manifest struct {
	Path        string `json:"path"`
	ContentType string `json:"contentType"`
	Body        []byte `json:"body"`
}

// handler adds to the library's registry, which keeps manifests in memory only,
// a folder from which they are uploaded again when it starts.
type handler struct {
	next http.Handler
	dir  string
}

// New serves the registry that lies in dir.
func New(dir string) (http.Handler, error) {
	blobs := filepath.Join(dir, "blobs")
	h := &handler{dir: filepath.Join(dir, "manifests")}
	for _, d := range []string{blobs, h.dir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("registry: %w", err)
		}
	}
	h.next = registry.New(
		registry.WithBlobHandler(registry.NewDiskBlobHandler(blobs)),
		registry.Logger(log.New(io.Discard, "", 0)),
	)
	if err := h.restore(); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	return h, nil
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPut || !manifestPath.MatchString(r.URL.Path) {
		h.next.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxManifest))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	answer := &statusRecorder{ResponseWriter: w, status: http.StatusOK}
	h.next.ServeHTTP(answer, r)
	if answer.status >= http.StatusMultipleChoices {
		return
	}
	// Under its digest as well: that stays good when the tag moves on.
	digest := path.Dir(r.URL.Path) + fmt.Sprintf("/sha256:%x", sha256.Sum256(body))
	for _, p := range []string{digest, r.URL.Path} {
		if err := h.save(manifest{Path: p, ContentType: r.Header.Get("Content-Type"), Body: body}); err != nil {
			log.Printf("registry: %v", err)
		}
	}
}

func (h *handler) save(m manifest) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	name := strings.NewReplacer("/", "_", ":", "_").Replace(strings.TrimPrefix(m.Path, "/v2/"))
	return state.WriteFile(filepath.Join(h.dir, name+".json"), b, 0o644)
}

// restore uploads again what was saved. An index may come before the images that
// it names, which the registry refuses; so it goes on as long as that helps.
func (h *handler) restore() error {
	files, err := filepath.Glob(filepath.Join(h.dir, "*.json"))
	if err != nil {
		return err
	}
	for len(files) > 0 {
		var refused []string
		for _, f := range files {
			ok, err := h.restoreOne(f)
			if err != nil {
				return err
			}
			if !ok {
				refused = append(refused, f)
			}
		}
		if len(refused) == len(files) {
			return fmt.Errorf("cannot restore %v", refused)
		}
		files = refused
	}
	return nil
}

func (h *handler) restoreOne(file string) (bool, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return false, err
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return false, fmt.Errorf("%s: %w", file, err)
	}
	req := httptest.NewRequest(http.MethodPut, m.Path, bytes.NewReader(m.Body))
	req.Header.Set("Content-Type", m.ContentType)
	answer := httptest.NewRecorder()
	h.next.ServeHTTP(answer, req)
	return answer.Code < http.StatusMultipleChoices, nil
}

// statusRecorder remembers how a request was answered.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (r *statusRecorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}
