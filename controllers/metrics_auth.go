package controllers

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// The rights to ask (create tokenreviews and subjectaccessreviews) are in config/metrics and not in config/rbac: an
// install that serves no metrics does without them.

const (
	// allowedFor and deniedFor are how long the answer about a token is kept: as long as the API server's own webhooks do.
	allowedFor, deniedFor = time.Minute, 10 * time.Second
	// maxScrapers bounds the tokens that are remembered.
	maxScrapers = 256
	// reviewTimeout bounds the questions that one scrape leads to.
	reviewTimeout = 10 * time.Second
	// reviewsPerSecond bounds the questions that strangers can make the operator ask.
	reviewsPerSecond, reviewBurst = 10, 20
	// metricsPath is the one path of the metrics server.
	metricsPath = "/metrics"
)

// AuthenticateMetrics is a filter that lets a scraper through whose bearer token the API server knows, and whose account may
// get /metrics. controller-runtime has one, too, which brings the API server's machinery along, gRPC and
// OpenTelemetry included: 256 packages and 20 MB for two questions.
func AuthenticateMetrics(config *rest.Config, httpClient *http.Client) (metricsserver.Filter, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = reviewsPerSecond, reviewBurst
	tokens, err := authenticationclient.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("make a client for token reviews: %w", err)
	}
	accesses, err := authorizationclient.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("make a client for access reviews: %w", err)
	}
	s := &scrapers{tokens: tokens.TokenReviews(), accesses: accesses.SubjectAccessReviews(), now: time.Now, known: map[[sha256.Size]byte]answer{}}
	return func(log logr.Logger, next http.Handler) (http.Handler, error) {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { s.serve(log, next, w, req) }), nil
	}, nil
}

// scrapers are those who ask for metrics.
type scrapers struct {
	tokens   authenticationclient.TokenReviewInterface
	accesses authorizationclient.SubjectAccessReviewInterface
	now      func() time.Time

	mu sync.Mutex
	// known are answers by the digest of a token: no token is kept.
	known map[[sha256.Size]byte]answer
}

// answer is the HTTP status for whoever has a token.
type answer struct {
	status int
	until  time.Time
}

func (s *scrapers) serve(log logr.Logger, next http.Handler, w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	status, err := s.judge(req)
	if err != nil {
		log.Error(err, "A scraper's token cannot be reviewed: it gets no metrics")
	}
	switch status {
	case http.StatusOK:
		next.ServeHTTP(w, req)
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
		fallthrough
	default:
		http.Error(w, strings.ToLower(http.StatusText(status)), status)
	}
}

// judge returns the HTTP status for a request, and why its token could not be reviewed.
func (s *scrapers) judge(req *http.Request) (int, error) {
	scheme, token, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	if token = strings.TrimSpace(token); !strings.EqualFold(scheme, "Bearer") || token == "" {
		return http.StatusUnauthorized, nil
	}
	key := sha256.Sum256([]byte(token))
	if known := s.remembered(key); known != 0 {
		return known, nil
	}
	ctx, cancel := context.WithTimeout(req.Context(), reviewTimeout)
	defer cancel()
	status, err := s.review(ctx, token)
	if err != nil {
		return http.StatusServiceUnavailable, errors.New(strings.ReplaceAll(err.Error(), token, "(token)"))
	}
	s.remember(key, status)
	return status, nil
}

// review asks the API server whose the token is, and whether that one may get the metrics.
func (s *scrapers) review(ctx context.Context, token string) (int, error) {
	review, err := s.tokens.Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	switch {
	case err != nil:
		return 0, fmt.Errorf("review a token: %w", err)
	case !review.Status.Authenticated:
		return http.StatusUnauthorized, nil
	}
	user := review.Status.User
	extra := map[string]authorizationv1.ExtraValue{}
	for name, values := range user.Extra {
		extra[name] = slices.Clone(authorizationv1.ExtraValue(values))
	}
	access, err := s.accesses.Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user.Username, UID: user.UID, Groups: user.Groups, Extra: extra,
		NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: metricsPath, Verb: "get"},
	}}, metav1.CreateOptions{})
	switch {
	case err != nil:
		return 0, fmt.Errorf("review the access of %s: %w", user.Username, err)
	case !access.Status.Allowed || access.Status.Denied:
		return http.StatusForbidden, nil
	}
	return http.StatusOK, nil
}

// remembered is the status that a token got not long ago; 0 where there is none.
func (s *scrapers) remembered(key [sha256.Size]byte) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.known[key]; ok && s.now().Before(known.until) {
		return known.status
	}
	return 0
}

func (s *scrapers) remember(key [sha256.Size]byte, status int) {
	lifetime := deniedFor
	if status == http.StatusOK {
		lifetime = allowedFor
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for other, known := range s.known {
		// Where there is no room, those who were refused go first, so that strangers cannot push a scraper out.
		if !now.Before(known.until) || (len(s.known) >= maxScrapers && known.status != http.StatusOK) {
			delete(s.known, other)
		}
	}
	if len(s.known) < maxScrapers {
		s.known[key] = answer{status, now.Add(lifetime)}
	}
}
