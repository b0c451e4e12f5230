package main

import (
	"fmt"
	"io"

	"rollcall/handlers"
)

// devPage is what the page of development mode may use; nil outside development mode.
func (c *Config) devPage() *handlers.Dev {
	if !c.dev() {
		return nil
	}
	page := &handlers.Dev{Secret: c.JWTSecret[0], Issuer: c.JWTIssuer, Audience: c.JWTAudience}
	if c.madeKey || c.DevServeKey {
		page.APIKey = c.APIKeys[0]
	}
	return page
}

// printDev prints what a newcomer needs to see Rollcall work. It prints secrets only if this process made
// them, and likewise the URL of Redis, which may have a password in it.
//
// The line for a second instance gives it the secrets that this one made. An instance serves an API key that
// it was given only if that is said, so the line says it.
func printDev(out io.Writer, a *App) {
	secret, key := "<the secret you gave>", "<the API key you gave>"
	if a.config.madeSecret {
		secret = a.config.JWTSecret[0]
	}
	served := ""
	if a.config.madeKey {
		key, served = a.config.APIKeys[0], "ROLLCALL_DEV_SERVE_KEY=true "
	}
	redis := "<the URL you gave>"
	if a.config.inProcess() {
		redis = a.RedisURL
	}
	fmt.Fprintf(out, `
Rollcall runs in development mode. Open the page, in two tabs:

    http://%[1]s/?user=alice

Push to alice from another terminal:

    curl http://%[1]s/push/alice -H 'Authorization: Bearer %[2]s' -H 'Content-Type: application/json' -d '{"event":"hello","data":{"from":"curl"}}'

Start a second instance that joins this one:

    ROLLCALL_ADDR=127.0.0.1:0 ROLLCALL_REDIS_URL=%[3]s ROLLCALL_DEV=true %[5]sROLLCALL_JWT_SECRET=%[4]s ROLLCALL_API_KEYS=%[2]s make run

Ctrl-C stops it.

`, a.Addr, key, redis, secret, served)
}
