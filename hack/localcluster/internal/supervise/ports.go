package supervise

import (
	"context"
	"fmt"
	"time"
)

// patience is how long to hope for ports that others hold, all together.
const patience = time.Second

// ReservePorts finds a free loopback port per name and, on Linux, keeps it from
// everybody else for as long as this process lives. wanted are ports to prefer.
func ReservePorts(ctx context.Context, names []string, wanted map[string]int) (map[string]int, error) {
	ports := make(map[string]int, len(names))
	giveUp := time.Now().Add(patience)
	for _, n := range names {
		port, release, err := reserve(wanted[n])
		// A process that was just killed may not have let go of its port yet.
		for err != nil && wanted[n] != 0 && time.Now().Before(giveUp) {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(patience / 100):
			}
			port, release, err = reserve(wanted[n])
		}
		if err != nil {
			port, release, err = reserve(0)
		}
		if err != nil {
			return nil, fmt.Errorf("reserve a port for %s: %w", n, err)
		}
		defer release() // not before the others have theirs
		ports[n] = port
	}
	return ports, nil
}
