package redis

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"github.com/redis/rueidis"
)

// The settings that errors name: flag and environment variable.
const (
	urlSetting      = "--redis-url (ROLLCALL_REDIS_URL)"
	caSetting       = "--redis-ca-file (ROLLCALL_REDIS_CA_FILE)"
	sentinelSetting = "--redis-sentinel-password (ROLLCALL_REDIS_SENTINEL_PASSWORD)"
)

const replicaHint = "there is a replica, which takes no writes: name its master, " +
	"or Sentinels with ?master_set="

// scriptPermission is how Redis says within a script that a user lacks a permission. Errors have no code
// there. The first is that of 7.0 and older.
var scriptPermission = []string{"The user executing the script can't", "ACL failure in script"}

// ACLRule is all that Rollcall's user needs to be allowed, as the arguments of ACL SETUSER. INFO may be left
// out; then Rollcall can't look at how Redis is set, and says so. ROLE is for Sentinels, CLUSTER for a
// Cluster. Redis 6.0 has no rules for channels.
func ACLRule(prefix string) string {
	return "~" + prefix + "* resetchannels &" + prefix + "*" +
		" +@read +@write +@pubsub +@connection -@dangerous -@scripting" +
		" +eval +evalsha +time +info +role +cluster|slots +cluster|shards"
}

// Explain says which setting to change if Redis refused something because of a setting. It returns all other
// errors as they are.
func (c *Connection) Explain(err error) error { return cmp.Or(c.replyError(err), err) }

// connectError says why there is no connection, and which setting to change. Errors of Redis may quote what
// Redis was sent, such as a password: no error is shown before it went through here.
func (c *Connection) connectError(err error) error {
	if explained := c.replyError(err); explained != nil {
		return explained
	}
	return fmt.Errorf("connect to redis at %s: %w%s",
		c.redactedURL(), c.hideSecrets(err), c.transportHint(err))
}

// replyError explains an error with which Redis replied; nil for any other error, and for one that needs no
// explanation.
func (c *Connection) replyError(err error) error {
	var reply *rueidis.RedisError
	if !errors.As(err, &reply) {
		return nil
	}
	text := reply.Error()
	forbidden := func(words string) bool { return strings.Contains(text, words) }
	switch code, _, _ := strings.Cut(text, " "); {
	case code == "NOAUTH":
		return c.urlError("it asks for a password: put it there, as in redis://user:password@host:port")
	case code == "WRONGPASS":
		return c.urlError("it does not know this user with this password")
	case code == "READONLY":
		return c.urlError(replicaHint)
	case code == "NOPERM", slices.ContainsFunc(scriptPermission, forbidden):
		return c.permissionError(text)
	case strings.HasSuffix(text, "No such master with that name"):
		return c.urlError("these Sentinels watch no set of the name that ?master_set= has")
	}
	return nil
}

// sentinelError is connectError for a reply of a Sentinel, which has users of its own.
func (c *Connection) sentinelError(err error) error {
	if reply, isReply := rueidis.IsRedisErr(err); isReply {
		switch code, _, _ := strings.Cut(reply.Error(), " "); code {
		case "NOAUTH":
			return fmt.Errorf("%s: the Sentinels ask for one; that of the servers they watch is in the URL",
				sentinelSetting)
		case "WRONGPASS":
			return fmt.Errorf("%s: the Sentinels do not know the user of --redis-sentinel-username "+
				"with this password", sentinelSetting)
		}
	}
	return c.connectError(err)
}

// urlError says what is wrong with the Redis at the URL, or with the URL.
func (c *Connection) urlError(problem string) error {
	return fmt.Errorf("%s is %s: %s", urlSetting, c.redactedURL(), problem)
}

// permissionError says what the user of the URL must be allowed.
func (c *Connection) permissionError(refused string) error {
	user := cmp.Or(c.option.Username, "default")
	return c.urlError(fmt.Sprintf("its user may not do all that is needed (%s); this allows it: "+
		"ACL SETUSER %s %s", refused, user, ACLRule(c.config.Prefix)))
}

// transportHint says what may help if not Redis but the way to it fails; empty if nothing comes to mind.
func (c *Connection) transportHint(err error) string {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var record tls.RecordHeaderError
	usesTLS := c.option.TLSConfig != nil
	switch {
	case errors.As(err, &authority):
		return "; if you trust it, give the certificate of its authority with " + caSetting
	case errors.As(err, &name):
		return "; the URL, and the servers of a Cluster or of Sentinels, must be called by a name " +
			"in their certificate"
	case errors.As(err, &record), usesTLS && errors.Is(err, context.DeadlineExceeded):
		// A server without TLS takes the handshake for the beginning of a command, and waits for the rest.
		return "; if it does not speak TLS there, use redis:// or its TLS port"
	case !usesTLS && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)):
		return "; if it speaks TLS there, use rediss://"
	}
	return ""
}

// hideSecrets returns the error without any password in it.
func (c *Connection) hideSecrets(err error) error {
	text := err.Error()
	for _, secret := range []string{c.option.Password, c.config.SentinelPassword} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "xxxxx")
		}
	}
	if text == err.Error() {
		return err
	}
	return errors.New(text)
}

// redactedURL is the URL without its password.
func (c *Connection) redactedURL() string {
	u, err := url.Parse(c.URL)
	if err != nil {
		return "the given URL"
	}
	return u.Redacted()
}
