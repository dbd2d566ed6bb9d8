package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// credential becomes a program, as servers do whose credential is looked at before they serve:
// credential VARIABLE PROGRAM [ARGUMENTS]. With a value that begins with bad-exit it ends at once, with
// bad-hang it never listens.
func credential(args []string) (string, error) {
	if len(args) < 2 {
		return "", errors.New("usage: credential VARIABLE PROGRAM [ARGUMENTS]")
	}
	value, ok := os.LookupEnv(args[0])
	switch {
	case !ok:
		return "", fmt.Errorf("%s is not set", args[0])
	case strings.HasPrefix(value, "bad-exit"):
		return "", fmt.Errorf("%s is refused", args[0])
	case strings.HasPrefix(value, "bad-hang"):
		time.Sleep(math.MaxInt64)
	}
	return "", syscall.Exec(args[1], args[1:], os.Environ())
}

// env prints, in base64, the variable of the server's process: env NAME.
func env(args []string) (string, error) {
	raw, err := os.ReadFile("/proc/1/environ")
	if err != nil {
		return "", err
	}
	for variable := range bytes.SplitSeq(raw, []byte{0}) {
		if value, ok := bytes.CutPrefix(variable, []byte(arg(args, 0, "")+"=")); ok {
			return base64.StdEncoding.EncodeToString(value), nil
		}
	}
	return "", fmt.Errorf("process 1 has no variable %s", arg(args, 0, ""))
}

// file prints a file in base64: file PATH.
func file(args []string) (string, error) {
	raw, err := os.ReadFile(arg(args, 0, ""))
	return base64.StdEncoding.EncodeToString(raw), err
}

// follow reads two files of a folder over and over, and prints a line with the time (in Unix
// milliseconds) and what both begin with, up to the first '.', each time that it has changed; "mixed"
// where they differ: follow SECONDS FOLDER FILE FILE.
func follow(args []string) (string, error) {
	if len(args) != 4 {
		return "", errors.New("usage: follow SECONDS FOLDER FILE FILE")
	}
	patience, err := time.ParseDuration(args[0] + "s")
	if err != nil {
		return "", err
	}
	last, reads := "", 0
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		versions, err := together(args[1], args[2:])
		if errors.Is(err, fs.ErrNotExist) {
			continue // replaced while it was read
		}
		if err != nil {
			return "", err
		}
		reads++
		now := versions[0]
		if len(slices.Compact(versions)) != 1 {
			now = "mixed"
		}
		if now != last {
			fmt.Println(time.Now().UnixMilli(), now)
			last = now
		}
	}
	return fmt.Sprintf("%d reads", reads), nil
}

// together reads files of one state of a volume: the kubelet puts all of them into a folder of its own,
// and then leads the link ..data there.
func together(folder string, names []string) ([]string, error) {
	root, err := os.OpenRoot(filepath.Join(folder, "..data"))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var out []string
	for _, name := range names {
		raw, err := root.ReadFile(name)
		if err != nil {
			return nil, err
		}
		version, _, _ := strings.Cut(string(raw), ".")
		out = append(out, version)
	}
	return out, nil
}
