// Package lua holds every change of the state that instances share: one file, one transition, which Redis
// runs as a whole or not at all. A script touches the keys of one shard, reads Redis' own clock, and never
// adds to a count: it states what is, so it can be repeated.
//
// The header of each file is its contract: its keys, arguments and answer, and the preludes it uses. A
// prelude is a file that is put before the scripts that name it: leases.lua and entry.lua define how leases
// and entries are written, renewal.lua how a lease goes on.
package lua

import (
	"embed"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/rueidis"
)

//go:embed *.lua
var files embed.FS

// The scripts. Their headers say what they take and return.
var (
	Announce    = load("announce")
	Claim       = load("claim")
	Instances   = load("instances")
	Lease       = load("lease")
	Lookup      = load("lookup")
	Mirror      = load("mirror")
	Page        = load("page")
	Push        = load("push")
	StoreResult = load("store_result")
	Sweep       = load("sweep")
)

// Script is one file of this package, with the preludes that it uses before it.
type Script struct {
	*rueidis.Lua
	Name string // of the file, without .lua
}

// Status is the first value that a script returns if it may refuse.
type Status int64

// The statuses; common.lua has the same. With each but OK nothing was written.
const (
	OK          Status = 1
	StaleLease  Status = 0 // Redis holds another version of the caller's lease, or a dead one, or none
	OtherShards Status = 2 // the other instances use another number of shards
	Taken       Status = 3 // a request with this key came before
	NotYours    Status = 4 // the claim is not the caller's
)

// The errors that mean these statuses, and the error of a Redis that is full.
var (
	ErrStaleLease  = errors.New("redis holds another version of this lease, or none")
	ErrOtherShards = errors.New("the other instances use another number of shards")
	ErrTaken       = errors.New("a request with this key came before")
	ErrNotYours    = errors.New("the claim is another's, or is forgotten")
	ErrFull        = errors.New("redis is full: it has reached its maxmemory")
)

var errorOf = map[Status]error{
	OK: nil, StaleLease: ErrStaleLease, OtherShards: ErrOtherShards, Taken: ErrTaken, NotYours: ErrNotYours,
}

// Err returns the error that a status means; nil for OK.
func (s Status) Err() error {
	err, known := errorOf[s]
	if !known {
		return fmt.Errorf("lua: an answer with the unknown status %d", s)
	}
	return err
}

// Check returns the answer of a script that begins with a status. If the script refused, the answer comes
// with one of the errors above. If a full Redis refused, the error is ErrFull.
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
	return reply, Status(code).Err()
}

// WithFull makes the error of a Redis that is full an ErrFull too, and returns any other error as it is.
func WithFull(err error) error {
	if reply, ok := rueidis.IsRedisErr(err); ok && strings.Contains(reply.Error(), fullSays) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// fullSays is what a full Redis answers. To a script, Redis 6 answers with a longer error that contains it.
const fullSays = "OOM command not allowed"

func load(name string) *Script { return &Script{rueidis.NewLuaScript(source(name)), name} }

// source returns the text of a script: the preludes that its header names, and the file.
func source(name string) string {
	text := ""
	for _, prelude := range uses(name) {
		text += read(prelude)
	}
	return text + read(name)
}

// uses returns the preludes of a script, in the order in which its header names them.
func uses(name string) []string {
	_, list, _ := strings.Cut(read(name), "\n-- Uses: ")
	list, _, _ = strings.Cut(list, "\n")
	return strings.Split(list, ", ")
}

func read(name string) string {
	text, err := files.ReadFile(name + ".lua")
	if err != nil {
		panic("lua: " + err.Error()) // a name here or in a header without its file: every test fails
	}
	return string(text)
}
