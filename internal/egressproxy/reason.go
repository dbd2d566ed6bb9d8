package egressproxy

import "net/http"

// Reason says why something was allowed or denied. The set is closed: it is a label of metrics and
// what audit lines are searched by.
type Reason string

// Listed is the one reason to allow.
const Listed Reason = "Listed"

// The reasons to deny, in the order in which they are looked for.
const (
	TooManyConnections Reason = "TooManyConnections"
	HeadTimeout        Reason = "HeadTimeout"
	HeadTooLarge       Reason = "HeadTooLarge"
	BadRequest         Reason = "BadRequest"
	NoAccessList       Reason = "NoAccessList"
	CredentialMissing  Reason = "CredentialMissing"
	CredentialWrong    Reason = "CredentialWrong"
	MethodRefused      Reason = "MethodRefused"
	TargetRefused      Reason = "TargetRefused"
	HostMalformed      Reason = "HostMalformed"
	AddressLiteral     Reason = "AddressLiteral"
	HostHeaderMismatch Reason = "HostHeaderMismatch"
	UpgradeRefused     Reason = "UpgradeRefused"
	HostNotListed      Reason = "HostNotListed"
	PortNotListed      Reason = "PortNotListed"
	TooManyTunnels     Reason = "TooManyTunnels"
	ResolveFailed      Reason = "ResolveFailed"
	AddressForbidden   Reason = "AddressForbidden"
	ConnectFailed      Reason = "ConnectFailed"
	Revoked            Reason = "Revoked"
	HelloMissing       Reason = "HelloMissing"
	HelloTimeout       Reason = "HelloTimeout"
	HelloTooLarge      Reason = "HelloTooLarge"
	NotTLS             Reason = "NotTLS"
	HelloMalformed     Reason = "HelloMalformed"
	ServerNameMissing  Reason = "ServerNameMissing"
	ServerNameMismatch Reason = "ServerNameMismatch"
	EncryptedHello     Reason = "EncryptedClientHello"
)

// refusals are how a denial is answered: no word of it comes from the request or from the network.
var refusals = map[Reason]struct {
	status int
	text   string
}{
	HeadTimeout:        {http.StatusRequestTimeout, "the request took too long"},
	HeadTooLarge:       {http.StatusRequestHeaderFieldsTooLarge, "the request's header is too large"},
	BadRequest:         {http.StatusBadRequest, "the request is malformed"},
	NoAccessList:       {http.StatusServiceUnavailable, "the proxy has no access list yet"},
	CredentialMissing:  {http.StatusProxyAuthRequired, "the proxy asks for the server's credential"},
	CredentialWrong:    {http.StatusProxyAuthRequired, "the credential is not that of the server"},
	MethodRefused:      {http.StatusMethodNotAllowed, "the proxy does not forward this method"},
	TargetRefused:      {http.StatusBadRequest, "the target must be host:port with CONNECT, else a whole http:// URL without user or fragment"},
	HostMalformed:      {http.StatusBadRequest, "the host is not a valid host name"},
	AddressLiteral:     {http.StatusForbidden, "addresses are not reached through the proxy: use the host name that a rule lists"},
	HostHeaderMismatch: {http.StatusBadRequest, "the Host header differs from the URL"},
	UpgradeRefused:     {http.StatusForbidden, "the proxy does not forward protocol upgrades: use CONNECT"},
	HostNotListed:      {http.StatusForbidden, "no egress rule of the server lists this host"},
	PortNotListed:      {http.StatusForbidden, "no egress rule of the server lists this port of the host"},
	TooManyTunnels:     {http.StatusServiceUnavailable, "too many connections are open"},
	ResolveFailed:      {http.StatusBadGateway, "the host name does not resolve"},
	AddressForbidden:   {http.StatusForbidden, "the host name leads to an address that is never reached through the proxy"},
	ConnectFailed:      {http.StatusBadGateway, "the host does not answer"},
	Revoked:            {http.StatusForbidden, "the rule was withdrawn"},
}

// Cause says why an allowed connection ended. The set is closed.
type Cause string

// The causes of an end.
const (
	Finished      Cause = "Finished"      // one of the two ends closed it
	Failed        Cause = "Failed"        // one of the two ends broke off
	IdleTooLong   Cause = "IdleTooLong"   // nothing passed for too long
	OpenTooLong   Cause = "OpenTooLong"   // its lifetime was over
	TooManyBytes  Cause = "TooManyBytes"  // more passed than one connection may carry
	HelloRefused  Cause = "HelloRefused"  // the host asked for another ClientHello, which did not pass, or did not answer the first
	RuleWithdrawn Cause = "RuleWithdrawn" // the access list no longer allows it
	ProxyStopped  Cause = "ProxyStopped"  // the proxy stopped before it ended
)
