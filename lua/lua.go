// Package lua holds every change of the state that instances share: one file, one transition, run by Redis as
// a whole or not at all. A script touches the keys of one shard, reads Redis' own clock, and never adds to a
// count: it states what is, so it can be repeated. The header of each file is its contract; standing.lua,
// renewal.lua and entry.lua, which they begin with, define leases and entries.
package lua

import (
	"embed"
	"errors"
	"fmt"
	"slices"
	"strings"

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

// The statuses; standing.lua has the same. With each but OK nothing was written.
const (
	OK          Status = 1
	StaleLease  Status = 0 // Redis holds another version of the caller's lease, or none
	OtherShards Status = 2 // the other instances use another number of shards
	Taken       Status = 3 // a request with this key came before
	NotYours    Status = 4 // the claim is not the caller's
)

// The errors that statuses are, and the one of a Redis that is full.
var (
	ErrStaleLease  = errors.New("redis holds another version of this lease, or none")
	ErrOtherShards = errors.New("the other instances use another number of shards")
	ErrTaken       = errors.New("a request with this key came before")
	ErrNotYours    = errors.New("the claim is another's, or is forgotten")
	ErrFull        = errors.New("redis is full: it has reached its maxmemory")
)

var errorOf = map[Status]error{OK: nil, StaleLease: ErrStaleLease, OtherShards: ErrOtherShards, Taken: ErrTaken, NotYours: ErrNotYours}

// Check returns what a script answered. What it refused is one of the errors above, and comes with the
// answer; so is what a full Redis refused.
func Check(result rueidis.RedisResult) ([]rueidis.RedisMessage, error) {
	reply, err := result.ToArray()
	if err != nil {
		return nil, WithFull(err)
	}
	if len(reply) == 0 {
		return nil, errors.New("lua: an answer without a status")
	}
	code, err := reply[0].AsInt64()
	if err != nil {
		return nil, fmt.Errorf("lua: the status of an answer: %w", err)
	}
	refusal, known := errorOf[Status(code)]
	if !known {
		return nil, fmt.Errorf("lua: an answer with the status %d, which nobody knows", code)
	}
	return reply, refusal
}

// WithFull makes the error of a Redis that is full ErrFull too, and passes every other one.
func WithFull(err error) error {
	if reply, ok := rueidis.IsRedisErr(err); ok && strings.Contains(reply.Error(), fullSays) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// fullSays is how a full Redis puts it. In a script of Redis 6 it is in the middle of a longer error.
const fullSays = "OOM command not allowed"

// Script is one file of this package.
type Script struct {
	*rueidis.Lua
	Name string // of the file, without .lua
}

func load(name string) *Script { return &Script{rueidis.NewLuaScript(source(name)), name} }

// common files come before every script, but renewal.lua only before those that write leases, or go on
// although Redis is full.
var (
	common = []string{"standing", "renewal", "entry"}
	renews = []string{"announce", "lease", "mirror", "sweep"}
)

func source(name string) string {
	text := read("standing")
	if slices.Contains(renews, name) {
		text += read("renewal")
	}
	return text + read("entry") + read(name)
}

func read(name string) string {
	text, err := files.ReadFile(name + ".lua")
	if err != nil {
		panic("lua: " + err.Error()) // a name above without its file: cannot pass a test run
	}
	return string(text)
}
