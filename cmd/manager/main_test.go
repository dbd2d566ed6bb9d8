package main

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

// TestNoVerbosityLogsSecrets asks for every level that the flag takes.
func TestNoVerbosityLogsSecrets(t *testing.T) {
	for level, refused := range map[string]bool{
		"": false, "info": false, "error": false, "panic": false, "debug": false, "1": false, "7": false, "8": true, "9": true, "10": true, "127": true,
	} {
		flags := flag.NewFlagSet("", flag.ContinueOnError)
		options := zap.Options{DestWriter: io.Discard}
		options.BindFlags(flags)
		if level != "" {
			if err := flags.Set("zap-log-level", level); err != nil {
				t.Fatal(err)
			}
		}
		if err := checkVerbosity(zap.New(zap.UseFlagOptions(&options))); (err != nil) != refused {
			t.Errorf("--zap-log-level=%s: %v", level, err)
		}
	}
}

// A certificate that is named and not there must not be replaced by another.
func TestMetricsNeedTheCertificateThatIsNamed(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"tls.crt", "tls.key"} {
		if _, err := metricsOptions(":8443", folder); err == nil {
			t.Errorf("without %s the operator starts", name)
		}
		if err := os.WriteFile(filepath.Join(folder, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, folder := range []string{"", folder} {
		if out, err := metricsOptions(":8443", folder); err != nil || !out.SecureServing || out.FilterProvider == nil {
			t.Errorf("folder %q: %v, secure: %t", folder, err, out.SecureServing)
		}
	}
}
