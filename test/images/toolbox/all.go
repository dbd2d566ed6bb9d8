package main

import (
	"encoding/json"
	"fmt"
	"sync"
)

// outcome of one attempt among several.
type outcome struct {
	Said string `json:"said"`
	OK   bool   `json:"ok"`
}

// all makes many attempts, ten at a time: all LIST, a JSON list of lists of arguments. It prints a JSON list
// of how each ended.
func all(args []string) (string, error) {
	var list [][]string
	if err := json.Unmarshal([]byte(arg(args, 0, "")), &list); err != nil {
		return "", err
	}
	outcomes, slots := make([]outcome, len(list)), make(chan struct{}, 10)
	var done sync.WaitGroup
	for i, attempt := range list {
		if len(attempt) == 0 || attempts()[attempt[0]] == nil {
			return "", fmt.Errorf("there is no attempt %v", attempt)
		}
		done.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			said, err := attempts()[attempt[0]](attempt[1:])
			if err != nil {
				said = err.Error()
			}
			outcomes[i] = outcome{Said: said, OK: err == nil}
		})
	}
	done.Wait()
	raw, err := json.Marshal(outcomes)
	return string(raw), err
}
