package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// reviewer is an API server that knows the tokens of known, and lets those of allowed in.
type reviewer struct {
	tokens, accesses int
	err              error
	seen             authorizationv1.SubjectAccessReviewSpec
}

type tokenReviewer struct{ *reviewer }

func (r tokenReviewer) Create(_ context.Context, in *authenticationv1.TokenReview, _ metav1.CreateOptions) (*authenticationv1.TokenReview, error) {
	r.tokens++
	if r.err != nil {
		return nil, fmt.Errorf("%w: %s", r.err, in.Spec.Token)
	}
	out := in.DeepCopy()
	out.Status.Authenticated = strings.HasPrefix(in.Spec.Token, "known")
	out.Status.User = authenticationv1.UserInfo{Username: in.Spec.Token, UID: "7", Groups: []string{"g"}, Extra: map[string]authenticationv1.ExtraValue{"k": {"v"}}}
	return out, nil
}

type accessReviewer struct{ *reviewer }

func (r accessReviewer) Create(_ context.Context, in *authorizationv1.SubjectAccessReview, _ metav1.CreateOptions) (*authorizationv1.SubjectAccessReview, error) {
	r.accesses++
	r.seen = in.Spec
	out := in.DeepCopy()
	out.Status.Allowed = strings.HasSuffix(in.Spec.User, "-allowed")
	return out, nil
}

func newScrapers(r *reviewer, now *time.Time) *scrapers {
	return &scrapers{tokens: tokenReviewer{r}, accesses: accessReviewer{r}, now: func() time.Time { return *now }, known: map[[32]byte]answer{}}
}

func (s *scrapers) get(log logr.Logger, method, authorization string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	req := httptest.NewRequest(method, metricsPath, nil)
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	s.serve(log, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the metrics") }), w, req)
	return w
}

func TestMetricsAreForThoseWhoMayGetThem(t *testing.T) {
	now := time.Unix(0, 0)
	for _, tc := range []struct {
		name, method, authorization string
		want, asked                 int
	}{
		{"no token", "GET", "", 401, 0},
		{"an empty token", "GET", "Bearer  ", 401, 0},
		{"a password", "GET", "Basic known-allowed", 401, 0},
		{"a stranger's token", "GET", "Bearer strange-allowed", 401, 1},
		{"a token without the right", "GET", "Bearer known", 403, 1},
		{"a token with the right", "GET", "Bearer known-allowed", 200, 1},
		{"in lower case", "GET", "bearer known-allowed", 200, 1},
		{"another method", "POST", "Bearer known-allowed", 405, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &reviewer{}
			w := newScrapers(r, &now).get(logr.Discard(), tc.method, tc.authorization)
			if w.Code != tc.want || r.tokens != tc.asked {
				t.Errorf("status %d after %d questions, want %d after %d", w.Code, r.tokens, tc.want, tc.asked)
			}
			if told := strings.Contains(w.Body.String(), "the metrics"); told != (tc.want == 200) {
				t.Errorf("says %q", w.Body)
			}
			if (w.Header().Get("WWW-Authenticate") != "") != (tc.want == 401) {
				t.Errorf("headers %v", w.Header())
			}
		})
	}
}

func TestMetricsAskForTheWholeAccount(t *testing.T) {
	now, r := time.Unix(0, 0), &reviewer{}
	newScrapers(r, &now).get(logr.Discard(), "GET", "Bearer known-allowed")
	if got := fmt.Sprintf("%+v", r.seen.NonResourceAttributes); got != "&NonResourceAttributes{Path:/metrics,Verb:get,}" ||
		r.seen.User != "known-allowed" || r.seen.UID != "7" || fmt.Sprint(r.seen.Groups, r.seen.Extra) != "[g] map[k:[v]]" || r.seen.ResourceAttributes != nil {
		t.Errorf("asked for %+v", r.seen)
	}
}

func TestMetricsWithoutReviewAreForNobody(t *testing.T) {
	var said strings.Builder
	log := funcr.New(func(_, args string) { said.WriteString(args) }, funcr.Options{})
	now, r := time.Unix(0, 0), &reviewer{err: errors.New("no API server for")}
	s := newScrapers(r, &now)
	if w := s.get(log, "GET", "Bearer known-allowed"); w.Code != 503 || strings.Contains(w.Body.String(), "known") {
		t.Errorf("status %d, %q", w.Code, w.Body)
	}
	if !strings.Contains(said.String(), "no API server for: (token)") || strings.Contains(said.String(), "known-allowed") {
		t.Errorf("logged %q", said.String())
	}
	r.err = nil
	if w := s.get(log, "GET", "Bearer known-allowed"); w.Code != 200 {
		t.Errorf("status %d once the API server is back: an error must not be remembered", w.Code)
	}
}

func TestAnswersAboutTokensAge(t *testing.T) {
	now, r := time.Unix(0, 0), &reviewer{}
	s := newScrapers(r, &now)
	for _, step := range []struct {
		token string
		after time.Duration
		want  int // questions
	}{
		{"known-allowed", 0, 1},
		{"known-allowed", allowedFor - 1, 1},
		{"known-allowed", 1, 2},
		{"known", 0, 3},
		{"known", deniedFor - 1, 3},
		{"known", 1, 4},
	} {
		now = now.Add(step.after)
		if s.get(logr.Discard(), "GET", "Bearer "+step.token); r.tokens != step.want {
			t.Errorf("%s at %v: %d questions, want %d", step.token, now.Sub(time.Unix(0, 0)), r.tokens, step.want)
		}
	}
}

func TestStrangersDoNotPushScrapersOut(t *testing.T) {
	now, r := time.Unix(0, 0), &reviewer{}
	s := newScrapers(r, &now)
	s.get(logr.Discard(), "GET", "Bearer known-allowed")
	for i := range 3 * maxScrapers {
		s.get(logr.Discard(), "GET", fmt.Sprint("Bearer stranger", i))
		if len(s.known) > maxScrapers {
			t.Fatalf("%d tokens are remembered", len(s.known))
		}
	}
	asked := r.tokens
	if s.get(logr.Discard(), "GET", "Bearer known-allowed"); r.tokens != asked {
		t.Error("the scraper was forgotten")
	}
	for i := range 2 * maxScrapers {
		if w := s.get(logr.Discard(), "GET", fmt.Sprintf("Bearer known%d-allowed", i)); w.Code != 200 || len(s.known) > maxScrapers {
			t.Fatalf("status %d, %d tokens are remembered", w.Code, len(s.known))
		}
	}
}
