package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// maxKiB is the target for an idle tunnel.
const maxKiB = 30

// result of one contender: one value for each round.
type result struct {
	Name string `json:"name"`
	// OpensPerSecond are tunnels opened, used for one answer and closed.
	OpensPerSecond []float64 `json:"opensPerSecond,omitempty"`
	// CPUMicros is the proxy's processor time for one of them.
	CPUMicros []float64 `json:"cpuMicros,omitempty"`
	// HandshakesPerSecond are whole TLS handshakes, most of which is the cryptography of both ends.
	HandshakesPerSecond []float64 `json:"handshakesPerSecond,omitempty"`
	MiBPerSecond        []float64 `json:"mibPerSecond,omitempty"`
	// CPUSecondsPerGiB is the proxy's processor time for that.
	CPUSecondsPerGiB []float64 `json:"cpuSecondsPerGiB,omitempty"`
	// OpenMicros until the first bytes of the host, one tunnel after the other; TripMicros for one byte there and back.
	OpenMicros50 []float64 `json:"openMicros50,omitempty"`
	OpenMicros99 []float64 `json:"openMicros99,omitempty"`
	TripMicros50 []float64 `json:"tripMicros50,omitempty"`
	TripMicros99 []float64 `json:"tripMicros99,omitempty"`
	// ResidentKiB that an idle tunnel adds to the process, GoKiB to Go's heap and stacks.
	ResidentKiB []float64 `json:"residentKiB,omitempty"`
	GoKiB       []float64 `json:"goKiB,omitempty"`
}

// measureAll lets the contenders take turns and prints what came out.
func measureAll(ctx context.Context, opts options) error {
	if err := startOrigin(); err != nil {
		return err
	}
	results := map[string]*result{}
	for _, c := range contenders {
		results[c.name] = &result{Name: c.name}
	}
	for round := range opts.rounds {
		for i := range contenders { // another one begins each round
			c := contenders[(i+round)%len(contenders)]
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, opts.rounds, c.name)
			if err := measure(ctx, opts, c, results[c.name]); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	ordered := make([]*result, 0, len(contenders))
	for _, c := range contenders {
		ordered = append(ordered, results[c.name])
	}
	return print(os.Stdout, opts, ordered, results)
}

// measure one contender once.
func measure(ctx context.Context, opts options, c contender, to *result) error {
	r, err := c.up(ctx, opts.inside)
	if err != nil {
		return err
	}
	defer r.down()
	if r.cmd != nil {
		resident, held, err := r.memory(ctx, opts)
		if err != nil {
			return fmt.Errorf("memory: %w", err)
		}
		to.ResidentKiB = append(to.ResidentKiB, resident)
		if c.name == ours {
			to.GoKiB = append(to.GoKiB, held)
		}
	}
	opens, cpu, err := r.costing(func() (float64, error) { return r.rate(ctx, opts, r.openAndQuit) })
	if err != nil {
		return fmt.Errorf("opening: %w", err)
	}
	to.OpensPerSecond = append(to.OpensPerSecond, opens)
	to.CPUMicros = append(to.CPUMicros, cpu*1e6/opens)
	handshakes, err := r.rate(ctx, opts, r.handshake)
	if err != nil {
		return fmt.Errorf("handshakes: %w", err)
	}
	to.HandshakesPerSecond = append(to.HandshakesPerSecond, handshakes)
	through, cpu, err := r.costing(func() (float64, error) { return r.throughput(ctx, opts) })
	if err != nil {
		return fmt.Errorf("throughput: %w", err)
	}
	to.MiBPerSecond = append(to.MiBPerSecond, through)
	to.CPUSecondsPerGiB = append(to.CPUSecondsPerGiB, cpu*1024/through)
	open, trip, err := r.latencies(ctx, opts)
	if err != nil {
		return fmt.Errorf("latency: %w", err)
	}
	to.OpenMicros50, to.OpenMicros99 = append(to.OpenMicros50, quantile(open, .5)), append(to.OpenMicros99, quantile(open, .99))
	to.TripMicros50, to.TripMicros99 = append(to.TripMicros50, quantile(trip, .5)), append(to.TripMicros99, quantile(trip, .99))
	return nil
}

// costing measures something, and how much of a processor the proxy used for it.
func (r *running) costing(do func() (float64, error)) (value, cpu float64, err error) {
	before, err := r.cpu()
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if value, err = do(); err != nil {
		return 0, 0, err
	}
	took := time.Since(began)
	after, err := r.cpu()
	return value, (after - before).Seconds() / took.Seconds(), err
}

func quantile(of []time.Duration, q float64) float64 {
	slices.Sort(of)
	return float64(of[int(q*float64(len(of)-1))].Nanoseconds()) / 1000
}

func median(of []float64) float64 {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

// row of the report; better is which of two values is.
type row struct {
	name   string
	values func(*result) []float64
	less   bool // the smaller, the better
	target bool // ours must be as good as the better of squid and tinyproxy
}

var rows = []row{
	{"tunnels opened per second", func(r *result) []float64 { return r.OpensPerSecond }, false, true},
	{"processor time of the proxy for each, µs", func(r *result) []float64 { return r.CPUMicros }, true, false},
	{"whole TLS handshakes per second", func(r *result) []float64 { return r.HandshakesPerSecond }, false, true},
	{"throughput, MiB/s", func(r *result) []float64 { return r.MiBPerSecond }, false, true},
	{"processor time of the proxy for a GiB, s", func(r *result) []float64 { return r.CPUSecondsPerGiB }, true, false},
	{"opening, p50, µs", func(r *result) []float64 { return r.OpenMicros50 }, true, true},
	{"opening, p99, µs", func(r *result) []float64 { return r.OpenMicros99 }, true, false},
	{"there and back, p50, µs", func(r *result) []float64 { return r.TripMicros50 }, true, true},
	{"there and back, p99, µs", func(r *result) []float64 { return r.TripMicros99 }, true, false},
	{"memory of an idle tunnel, KiB", func(r *result) []float64 { return r.ResidentKiB }, true, false},
	{"of it Go's heap and stacks, KiB", func(r *result) []float64 { return r.GoKiB }, true, false},
}

// ratio of ours to the better of squid and tinyproxy, the median of those of each round: above 1 ours is better. The
// rounds' own ratios are returned too.
func (w row) ratio(results map[string]*result) (median_ float64, each []float64) {
	mine := w.values(results[ours])
	for i := range mine {
		a, b := w.values(results["squid"]), w.values(results["tinyproxy"])
		if i >= len(a) || i >= len(b) {
			break
		}
		if w.less {
			each = append(each, min(a[i], b[i])/mine[i])
		} else {
			each = append(each, mine[i]/max(a[i], b[i]))
		}
	}
	return median(each), each
}

// print writes the report, and returns an error where a target is missed.
func print(w io.Writer, opts options, ordered []*result, results map[string]*result) error {
	if opts.output == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(ordered); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
		return missed(results)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range ordered {
		fmt.Fprintf(table, "\t%s", r.Name)
	}
	fmt.Fprintln(table, "\tours : better of squid, tinyproxy\tby round")
	for _, row := range rows {
		fmt.Fprint(table, row.name)
		for _, r := range ordered {
			if values := row.values(r); len(values) > 0 {
				fmt.Fprintf(table, "\t%.4g", median(values))
			} else {
				fmt.Fprint(table, "\t")
			}
		}
		if ratio, each := row.ratio(results); len(each) > 0 {
			fmt.Fprintf(table, "\t%.2f\t%.2f", ratio, each)
		}
		fmt.Fprintln(table)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return missed(results)
}

func missed(results map[string]*result) error {
	var errs []error
	for _, row := range rows {
		if ratio, _ := row.ratio(results); row.target && ratio < 1 {
			errs = append(errs, fmt.Errorf("target missed: %s: %.2f times as good as the better of squid and tinyproxy", row.name, ratio))
		}
	}
	if kib := median(results[ours].ResidentKiB); kib > maxKiB {
		errs = append(errs, fmt.Errorf("target missed: %.1f KiB for an idle tunnel, at most %d", kib, maxKiB))
	}
	return errors.Join(errs...)
}
