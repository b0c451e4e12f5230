package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"

	"github.com/redis/rueidis"
)

// aclRule is all that Rollcall's user needs to be allowed, for ACL SETUSER. INFO may be left out; Rollcall then can't look at how Redis
// is set, and says so. ROLE is for Sentinels, CLUSTER for a Cluster. Redis 6.0 knows no rules for channels.
func aclRule(prefix string) string {
	return "~" + prefix + "* resetchannels &" + prefix + "* +@read +@write +@pubsub +@connection -@dangerous -@scripting" +
		" +eval +evalsha +time +info +role +cluster|slots +cluster|shards"
}

// explain says why there is no connection, and which setting mends it. Errors of Redis may quote what they were sent, and so a
// password: none is shown before it went through here.
func (r *redisServer) explain(err error) error {
	if mended := r.objection(err); mended != nil {
		return mended
	}
	return fmt.Errorf("connect to redis at %s: %w%s", r.where(), r.hideSecrets(err), r.transportHint(err))
}

// objection explains what Redis itself objects to; nil if it is something else, or speaks for itself.
func (r *redisServer) objection(err error) error {
	var reply *rueidis.RedisError
	if !errors.As(err, &reply) {
		return nil
	}
	code, _, _ := strings.Cut(reply.Error(), " ")
	switch {
	case code == "NOAUTH":
		return r.refuseURL("it asks for a password: put it there, as in redis://user:password@host:port")
	case code == "WRONGPASS":
		return r.refuseURL("it does not know this user with this password")
	case code == "READONLY":
		return r.refuseURL(replicaHint)
	case code == "NOPERM", slices.ContainsFunc(scriptMayNot, func(words string) bool { return strings.Contains(reply.Error(), words) }):
		return r.mayNot(reply.Error())
	case strings.HasSuffix(reply.Error(), "No such master with that name"):
		return r.refuseURL("these Sentinels watch no set of the name that ?master_set= has")
	}
	return nil
}

// scriptMayNot is how Redis puts it from within a script, where errors have no code: 7.0 and older, and newer.
var scriptMayNot = []string{"The user executing the script can't", "ACL failure in script"}

const replicaHint = "there is a replica, which takes no writes: name its master, or Sentinels with ?master_set="

// explainSentinel is explain for what a Sentinel said: it has users of its own.
func (r *redisServer) explainSentinel(err error) error {
	if reply, isReply := rueidis.IsRedisErr(err); isReply {
		switch code, _, _ := strings.Cut(reply.Error(), " "); code {
		case "NOAUTH":
			return refuse("redis-sentinel-password", "", "the Sentinels ask for one; that of the servers they watch is in the URL")
		case "WRONGPASS":
			return refuse("redis-sentinel-password", "", "the Sentinels do not know the user of --redis-sentinel-username with this password")
		}
	}
	return r.explain(err)
}

func (r *redisServer) refuseURL(why string) error { return refuse("redis-url", r.where(), why) }

// mayNot says what the user of the URL must be allowed.
func (r *redisServer) mayNot(what string) error {
	return r.refuseURL(fmt.Sprintf("its user may not do all that is needed (%s); this allows it: ACL SETUSER %s %s",
		what, cmp.Or(r.option.Username, "default"), aclRule(r.config.Prefix)))
}

// transportHint is what may help if not Redis but the way to it fails.
func (r *redisServer) transportHint(err error) string {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &authority):
		return "; if you trust it, give the certificate of its authority with --redis-ca-file (ROLLCALL_REDIS_CA_FILE)"
	case errors.As(err, &name):
		return "; the URL, and the servers of a Cluster or of Sentinels, must be called by a name in their certificate"
	case errors.As(err, &record), r.option.TLSConfig != nil && errors.Is(err, context.DeadlineExceeded): // it waits for more of a command
		return "; if it does not speak TLS there, use redis:// or its TLS port"
	case r.option.TLSConfig == nil && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)):
		return "; if it speaks TLS there, use rediss://"
	}
	return ""
}

// hideSecrets replaces an error that quotes a password.
func (r *redisServer) hideSecrets(err error) error {
	text := err.Error()
	for _, secret := range []string{r.option.Password, r.config.RedisSentinelPassword} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "xxxxx")
		}
	}
	if text == err.Error() {
		return err
	}
	return errors.New(text)
}
