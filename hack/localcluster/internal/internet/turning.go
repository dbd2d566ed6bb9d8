package internet

import (
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
)

// TurningDNSPort is where names below TurningDomain are answered, over TCP; the DNS server forwards them there.
const TurningDNSPort = ":5354"

// TurningDomain holds names whose address changes with every query: now an address of the internet,
// now one that lies within the cluster, as an attacker's DNS server would have it.
const TurningDomain = "turning.test"

// turns are the addresses, one after another.
var turns = [][4]byte{{203, 0, 113, 14}, {10, 96, 0, 1}}

const (
	dnsHeader = 12
	typeA     = 1
)

func serveTurningNames(listener net.Listener) error {
	var asked atomic.Uint32
	return serveEach(listener, func(conn net.Conn) {
		for {
			query, err := readMessage(conn)
			if err != nil {
				return
			}
			answer := turningAnswer(query, &asked)
			if answer == nil {
				return
			}
			if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
				return
			}
		}
	})
}

// readMessage reads one DNS message as it is over TCP: its length, and itself (RFC 1035, 4.2.2).
func readMessage(conn net.Conn) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	message := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(conn, message)
	return message, err
}

// turningAnswer answers a query for an address with the one whose turn it is, and any other with none.
// It is nil for what is no query.
func turningAnswer(query []byte, asked *atomic.Uint32) []byte {
	if len(query) < dnsHeader {
		return nil
	}
	end := dnsHeader // of the name, which ends with an empty label
	for end < len(query) && query[end] != 0 {
		end += int(query[end]) + 1
	}
	end += 5 // the empty label, type and class
	if end > len(query) {
		return nil
	}
	answer := append([]byte{query[0], query[1], 0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0}, query[dnsHeader:end]...)
	if binary.BigEndian.Uint16(query[end-4:]) != typeA {
		return answer
	}
	answer[7] = 1                                                              // one answer
	answer = append(answer, 0xc0, dnsHeader, 0, typeA, 0, 1, 0, 0, 0, 0, 0, 4) // for the name asked for; it counts for no time
	turn := turns[(asked.Add(1)-1)%uint32(len(turns))]
	return append(answer, turn[:]...)
}

// turningZone has the DNS server forward the names that turn, and cache none of them.
func turningZone() string {
	return TurningDomain + `:53 {
    bind ` + DNSAddress + `
    errors
    forward . ` + DNSAddress + TurningDNSPort + ` {
        force_tcp
    }
}
`
}
