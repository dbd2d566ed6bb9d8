// Command toolbox acts inside a pod for the end-to-end tests: each subcommand makes one attempt and
// says on one line how it ended; the exit code is 0 where it succeeded and 1 where it did not.
package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// attempts by name; each takes its own arguments and says what came of it.
func attempts() map[string]func(args []string) (string, error) {
	return map[string]func(args []string) (string, error){
		"all":        all,
		"status":     processStatus,
		"write":      write,
		"read":       read,
		"fill":       fill,
		"setuid":     setuid,
		"userns":     userNamespace,
		"mount":      mount,
		"mknod":      mknod,
		"dial":       dial,
		"lookup":     lookUp,
		"get":        get,
		"fetch":      fetch,
		"raw":        raw,
		"tunnel":     tunnel,
		"chat":       chat,
		"hold":       hold,
		"halfopen":   halfOpen,
		"serve":      serve,
		"linger":     linger,
		"credential": credential,
		"env":        env,
		"file":       file,
		"follow":     follow,
	}
}

func main() {
	if len(os.Args) < 2 || attempts()[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: toolbox ATTEMPT [ARGUMENTS], one of", strings.Join(slices.Sorted(maps.Keys(attempts())), ", "))
		os.Exit(2)
	}
	said, err := attempts()[os.Args[1]](os.Args[2:])
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	fmt.Println(said)
}

func arg(args []string, i int, fallback string) string {
	if i < len(args) {
		return args[i]
	}
	return fallback
}
