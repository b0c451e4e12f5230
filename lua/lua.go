// Package lua holds every change of the state that instances share: one file, one transition, run by Redis as a whole or not at
// all. A script touches the keys of one shard, reads Redis' own clock, and never adds to a count: it states what is, so it can
// be repeated. The header of each file is its contract; standing.lua and entry.lua, which all of them begin with, define leases and
// entries.
package lua

import (
	"embed"

	"github.com/redis/rueidis"
)

//go:embed *.lua
var files embed.FS

// The scripts. Their headers say what they take and return.
var (
	Announce  = load("announce")
	Claim     = load("claim")
	Instances = load("instances")
	Lease     = load("lease")
	Lookup    = load("lookup")
	Mirror    = load("mirror")
	Page      = load("page")
	Push      = load("push")
	Settle    = load("settle")
	Sweep     = load("sweep")
)

// Status is the first value a script that may refuse returns.
type Status int64

const (
	Stale Status = 0 // refused: Redis does not hold what the caller believes it does
	OK    Status = 1
)

func load(name string) *rueidis.Lua { return rueidis.NewLuaScript(source(name)) }

// common files come before every script.
var common = []string{"standing", "entry"}

func source(name string) string {
	text := ""
	for _, part := range append(common, name) {
		text += read(part)
	}
	return text
}

func read(name string) string {
	text, err := files.ReadFile(name + ".lua")
	if err != nil {
		panic("lua: " + err.Error()) // a name above without its file: cannot pass a test run
	}
	return string(text)
}
