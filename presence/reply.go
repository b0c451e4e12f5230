package presence

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/rueidis"

	"rollcall/lua"
)

// reply reads the answer of one call from front to back. If a part is missing or of another type, or the call
// failed, err says so; from then on every part reads as its zero value. A caller therefore reads all parts
// first, and looks at err once.
type reply struct {
	call  string // the script or command, for err
	shard int    // for err
	parts []rueidis.RedisMessage
	err   error
}

var errShortReply = errors.New("the answer has too few parts")

// run runs a script on the keys of a shard. Each value of the array that it returns is a part.
func (r Redis) run(ctx context.Context, script *lua.Script, shard int, keys, args []string) *reply {
	parts, err := r.Exec(ctx, script, keys, args).ToArray()
	p := &reply{call: script.Name + ".lua", shard: shard, parts: parts}
	p.fail(lua.WithFull(err))
	return p
}

// do runs a command on a key of a shard. Its answer is the only part.
func (r Redis) do(ctx context.Context, shard int, command rueidis.Completed) *reply {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	name := command.Commands()[0]
	message, err := r.Client.Do(ctx, command).ToMessage()
	p := &reply{call: name, shard: shard, parts: []rueidis.RedisMessage{message}}
	p.fail(err)
	return p
}

func (p *reply) fail(err error) {
	if p.err == nil && err != nil {
		p.err = fmt.Errorf("presence: %s in shard %d: %w", p.call, p.shard, err)
	}
}

// status reads the status of a script. If it refused, err is the error of lua for that status.
func (p *reply) status() { p.fail(lua.Status(p.int()).Err()) }

func (p *reply) int() int64 { return readPart(p, (*rueidis.RedisMessage).AsInt64) }

// cursor reads a cursor of HSCAN.
func (p *reply) cursor() uint64 { return readPart(p, (*rueidis.RedisMessage).AsUint64) }

func (p *reply) text() string { return readPart(p, (*rueidis.RedisMessage).ToString) }

// texts reads an array. An element that is nil is empty.
func (p *reply) texts() []string { return readPart(p, (*rueidis.RedisMessage).AsStrSlice) }

// step reads the answer of HSCAN.
func (p *reply) step() rueidis.ScanEntry { return readPart(p, (*rueidis.RedisMessage).AsScanEntry) }

// rest reads all the parts that are left.
func (p *reply) rest() (texts []string) {
	for range p.parts {
		texts = append(texts, p.text())
	}
	return texts
}

// readPart reads the first part that is left.
func readPart[T any](p *reply, read func(*rueidis.RedisMessage) (T, error)) (value T) {
	if p.err != nil {
		return value
	}
	if len(p.parts) == 0 {
		p.fail(errShortReply)
		return value
	}
	value, err := read(&p.parts[0])
	p.parts = p.parts[1:]
	p.fail(err)
	return value
}
