package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
)

// The targets of a run, as the documentation states them.
const (
	maxRatio       = 1.25
	maxResidentMiB = 60
	residentAt     = 500
)

// result of one size.
type result struct {
	Servers int `json:"servers"`
	// FloorSeconds and OperatorSeconds until every Deployment existed, one for each repetition.
	FloorSeconds    []float64 `json:"floorSeconds"`
	OperatorSeconds []float64 `json:"operatorSeconds"`
	// Requests of the operator until all was calm, in the last repetition.
	Requests counts `json:"requests"`
	// AtRest and OnRestart are what it asked then.
	AtRest    counts `json:"atRest"`
	OnRestart counts `json:"onRestart"`
	// CPUSeconds that it used until all was calm.
	CPUSeconds float64 `json:"cpuSeconds"`
	// ResidentMiB at rest, PeakMiB until then, ResidentRestartMiB after a restart.
	ResidentMiB        float64 `json:"residentMiB"`
	PeakMiB            float64 `json:"peakMiB"`
	ResidentRestartMiB float64 `json:"residentRestartMiB"`
}

func (r result) ratio() float64 { return median(r.OperatorSeconds) / median(r.FloorSeconds) }

func median(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

// print writes the results, and returns an error where a target is missed.
func print(w io.Writer, opts options, results []result) error {
	if opts.output == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(results); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
		return missed(results)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name string, value func(result) string) {
		fmt.Fprint(table, name)
		for _, r := range results {
			fmt.Fprint(table, "\t", value(r))
		}
		fmt.Fprintln(table)
	}
	row("servers", func(r result) string { return fmt.Sprint(r.Servers) })
	row("floor, seconds until every Deployment exists", func(r result) string { return seconds(r.FloorSeconds) })
	row("operator, seconds until every Deployment exists", func(r result) string { return seconds(r.OperatorSeconds) })
	row("operator / floor (target: at most 1.25)", func(r result) string { return fmt.Sprintf("%.2f", r.ratio()) })
	row("API writes per server", func(r result) string { return perServer(r, r.Requests.writes()) })
	row("API reads per server", func(r result) string { return perServer(r, r.Requests.reads()) })
	row(fmt.Sprintf("API writes at rest for %s (target: 0)", opts.rest), func(r result) string { return fmt.Sprint(r.AtRest.writes()) })
	row(fmt.Sprintf("API reads at rest for %s", opts.rest), func(r result) string { return fmt.Sprint(r.AtRest.reads()) })
	row("API writes on a restart (target: 0)", func(r result) string { return fmt.Sprint(r.OnRestart.writes()) })
	row("API reads on a restart", func(r result) string { return fmt.Sprint(r.OnRestart.reads()) })
	row("CPU seconds", func(r result) string { return fmt.Sprintf("%.1f", r.CPUSeconds) })
	row("resident at rest, MiB (target: at most 60 at 500)", func(r result) string { return fmt.Sprintf("%.0f", r.ResidentMiB) })
	row("resident at most, MiB", func(r result) string { return fmt.Sprintf("%.0f", r.PeakMiB) })
	row("resident after a restart, MiB", func(r result) string { return fmt.Sprintf("%.0f", r.ResidentRestartMiB) })
	for _, key := range keys(results) {
		row("  "+key, func(r result) string { return perServer(r, r.Requests[key]) })
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return missed(results)
}

func seconds(of []float64) string { return fmt.Sprintf("%.1f", median(of)) }

func perServer(r result, n int) string { return fmt.Sprintf("%.2f", float64(n)/float64(r.Servers)) }

func keys(results []result) []string {
	all := map[string]int{}
	for _, r := range results {
		maps.Copy(all, r.Requests)
	}
	return slices.Sorted(maps.Keys(all))
}

// missed names the targets that do not hold.
func missed(results []result) error {
	for _, r := range results {
		switch {
		case r.ratio() > maxRatio:
			return fmt.Errorf("%d servers: %.2f times the floor is above the target of %.2f", r.Servers, r.ratio(), maxRatio)
		case r.AtRest.writes() > 0:
			return fmt.Errorf("%d servers: written at rest: %v", r.Servers, r.AtRest)
		case r.OnRestart.writes() > 0:
			return fmt.Errorf("%d servers: written on a restart: %v", r.Servers, r.OnRestart)
		case r.Servers <= residentAt && r.ResidentMiB > maxResidentMiB:
			return fmt.Errorf("%d servers: %.0f MiB resident is above the target of %d", r.Servers, r.ResidentMiB, maxResidentMiB)
		}
	}
	return nil
}
