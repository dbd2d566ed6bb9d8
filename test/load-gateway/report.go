package main

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// figures of a gateway's process.
type figures struct{ goroutines, descriptors, children, heap, resident float64 }

func (f figures) String() string {
	const mib = 1 << 20
	return fmt.Sprintf("%5.0f goroutines %5.0f descriptors %5.0f processes %6.1f MiB heap %6.1f MiB resident", f.goroutines, f.descriptors, f.children, f.heap/mib, f.resident/mib)
}

func (f figures) most(g figures) figures {
	return figures{max(f.goroutines, g.goroutines), max(f.descriptors, g.descriptors), max(f.children, g.children), max(f.heap, g.heap), max(f.resident, g.resident)}
}

// measure takes the figures, if wanted without garbage.
func measure(g *process, clean bool) (f figures, err error) {
	url := g.printed[1] + "/metrics"
	if clean {
		url += "?gc"
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return f, fmt.Errorf("measure: %w", err)
	}
	defer response.Body.Close()
	wanted := map[string]*float64{
		"go_goroutines": &f.goroutines, "process_open_fds": &f.descriptors, "go_memstats_heap_alloc_bytes": &f.heap, "process_resident_memory_bytes": &f.resident,
	}
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if to := wanted[name]; to != nil {
			if _, err := fmt.Sscan(value, to); err != nil {
				return f, fmt.Errorf("measure: %w", err)
			}
		}
	}
	children, err := childrenOf(g.cmd.Process.Pid)
	f.children = float64(len(children))
	return f, err
}

// settle waits until the gateway is as it was, but for little: connections of the metrics themselves, and what a heap keeps in pools.
func settle(g *process, before figures) (after figures, err error) {
	const some, heap, patience = 8, 4 << 20, 90 * time.Second
	for began := time.Now(); ; time.Sleep(time.Second) {
		if after, err = measure(g, true); err != nil {
			return after, err
		}
		if after.goroutines <= before.goroutines+some && after.descriptors <= before.descriptors+some && after.children <= before.children+4 && after.heap <= before.heap+heap {
			return after, nil
		}
		if time.Since(began) > patience {
			return after, errors.New("the gateway has kept more than it had")
		}
	}
}

func (l *load) report(transport string, sessions int, duration time.Duration, before, peak, after figures) {
	fmt.Printf("\n%s: %d sessions, %v\n", transport, sessions, duration)
	proper := 0
	for _, n := range l.errors {
		proper += n
	}
	fmt.Printf("%d requests: %d answered (initialize too), %d failed with a proper error, %d left by their clients; %d improper, %d with what is another's\n",
		l.requests.Load(), l.answers.Load(), proper, l.left.Load(), l.improper.Load(), l.crossed.Load())
	fmt.Printf("%d kills of servers, %d sessions lost by that and made anew\n", l.kills.Load(), l.reopened.Load())
	for _, text := range slices.Sorted(maps.Keys(l.errors)) {
		fmt.Printf("  %6d times %s\n", l.errors[text], text)
	}
	for _, text := range l.wrong {
		fmt.Println("  improper:", text)
	}
	fmt.Printf("before  %v\nat most %v\nafter   %v\n", before, peak, after)
}

// verdict tells what must not be.
func (l *load) verdict() error {
	switch {
	case l.improper.Load() > 0:
		return errors.New("a request was not answered, or not as it should be")
	case l.answers.Load() < l.requests.Load()/2, l.kills.Load() == 0, l.reopened.Load() == 0, l.left.Load() == 0:
		return errors.New("this was no test: too little was answered, killed or left")
	}
	return nil
}
