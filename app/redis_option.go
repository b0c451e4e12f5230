package main

import (
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"github.com/redis/rueidis"
)

// sentinelRefresh is how often a client asks the Sentinels who is master. They tell when it changes, but say it only once.
const sentinelRefresh = 2 * time.Second

// redisOption is how clients connect to a URL.
func redisOption(c *Config, address string) (rueidis.ClientOption, error) {
	option, err := rueidis.ParseURL(address)
	if err != nil { // which may quote the password
		return option, refuse("redis-url", "", "not the URL of a Redis: want redis://user:password@host:port, rediss:// for TLS; what is special in the password is percent-encoded")
	}
	option.DisableCache = true    // nothing is cached: an answer is Redis' own
	option.DisableRetry = true    // who calls knows better what a failure means, and Redis away must be noticed at once
	option.PipelineMultiplex = -1 // one connection, so that calls stay in order
	option.Dialer.Timeout = redisDial
	option.ConnWriteTimeout = redisTimeout / 2
	if err := trust(&option, c.RedisCAFile); err != nil {
		return option, err
	}
	return option, setSentinel(&option, c)
}

// trust sets whose certificates are trusted. Each server is held to the address at which it is reached: those of a Cluster, and those
// that Sentinels name, have other addresses than the URL.
func trust(option *rueidis.ClientOption, caFile string) error {
	if option.TLSConfig != nil {
		option.TLSConfig.ServerName = ""
	}
	if caFile == "" {
		return nil
	}
	if option.TLSConfig == nil {
		return refuse("redis-ca-file", caFile, "it is for TLS, which the Redis URL asks for with rediss://")
	}
	text, err := os.ReadFile(caFile)
	if err != nil {
		return fmt.Errorf("--redis-ca-file (ROLLCALL_REDIS_CA_FILE): %w", err)
	}
	option.TLSConfig.RootCAs = x509.NewCertPool()
	if !option.TLSConfig.RootCAs.AppendCertsFromPEM(text) {
		return refuse("redis-ca-file", caFile, "want a PEM file with a certificate in it")
	}
	return nil
}

// setSentinel sets how Sentinels are reached: as the servers they watch, but with their own user.
func setSentinel(option *rueidis.ClientOption, c *Config) error {
	if option.Sentinel.MasterSet == "" && (c.RedisSentinelUsername != "" || c.RedisSentinelPassword != "") {
		return refuse("redis-sentinel-password", "", "it is for Sentinels, which the Redis URL names with ?master_set=")
	}
	if c.RedisSentinelUsername != "" && c.RedisSentinelPassword == "" {
		return refuse("redis-sentinel-password", "", "needed with --redis-sentinel-username")
	}
	option.Sentinel.Username, option.Sentinel.Password = c.RedisSentinelUsername, c.RedisSentinelPassword
	option.Sentinel.Dialer, option.Sentinel.TLSConfig = option.Dialer, option.TLSConfig
	option.Sentinel.TopologyRefreshInterval = sentinelRefresh
	return nil
}

// plainOption is for the plainest of clients, to one address, whatever is there.
func plainOption(option rueidis.ClientOption, addr string) rueidis.ClientOption {
	if sentinel := option.Sentinel; sentinel.MasterSet != "" {
		option.Username, option.Password, option.SelectDB = sentinel.Username, sentinel.Password, 0
		option.Sentinel = rueidis.SentinelOption{}
	}
	option.ForceSingleClient, option.AlwaysRESP2, option.InitAddress = true, true, []string{addr}
	return option
}
