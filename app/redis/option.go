package redis

import (
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"github.com/redis/rueidis"
)

// sentinelRefresh is how often a client asks the Sentinels who the master is. They also tell when that
// changes, but only once.
const sentinelRefresh = 2 * time.Second

// clientOption is how clients connect to a URL.
func clientOption(config Config, address string) (rueidis.ClientOption, error) {
	option, err := rueidis.ParseURL(address)
	if err != nil { // it may quote the password
		return option, fmt.Errorf("%s: not the URL of a Redis: want redis://user:password@host:port, "+
			"rediss:// for TLS; special characters in the password are percent-encoded", urlSetting)
	}
	option.DisableCache = true    // each answer is Redis' own
	option.DisableRetry = true    // the caller must notice at once that Redis is away, and knows what to do
	option.PipelineMultiplex = -1 // one connection, so that calls stay in order
	option.Dialer.Timeout = dialTimeout
	option.ConnWriteTimeout = Timeout / 2 // a hung connection is noticed before the calls over it give up
	if err := setTrust(&option, config.CAFile); err != nil {
		return option, err
	}
	return option, setSentinel(&option, config)
}

// setTrust sets whose certificates are trusted. The name in a certificate must be the address at which the
// server was reached, not the host of the URL: the nodes of a Cluster and the servers that Sentinels name
// have other addresses.
func setTrust(option *rueidis.ClientOption, caFile string) error {
	if option.TLSConfig != nil {
		option.TLSConfig.ServerName = ""
	}
	if caFile == "" {
		return nil
	}
	if option.TLSConfig == nil {
		return fmt.Errorf("%s is %s: it is for TLS, which the Redis URL asks for with rediss://",
			caSetting, caFile)
	}
	text, err := os.ReadFile(caFile)
	if err != nil {
		return fmt.Errorf("%s: %w", caSetting, err)
	}
	option.TLSConfig.RootCAs = x509.NewCertPool()
	if !option.TLSConfig.RootCAs.AppendCertsFromPEM(text) {
		return fmt.Errorf("%s is %s: want a PEM file with a certificate in it", caSetting, caFile)
	}
	return nil
}

// setSentinel sets how Sentinels are reached: like the servers they watch, but with a user of their own.
func setSentinel(option *rueidis.ClientOption, config Config) error {
	if option.Sentinel.MasterSet == "" && (config.SentinelUsername != "" || config.SentinelPassword != "") {
		return fmt.Errorf("%s: it is for Sentinels, which the Redis URL names with ?master_set=",
			sentinelSetting)
	}
	if config.SentinelUsername != "" && config.SentinelPassword == "" {
		return fmt.Errorf("%s: needed with --redis-sentinel-username", sentinelSetting)
	}
	option.Sentinel.Username, option.Sentinel.Password = config.SentinelUsername, config.SentinelPassword
	option.Sentinel.Dialer, option.Sentinel.TLSConfig = option.Dialer, option.TLSConfig
	option.Sentinel.TopologyRefreshInterval = sentinelRefresh
	return nil
}

// plainOption makes the plainest of clients, to one address, whatever kind of server is there.
func plainOption(option rueidis.ClientOption, addr string) rueidis.ClientOption {
	if sentinel := option.Sentinel; sentinel.MasterSet != "" {
		option.Username, option.Password, option.SelectDB = sentinel.Username, sentinel.Password, 0
		option.Sentinel = rueidis.SentinelOption{}
	}
	option.ForceSingleClient, option.AlwaysRESP2, option.InitAddress = true, true, []string{addr}
	return option
}
