package cli

import (
	"io"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/compliance"
)

// The shape of SARIF 2.1.0, as far as it is used here.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool    sarifTool     `json:"tool"`
		Results []sarifResult `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name           string      `json:"name"`
		InformationURI string      `json:"informationUri"`
		Rules          []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID                   string            `json:"id"`
		ShortDescription     sarifText         `json:"shortDescription"`
		FullDescription      sarifText         `json:"fullDescription"`
		Help                 sarifText         `json:"help"`
		DefaultConfiguration map[string]string `json:"defaultConfiguration"`
		Properties           map[string]any    `json:"properties,omitempty"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifResult struct {
		RuleID       string              `json:"ruleId"`
		RuleIndex    int                 `json:"ruleIndex"`
		Level        string              `json:"level"`
		Message      sarifText           `json:"message"`
		Locations    []sarifLocation     `json:"locations"`
		Suppressions []map[string]string `json:"suppressions,omitempty"`
	}
	sarifLocation struct {
		PhysicalLocation struct {
			ArtifactLocation struct {
				URI string `json:"uri"`
			} `json:"artifactLocation"`
			Region struct {
				StartLine   int `json:"startLine"`
				StartColumn int `json:"startColumn"`
			} `json:"region"`
		} `json:"physicalLocation"`
	}
)

// ruleInvalid is the rule of objects that the API server would refuse.
const ruleInvalid = "INVALID"

// writeSARIF writes a log of the Static Analysis Results Interchange Format, version 2.1.0 (OASIS).
func writeSARIF(out io.Writer, v *lintVerdict) error {
	run := sarifRun{Tool: sarifTool{Driver: sarifDriver{
		Name: "kubectl-warden", InformationURI: "https://github.com/mcpwarden/mcp-warden", Rules: sarifRules(),
	}}, Results: []sarifResult{}}
	index := map[string]int{}
	for i, rule := range run.Tool.Driver.Rules {
		index[rule.ID] = i
	}
	for _, p := range v.Invalid {
		run.Results = append(run.Results, sarifResult{
			RuleID: ruleInvalid, RuleIndex: index[ruleInvalid], Level: "error", Message: sarifText{p.Object + ": " + withField(p.Field, p.Message)}, Locations: sarifPlace(p.place),
		})
	}
	for _, j := range v.all() {
		for _, r := range j.Results {
			for _, f := range r.Findings {
				result := sarifResult{
					RuleID: string(r.ID), RuleIndex: index[string(r.ID)], Level: sarifLevel(r.Counts), Message: sarifText{f.text()}, Locations: sarifPlace(f.place),
				}
				if r.Result == v1alpha1.ControlExempted {
					result.Suppressions = []map[string]string{{"kind": "external", "justification": "a policy exempts the server"}}
					if r.Reason != "" {
						result.Suppressions = []map[string]string{{"kind": "inSource", "justification": r.Reason}}
					}
				}
				run.Results = append(run.Results, result)
			}
		}
	}
	return encodeJSON(out, sarifLog{Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run}})
}

func sarifRules() []sarifRule {
	out := []sarifRule{{
		ID: ruleInvalid, ShortDescription: sarifText{"The object is not valid"}, FullDescription: sarifText{"The API server would refuse the object."},
		Help: sarifText{"Correct the field that the message names."}, DefaultConfiguration: map[string]string{"level": "error"},
	}}
	for _, c := range compliance.Catalogue() {
		out = append(out, sarifRule{
			ID: string(c.ID), ShortDescription: sarifText{c.Title}, FullDescription: sarifText{c.Rationale},
			Help:                 sarifText{c.Remedy + " References: " + strings.Join(c.References, ", ") + "."},
			DefaultConfiguration: map[string]string{"level": sarifLevel((&compliance.Result{Control: &c}).Counts())},
			Properties:           map[string]any{"severity": c.Severity, "security-severity": securitySeverity[c.Severity], "tags": []string{"security"}},
		})
	}
	return out
}

// securitySeverity is what code scanning services sort by: a number from 0 to 10, as in CVSS.
var securitySeverity = map[v1alpha1.ControlSeverity]string{
	v1alpha1.SeverityCritical: "9.0", v1alpha1.SeverityHigh: "7.0", v1alpha1.SeverityMedium: "5.0", v1alpha1.SeverityLow: "2.0",
}

func sarifLevel(counts bool) string {
	if counts {
		return "error"
	}
	return "warning"
}

// sarifPlace is a place by a URI relative to where the command was run, or an absolute one.
func sarifPlace(p place) []sarifLocation {
	uri := url.URL{Path: filepath.ToSlash(p.File)}
	if p.File == stdin {
		uri.Path = "stdin"
	}
	if filepath.IsAbs(p.File) {
		uri.Scheme = "file"
	}
	var out sarifLocation
	out.PhysicalLocation.ArtifactLocation.URI = uri.String()
	out.PhysicalLocation.Region.StartLine, out.PhysicalLocation.Region.StartColumn = p.Line, p.Column
	return []sarifLocation{out}
}
