package main

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// Config are the settings. Every flag is an environment variable too: --redis-url is ROLLCALL_REDIS_URL.
type Config struct {
	Addr     string `default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Where to listen. Port 0 picks one; the first line of the log says which."`
	RedisURL string `placeholder:"URL" help:"Redis or Valkey: redis://host:port, rediss:// for TLS, more nodes with ?addr=, Sentinel with ?master_set=. Without it, one in this process."`
	Dev      *bool  `negatable:"" help:"Development mode: makes tokens for anybody on this machine. On exactly when there is no Redis URL."`

	RedisCAFile           string `name:"redis-ca-file" placeholder:"FILE" help:"PEM file with the certificates that rediss:// trusts, instead of this machine's."`
	RedisSentinelUsername string `placeholder:"USER" help:"User of the Sentinels, if they ask for one. That of the servers they watch is in the URL."`
	RedisSentinelPassword string `placeholder:"PASSWORD" help:"Password of the Sentinels, if they ask for one."`

	JWTSecret    []string `name:"jwt-secret" placeholder:"SECRET" help:"HMAC secrets of tokens, comma-separated; each verifies."`
	JWTPublicKey string   `name:"jwt-public-key" placeholder:"FILE" help:"PEM file with the RSA, ECDSA or Ed25519 key that verifies tokens."`
	JWKSURL      string   `name:"jwks-url" placeholder:"URL" help:"Where the keys that verify tokens are published."`
	JWTIssuer    string   `name:"jwt-issuer" placeholder:"ISS" help:"The iss that tokens must have."`
	JWTAudience  string   `name:"jwt-audience" placeholder:"AUD" help:"The aud that tokens must have."`
	APIKeys      []string `name:"api-keys" placeholder:"KEY" help:"Keys of backends, comma-separated; each works."`

	AllowAnonymous bool     `default:"true" negatable:"" help:"Accept sockets without a token."`
	AllowedOrigins []string `placeholder:"ORIGIN" help:"Origins whose pages may connect, comma-separated, besides this server's own; * is any."`

	Lease time.Duration `default:"10s" help:"How long an instance that falls silent is believed."`
	Grace time.Duration `default:"15s" help:"How long a user who dropped may take to come back unnoticed."`
	Drain time.Duration `default:"10s" help:"How long closing all sockets may take when stopping."`

	Prefix          string `default:"rollcall:1:" help:"What every key and channel in Redis begins with."`
	Shards          int    `default:"0" help:"Partitions of the shared state, the same on every instance. 0: 1, or 64 on a Cluster."`
	MaxMessageBytes int    `default:"65536" help:"The largest frame of a client, or body of a push."`
	MaxSockets      int    `default:"0" help:"The most sockets of this instance. 0: what open files allow (ulimit -n), less a reserve for Redis, probes and backends."`
	ClientRate      int    `default:"50" help:"Frames a second that one socket may send, with bursts of twice that. 0: no cap."`

	PprofAddr string `placeholder:"HOST:PORT" help:"Where to serve Go's profiles, on a loopback address. Empty: nowhere."`
	LogLevel  string `default:"info" enum:"debug,info,warn,error" help:"What to log; debug traces every push by its id, from HTTP to the sockets (${enum})."`
}

// inProcess says whether Redis runs in this process.
func (c *Config) inProcess() bool { return c.RedisURL == "" }

func (c *Config) dev() bool {
	if c.Dev != nil {
		return *c.Dev
	}
	return c.inProcess()
}

// check refuses what cannot work: which setting, what it was, what is allowed.
func (c *Config) check() error {
	host, _, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return refuse("addr", c.Addr, "want host:port")
	}
	if c.dev() && !isLoopback(host) {
		return refuse("addr", c.Addr, "dev mode makes tokens for anybody who can reach it, so it listens only on 127.0.0.1, [::1] or localhost; to serve others, give a --redis-url and leave --dev out")
	}
	if !c.dev() {
		if len(c.JWTSecret) == 0 && c.JWTPublicKey == "" && c.JWKSURL == "" {
			return refuse("jwt-secret", "", "needed to verify tokens outside dev mode; or give --jwt-public-key or --jwks-url")
		}
		if len(c.APIKeys) == 0 {
			return refuse("api-keys", "", "needed outside dev mode: backends push with one of them")
		}
	}
	for _, list := range []struct {
		name   string
		values []string
	}{{"jwt-secret", c.JWTSecret}, {"api-keys", c.APIKeys}} {
		for _, value := range list.values {
			if value == "" || strings.ContainsFunc(value, isSpace) {
				return refuse(list.name, "", "one of the comma-separated values is empty or has a space in it")
			}
		}
	}
	if host, _, err := net.SplitHostPort(c.PprofAddr); c.PprofAddr != "" && (err != nil || !isLoopback(host)) {
		return refuse("pprof-addr", c.PprofAddr, "want host:port on 127.0.0.1, [::1] or localhost: profiles tell everything")
	}
	for _, origin := range c.AllowedOrigins {
		if u, err := url.Parse(origin); origin != "*" && (err != nil || u.Scheme == "" || u.Host == "" || u.Path != "") {
			return refuse("allowed-origins", origin, "want scheme://host or scheme://host:port, without a slash at the end, or *")
		}
	}
	return c.checkLimits()
}

func (c *Config) checkLimits() error {
	switch {
	case c.Lease < time.Second || c.Lease > time.Hour:
		return refuse("lease", c.Lease, "want 1s to 1h")
	case c.Grace < 0 || c.Grace > 24*time.Hour:
		return refuse("grace", c.Grace, "want 0s to 24h")
	case c.Drain < 0 || c.Drain > time.Hour:
		return refuse("drain", c.Drain, "want 0s to 1h")
	case c.Prefix == "" || strings.ContainsAny(c.Prefix, "{} \r\n"):
		return refuse("prefix", c.Prefix, "want at least one character, and no braces or spaces")
	case c.Shards < 0 || c.Shards > maxShards:
		return refuse("shards", c.Shards, fmt.Sprintf("want 0 to %d", maxShards))
	case c.MaxMessageBytes < 256 || c.MaxMessageBytes > 1<<20:
		return refuse("max-message-bytes", c.MaxMessageBytes, "want 256 to 1048576")
	case c.ClientRate < 0 || c.ClientRate > 100_000:
		return refuse("client-rate", c.ClientRate, "want 0 (no cap) to 100000 frames a second")
	}
	if most := mostSockets(fileLimit()); c.MaxSockets < 0 || most > 0 && c.MaxSockets > most {
		return refuse("max-sockets", c.MaxSockets, fmt.Sprintf("want 0 (as many as may be) to %d: the process may open %d files (ulimit -n), "+
			"of which some are kept for Redis, probes and backends", most, fileLimit()))
	}
	return nil
}

// maxSockets is the most sockets of this instance; 0: no cap is known.
func (c *Config) maxSockets() int {
	if c.MaxSockets > 0 {
		return c.MaxSockets
	}
	return mostSockets(fileLimit())
}

// maxShards is far more than nodes that a Cluster may have: every shard costs each instance a call every fifth of a lease.
const maxShards = 1024

func refuse(setting string, value any, allowed string) error {
	variable := "ROLLCALL_" + strings.ToUpper(strings.ReplaceAll(setting, "-", "_"))
	if value == "" {
		return fmt.Errorf("--%s (%s): %s", setting, variable, allowed)
	}
	return fmt.Errorf("--%s (%s) is %v: %s", setting, variable, value, allowed)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func isSpace(r rune) bool { return r <= ' ' }

// fillDev makes the secrets that dev mode was not given, and says which.
func (c *Config) fillDev() (madeSecret, madeKey bool) {
	if !c.dev() {
		return false, false
	}
	if madeSecret = len(c.JWTSecret) == 0; madeSecret {
		c.JWTSecret = []string{rand.Text()}
	}
	if madeKey = len(c.APIKeys) == 0; madeKey {
		c.APIKeys = []string{rand.Text()}
	}
	return madeSecret, madeKey
}
