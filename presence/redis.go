package presence

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"rollcall/lua"
)

// Redis is the door to Redis: every command but the subscriptions goes through it. All fields are static.
type Redis struct {
	Client  rueidis.Client
	Keys    Keys
	Sharded bool // SPUBLISH and SSUBSCRIBE, as on a Cluster; else PUBLISH and SUBSCRIBE

	Lease time.Duration // how long a lease lives without renewal
	Grace time.Duration // how long a user whose last socket has dropped is reconnecting
	// MinStay is the shortest time between coming and leaving. A user who leaves earlier, even on purpose, is
	// in a grace until then. A user who connects and disconnects in a loop therefore causes at most two
	// changes of presence in this time on each instance, and cannot push other users' changes out of the log.
	// 0: none.
	MinStay time.Duration
	LogCap  int           // changes of presence kept in each shard, about
	SeenFor time.Duration // how long the last time online of an offline user is remembered
	SeenCap int           // offline users remembered, in all shards together, about
	Timeout time.Duration // of each call

	unreadable *atomic.Int64 // values that could not be read; nil: not counted
}

// Exec runs a script. The call takes at most Timeout. It may take effect although it fails: its answer may
// have been lost, or it may still be on its way.
func (r Redis) Exec(ctx context.Context, script *lua.Script, keys, args []string) rueidis.RedisResult {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	return script.Exec(ctx, r.Client, keys, args)
}

// Publish sends a message to a channel and returns how many subscribers got it. The call takes at most
// Timeout.
func (r Redis) Publish(ctx context.Context, channel string, message []byte) (subscribers int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	return r.Client.Do(ctx, r.publish(channel, message)).AsInt64()
}

// PublishAll sends a message to each of some channels, in one round trip, which takes at most Timeout. It
// returns an error for each message that could not be sent.
func (r Redis) PublishAll(ctx context.Context, messages map[string][]byte) (failures []error) {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	commands := make(rueidis.Commands, 0, len(messages))
	for channel, message := range messages {
		commands = append(commands, r.publish(channel, message))
	}
	for _, answer := range r.Client.DoMulti(ctx, commands...) {
		if err := answer.Error(); err != nil {
			failures = append(failures, err)
		}
	}
	return failures
}

func (r Redis) publish(channel string, message []byte) rueidis.Completed {
	text := rueidis.BinaryString(message)
	if r.Sharded {
		return r.Client.B().Spublish().Channel(channel).Message(text).Build()
	}
	return r.Client.B().Publish().Channel(channel).Message(text).Build()
}

// PublishCommand is the command with which scripts publish.
func (r Redis) PublishCommand() string {
	if r.Sharded {
		return "SPUBLISH"
	}
	return "PUBLISH"
}

// countUnreadable counts values in Redis that could not be read, and are treated as if they were not there.
func (r Redis) countUnreadable(values int) {
	if r.unreadable != nil {
		r.unreadable.Add(int64(values))
	}
}

// seenCap is how many offline users each shard remembers.
func (r Redis) seenCap() string {
	return strconv.Itoa((r.SeenCap + r.Keys.Shards() - 1) / r.Keys.Shards())
}

// RenewEvery is the time between renewals of a lease: four of five may be lost before it expires.
func (r Redis) RenewEvery() time.Duration { return r.Lease / 5 }
