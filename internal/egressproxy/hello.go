package egressproxy

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"slices"

	"golang.org/x/crypto/cryptobyte"

	"github.com/mcpwarden/mcp-warden/internal/egressproxy/access"
)

// The numbers of TLS that matter here (RFC 8446, RFC 6066).
const (
	recordChangeCipher  = 20
	recordHandshake     = 22
	recordData          = 23
	recordHeader        = 5
	maxRecord           = 1 << 14
	typeClientHello     = 1
	typeServerHello     = 2
	handshakeHeader     = 4
	extensionServerName = 0
	nameTypeHost        = 0
	maxExtensions       = 128
)

// encryptedHello are the extensions that hide the real name: ECH, its drafts, and ESNI before it.
var encryptedHello = []uint16{0xfe0d, 0xfe0c, 0xfe0b, 0xfe0a, 0xfe09, 0xfe08, 0xff03, 0xff02, 0xffce}

// hello is what the proxy needs to know of a ClientHello.
type hello struct {
	serverName string // as it was sent
	encrypted  bool   // an encrypted hello is inside, or something that looks the same
}

// helloParser puts a ClientHello together from the records that carry it.
type helloParser struct {
	message []byte
	scanned int  // bytes of the stream that were taken
	again   bool // it is the one after a retry: what was sent meanwhile may lie before it
}

// parse looks at the stream so far. It reports done with the hello once that is complete; a reason where
// it can never be one. Anything after the ClientHello in its last record is refused, because nobody sends it,
// and whoever reads it first decides what it means; later records are not looked at.
func (p *helloParser) parse(stream []byte) (h hello, done bool, reason Reason) {
	for {
		rest := stream[p.scanned:]
		if n, skip := p.skippable(rest); skip {
			if n > len(rest) {
				return h, false, ""
			}
			p.scanned += n
			continue
		}
		if len(rest) > 0 && rest[0] != recordHandshake || len(rest) > 1 && rest[1] != 3 || len(rest) > 2 && rest[2] > 4 {
			return h, false, notTLS(p.message)
		}
		if len(rest) < recordHeader {
			return h, false, ""
		}
		size := int(rest[3])<<8 | int(rest[4])
		if size == 0 || size > maxRecord {
			return h, false, notTLS(p.message)
		}
		if len(p.message) == 0 && len(rest) > recordHeader && rest[recordHeader] != typeClientHello {
			return h, false, HelloMalformed
		}
		if len(rest) < recordHeader+size {
			return h, false, ""
		}
		if fragment := rest[recordHeader : recordHeader+size : recordHeader+size]; p.message == nil {
			p.message = fragment // mostly all of it; a second one makes a copy
		} else {
			p.message = append(p.message, fragment...)
		}
		p.scanned += recordHeader + size
		if len(p.message) < handshakeHeader {
			continue
		}
		length := int(p.message[1])<<16 | int(p.message[2])<<8 | int(p.message[3])
		switch have := len(p.message) - handshakeHeader; {
		case have > length:
			return h, false, HelloMalformed
		case have == length:
			h, ok := parseHello(p.message[handshakeHeader:])
			if !ok {
				return h, false, HelloMalformed
			}
			return h, true, ""
		}
	}
}

// skippable tells how long the record is that may lie before the second ClientHello: the change of ciphers
// that middle boxes expect, and early data, which the host has not accepted.
func (p *helloParser) skippable(rest []byte) (size int, skip bool) {
	if !p.again || len(p.message) > 0 || len(rest) == 0 || rest[0] != recordChangeCipher && rest[0] != recordData {
		return 0, false
	}
	if len(rest) < recordHeader {
		return recordHeader, true
	}
	return recordHeader + int(rest[3])<<8 + int(rest[4]), true
}

// helloRetry is the random of a ServerHello that asks for another ClientHello (RFC 8446, 4.1.3).
var helloRetry = sha256.Sum256([]byte("HelloRetryRequest"))

// asksAgain holds where the first bytes of a host's answer ask for another ClientHello; not decided while there are
// too few.
func asksAgain(answer []byte) (yes, decided bool) {
	const random = recordHeader + handshakeHeader + 2 // where it begins
	if len(answer) > 0 && answer[0] != recordHandshake || len(answer) > recordHeader && answer[recordHeader] != typeServerHello {
		return false, true
	}
	if len(answer) < random+len(helloRetry) {
		return false, false
	}
	return bytes.Equal(answer[random:random+len(helloRetry)], helloRetry[:]), true
}

// notTLS is the reason for bytes that cannot be of a ClientHello: once one has begun, it is broken.
func notTLS(message []byte) Reason {
	if len(message) > 0 {
		return HelloMalformed
	}
	return NotTLS
}

// parseHello reads the body of a ClientHello. Whatever the protocol forbids refuses it; so does a
// second name.
func parseHello(body []byte) (h hello, ok bool) {
	const random, maxSession = 32, 32
	s := cryptobyte.String(body)
	var version uint16
	var session, ciphers, compressions, extensions cryptobyte.String
	if !s.ReadUint16(&version) || !s.Skip(random) ||
		!s.ReadUint8LengthPrefixed(&session) || len(session) > maxSession ||
		!s.ReadUint16LengthPrefixed(&ciphers) || len(ciphers) == 0 || len(ciphers)%2 != 0 ||
		!s.ReadUint8LengthPrefixed(&compressions) || len(compressions) == 0 {
		return h, false
	}
	if s.Empty() {
		return h, true // as before there were extensions: a hello without a name
	}
	if !s.ReadUint16LengthPrefixed(&extensions) || !s.Empty() {
		return h, false
	}
	var seen []uint16
	for !extensions.Empty() {
		var kind uint16
		var data cryptobyte.String
		if !extensions.ReadUint16(&kind) || !extensions.ReadUint16LengthPrefixed(&data) ||
			len(seen) == maxExtensions || slices.Contains(seen, kind) {
			return h, false
		}
		seen = append(seen, kind)
		switch {
		case kind == extensionServerName:
			if h.serverName, ok = parseServerName(data); !ok {
				return h, false
			}
		case slices.Contains(encryptedHello, kind):
			h.encrypted = true
		}
	}
	return h, true
}

// parseServerName reads the one name of the extension.
func parseServerName(data cryptobyte.String) (string, bool) {
	var list, name cryptobyte.String
	var kind uint8
	if !data.ReadUint16LengthPrefixed(&list) || !data.Empty() ||
		!list.ReadUint8(&kind) || kind != nameTypeHost || !list.ReadUint16LengthPrefixed(&name) || len(name) == 0 || !list.Empty() {
		return "", false
	}
	return string(name), true
}

// readHello reads a ClientHello, the first or the one after a retry. It goes on in buf, which holds what came
// already, and lets it grow to limit bytes. What it returns is all that was read, of which the first end bytes are
// the hello, with what may lie before it.
func readHello(r io.Reader, buf []byte, limit int, again bool) (h hello, data []byte, end int, reason Reason) {
	parser := helloParser{again: again}
	for {
		h, done, reason := parser.parse(buf)
		if done || reason != "" {
			return h, buf, parser.scanned, reason
		}
		if len(buf) == cap(buf) {
			if len(buf) >= limit {
				return h, buf, 0, HelloTooLarge
			}
			buf = grow(buf, limit)
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case n > 0 || err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return h, buf, 0, HelloTimeout
		case len(buf) > 0:
			return h, buf, 0, HelloMalformed
		default:
			return h, buf, 0, HelloMissing
		}
	}
}

// sameName holds where a server name is the host: in any case, with or without the dot at the end, but in
// ASCII, as it goes over the wire.
func sameName(serverName, host string) bool {
	normal, err := access.NormalizeHost(serverName)
	return err == nil && normal == host && visible(serverName)
}
