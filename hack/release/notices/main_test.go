package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const isc = `Permission to use, copy, modify, and distribute this software for any
purpose with or without fee is hereby granted, provided that the above
copyright notice and this permission notice appear in all copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES
WITH REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF
MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR
ANY SPECIAL, DIRECT, INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES
WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN
ACTION OF CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF
OR IN CONNECTION WITH THE USE OR PERFORMANCE OF THIS SOFTWARE.
`

const gpl = `This program is free software: you can redistribute it and/or modify
it under the terms of the GNU General Public License as published by
the Free Software Foundation, either version 3 of the License, or
(at your option) any later version.
`

func TestModules(t *testing.T) {
	for name, tc := range map[string]struct {
		files   map[string]string
		problem string
		holds   string
	}{
		"a licence that is allowed":    {map[string]string{"LICENSE": isc}, "", "m v1: ISC\n"},
		"with a notice":                {map[string]string{"LICENSE": isc, "NOTICE": "by Ada"}, "", "by Ada"},
		"no licence":                   {map[string]string{"README.md": isc}, "no licence was found", ""},
		"a licence that is forbidden":  {map[string]string{"COPYING": gpl}, "licence GPL-3.0", ""},
		"one of two":                   {map[string]string{"LICENSE": isc, "LICENSE.gpl": gpl}, "licence GPL-3.0", ""},
		"one beside a linked package":  {map[string]string{"LICENSE": isc, "linked/LICENSE": gpl}, "linked/LICENSE: licence GPL-3.0", ""},
		"one of what is not linked":    {map[string]string{"LICENSE": isc, "other/LICENSE": gpl}, "", "m v1: ISC\n"},
		"terms that nobody recognises": {map[string]string{"LICENSE": "Ask Bob first."}, "no licence is recognised", ""},
		"terms beside a known licence": {map[string]string{"LICENSE": isc + strings.Repeat("But Bob must be asked first. ", 40)}, "no licence is recognised", ""},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			for file, content := range tc.files {
				path := filepath.Join(folder, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			m := &module{Path: "m", Version: "v1", Dir: folder, folders: []string{folder}}
			if _, err := os.Stat(filepath.Join(folder, "linked")); err == nil {
				m.folders = append(m.folders, filepath.Join(folder, "linked"))
			}
			var out strings.Builder
			err := m.write(&out)
			switch {
			case tc.problem == "" && err != nil:
				t.Errorf("fails: %v", err)
			case tc.problem != "" && (err == nil || !strings.Contains(err.Error(), tc.problem)):
				t.Errorf("fails with %v, want %q", err, tc.problem)
			case !strings.Contains(out.String(), tc.holds):
				t.Errorf("%q is not in:\n%s", tc.holds, out.String())
			}
		})
	}
}

// What this repository ships may be shipped, and the Go named is the one that builds it, whichever is installed.
func TestWhatIsShipped(t *testing.T) {
	t.Chdir("..") // where go -C runs the program
	var out bytes.Buffer
	if err := run(&out); err != nil {
		t.Error(err)
	}
	version, err := os.ReadFile("../go-version")
	if err != nil {
		t.Fatal(err)
	}
	if want := "Go standard library " + strings.TrimSpace(string(version)) + ":"; !strings.Contains(out.String(), want) {
		t.Errorf("the notices do not name %q", want)
	}
}
