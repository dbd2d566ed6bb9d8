// Command sbom writes a CycloneDX bill of materials of a binary, by cyclonedx-gomod, and fails where its modules are not
// those that Go itself noted in the binary.
//
//	sbom CYCLONEDX-GOMOD VERSION BINARY OUTPUT
package main

import (
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: sbom CYCLONEDX-GOMOD VERSION BINARY OUTPUT")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(tool, version, binary, output string) error {
	// No serial number and no time: the same binary gives the same bytes.
	cmd := exec.Command(tool, "bin", "-json", "-std", "-noserial", "-notimestamp", "-version", version, "-output", output, binary)
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", tool, err, said)
	}
	if err := withoutTool(output); err != nil {
		return err
	}
	got, err := listed(output)
	if err != nil {
		return err
	}
	want, err := linked(binary)
	if err != nil {
		return err
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("%s lists\n  %s\nand %s holds\n  %s", output, strings.Join(got, "\n  "), binary, strings.Join(want, "\n  "))
	}
	return nil
}

// withoutTool takes the checksums of cyclonedx-gomod itself out: they are others on another machine.
func withoutTool(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	bom := map[string]any{}
	if err := json.Unmarshal(raw, &bom); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	metadata, _ := bom["metadata"].(map[string]any)
	tools, _ := metadata["tools"].([]any)
	for _, tool := range tools {
		if tool, ok := tool.(map[string]any); ok {
			delete(tool, "hashes")
		}
	}
	raw, err = json.MarshalIndent(bom, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(raw, '\n'), 0o644)
}

// listed are the modules of a bill of materials.
func listed(file string) ([]string, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var bom struct {
		Components []struct{ Name, Version string }
	}
	if err := json.Unmarshal(raw, &bom); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	var out []string
	for _, component := range bom.Components {
		out = append(out, component.Name+" "+component.Version)
	}
	slices.Sort(out)
	return out, nil
}

// linked are the modules that Go noted in a binary, as `go version -m` lists them, and the standard library.
func linked(binary string) ([]string, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	out := []string{"std " + info.GoVersion}
	for _, dep := range info.Deps {
		if dep.Replace != nil {
			dep = dep.Replace
		}
		out = append(out, dep.Path+" "+dep.Version)
	}
	slices.Sort(out)
	return out, nil
}
