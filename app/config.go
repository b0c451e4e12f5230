package main

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"net"
	"strings"
	"time"

	"rollcall/handlers"
)

// Config has all settings. Each is a flag and an environment variable: RedisURL is --redis-url and
// ROLLCALL_REDIS_URL.
type Config struct {
	Addr     string `default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Where to listen. Port 0 picks one; the first line of the log says which."`
	RedisURL string `placeholder:"URL" help:"Redis or Valkey: redis://host:port, rediss:// for TLS, more nodes with ?addr=, Sentinel with ?master_set=. In development mode it may be left out: one runs in this process."`

	Dev         *bool `negatable:"" help:"Development mode: makes tokens for anybody on this machine. On by itself only if none of Redis URL, secret, public key, JWKS URL and API keys is given."`
	DevServeKey bool  `negatable:"" help:"In development mode, let the page have the API key although it was given. The printed line for a second instance sets this."`

	RedisCAFile           string `name:"redis-ca-file" placeholder:"FILE" help:"PEM file with the certificates that rediss:// trusts, instead of this machine's."`
	RedisSentinelUsername string `placeholder:"USER" help:"User of the Sentinels, if they ask for one. That of the servers they watch is in the URL."`
	RedisSentinelPassword string `placeholder:"PASSWORD" help:"Password of the Sentinels, if they ask for one."`

	JWTSecret    []string `name:"jwt-secret" placeholder:"SECRET" help:"HMAC secrets of tokens; each verifies. Commas separate them; \\, is a comma within one. At least 16 bytes, better 32."`
	JWTPublicKey string   `name:"jwt-public-key" placeholder:"FILE" help:"PEM file with the RSA, ECDSA or Ed25519 key that verifies tokens."`
	JWKSURL      string   `name:"jwks-url" placeholder:"URL" help:"Where the keys that verify tokens are published: https://, or http:// on this machine."`
	JWTIssuer    string   `name:"jwt-issuer" placeholder:"ISS" help:"The iss that tokens must have."`
	JWTAudience  string   `name:"jwt-audience" placeholder:"AUD" help:"The aud that tokens must have."`
	RequireExp   bool     `name:"require-exp" default:"true" negatable:"" help:"Refuse tokens without exp, which never expire."`
	APIKeys      []string `name:"api-keys" placeholder:"KEY" help:"Keys of backends; each works. Commas separate them; \\, is a comma within one. At least 16 bytes, better 32."`

	AllowAnonymous bool     `default:"true" negatable:"" help:"Accept sockets without a token."`
	AllowedOrigins []string `placeholder:"ORIGIN" help:"Origins whose pages may connect, comma-separated, besides this server's own; * is any."`
	AllowedHosts   []string `placeholder:"HOST" help:"Names in the Host header that this server answers to, comma-separated and without a port, besides localhost. None given: to all; in development mode to localhost only."`

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

	madeSecret, madeKey bool // whether fillDev made them
}

// inProcess reports whether Redis runs in this process.
func (c *Config) inProcess() bool { return c.RedisURL == "" }

// dev reports whether this is development mode.
func (c *Config) dev() bool {
	if c.Dev != nil {
		return *c.Dev
	}
	return c.inProcess() && !c.forProduction()
}

// forProduction reports whether a setting is given that development mode does not need. If only the Redis URL
// was forgotten, development mode must not turn itself on.
func (c *Config) forProduction() bool {
	return len(c.JWTSecret) > 0 || c.JWTPublicKey != "" || c.JWKSURL != "" || len(c.APIKeys) > 0
}

// check refuses settings that can't work. The error says which setting, what it was, and what is allowed.
func (c *Config) check() error {
	return cmp.Or(
		c.checkAddresses(),
		c.checkMode(),
		c.checkSecrets(),
		c.checkNames(),
		c.checkLimits(),
	)
}

func (c *Config) checkAddresses() error {
	host, _, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return refuse("addr", c.Addr, "want host:port")
	}
	if c.dev() && !handlers.IsLoopback(host) {
		return refuse("addr", c.Addr, "dev mode makes tokens for anybody who can reach it, so it listens "+
			"only on 127.0.0.1, [::1] or localhost; to serve others, give a --redis-url and leave --dev out")
	}
	if c.PprofAddr == "" {
		return nil
	}
	if host, _, err := net.SplitHostPort(c.PprofAddr); err != nil || !handlers.IsLoopback(host) {
		return refuse("pprof-addr", c.PprofAddr,
			"want host:port on 127.0.0.1, [::1] or localhost: profiles tell everything")
	}
	return nil
}

// checkMode wants everything that an instance outside development mode needs.
func (c *Config) checkMode() error {
	switch {
	case c.dev():
		return nil
	case c.inProcess() && c.Dev != nil:
		return refuse("redis-url", "",
			"is needed with --no-dev: the Redis in this process is for development mode only")
	case c.inProcess():
		return refuse("redis-url", "", "is empty, and a secret, key, JWKS URL or API key of production is "+
			"given: give the URL of a Redis too; or, for development mode on this machine, say --dev "+
			"(ROLLCALL_DEV=true)")
	case len(c.JWTSecret) == 0 && c.JWTPublicKey == "" && c.JWKSURL == "":
		return refuse("jwt-secret", "",
			"needed to verify tokens outside dev mode; or give --jwt-public-key or --jwks-url")
	case len(c.APIKeys) == 0:
		return refuse("api-keys", "", "needed outside dev mode: backends push with one of them")
	}
	return nil
}

func (c *Config) checkSecrets() error {
	return cmp.Or(checkSecretList("jwt-secret", c.JWTSecret), checkSecretList("api-keys", c.APIKeys))
}

func checkSecretList(setting string, values []string) error {
	for _, value := range values {
		if value == "" || strings.ContainsFunc(value, isSpace) {
			return refuse(setting, "", "one of the comma-separated values is empty or has a space in it")
		}
		if len(value) < minSecret {
			return refuse(setting, "", fmt.Sprintf("one of the comma-separated values has only %d bytes: "+
				"want at least %d, and better %d or more (a comma separates two values)",
				len(value), minSecret, safeSecret))
		}
	}
	return nil
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
		return refuse("max-sockets", c.MaxSockets, fmt.Sprintf("want 0 (as many as may be) to %d: the "+
			"process may open %d files (ulimit -n), of which some are kept for Redis, probes and backends",
			most, fileLimit()))
	}
	return nil
}

// maxSockets is how many sockets this instance may have; 0: no limit is known.
func (c *Config) maxSockets() int {
	if c.MaxSockets > 0 {
		return c.MaxSockets
	}
	return mostSockets(fileLimit())
}

// maxShards is far more than a Cluster may have nodes. Every shard costs each instance a call every fifth of
// a lease.
const maxShards = 1024

// refuse makes an error that names a setting. A value that is empty or secret is not shown: give "".
func refuse(setting string, value any, problem string) error {
	variable := "ROLLCALL_" + strings.ToUpper(strings.ReplaceAll(setting, "-", "_"))
	if value == "" {
		return fmt.Errorf("--%s (%s): %s", setting, variable, problem)
	}
	return fmt.Errorf("--%s (%s) is %v: %s", setting, variable, value, problem)
}

func isSpace(r rune) bool { return r <= ' ' }

// fillDev makes the secrets that development mode was not given. They must not change the mode, so it fixes
// that first.
func (c *Config) fillDev() {
	on := c.dev()
	if c.Dev = &on; !on {
		return
	}
	if c.madeSecret = len(c.JWTSecret) == 0; c.madeSecret {
		c.JWTSecret = []string{rand.Text()}
	}
	if c.madeKey = len(c.APIKeys) == 0; c.madeKey {
		c.APIKeys = []string{rand.Text()}
	}
}
