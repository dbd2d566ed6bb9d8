package main

import (
	"flag"
	"io"
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
