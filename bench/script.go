package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/redis/rueidis"

	"rollcall/lua"
	"rollcall/presence"
)

// batchesScripted are how many pushes share a call in the measurement "script".
var batchesScripted = []int{1, 8, 32, 128, 256}

// measureScript runs push.lua as an instance does, with every other user's socket on another instance that listens.
func measureScript(ctx context.Context, s *stage) ([]row, error) {
	redis, err := s.startRedis(ctx)
	if err != nil {
		return nil, err
	}
	var keys presence.Keys
	for i, id := range []string{"sender", "owner"} {
		n, err := s.startNode(ctx, id, redis)
		if err != nil {
			return nil, err
		}
		keys = n.keys
		if err := n.joinFrom(ctx, i*s.users/2, s.users/2, func(int) presence.Conn { return &fakeConn{} }); err != nil {
			return nil, err
		}
	}
	var rows []row
	for _, batch := range batchesScripted {
		var full, least cost
		turns := []turn{
			{func() (cost, error) { return s.measureScripted(ctx, redis, lua.Push.Lua, keys, batch) }, &full},
			{func() (cost, error) { return s.measureScripted(ctx, redis, emptyScript, keys, batch) }, &least},
		}
		if err := takeTurns(turns...); err != nil {
			return nil, err
		}
		rows = append(rows,
			row{what: fmt.Sprintf("**push.lua**, %d pushes a call: CPU of Redis, a push", batch), found: full.redisEach(),
				floor: least.redisEach(), ofFloor: "a script that does nothing"},
			row{what: "of which in the script", found: full.each(full.redis.took["evalsha"])})
	}
	return rows, nil
}

// emptyScript is given what push.lua is given.
var emptyScript = rueidis.NewLuaScript("return 0")

func (s *stage) measureScripted(ctx context.Context, redis *redisServer, script *rueidis.Lua, keys presence.Keys, batch int) (cost, error) {
	args := []string{"PUBLISH", keys.Channels(0), " sender ", "15000", emptyEnvelope, strconv.Itoa(batch), "", "sender.1"}
	for i := range batch {
		args = append(args, userName(int64((i%2)*s.users/2+i/2)))
	}
	for range batch {
		args = append(args, string(unknownEnvelope(stamp(0, time.Time{}, s.payload))))
	}
	return s.measure(ctx, redis, nil, func() (done int64, err error) {
		for end := time.Now().Add(s.duration / 5 / turnRounds); time.Now().Before(end) && err == nil; done += int64(batch) {
			err = script.Exec(ctx, redis.client, []string{keys.Owners(0), keys.Leases(0)}, args).Error()
		}
		return done, err
	})
}

// emptyEnvelope is as long as what the messages of a call begin with, and dropped too.
const emptyEnvelope = "\x07" + unknownHead

// unknownHead is an envelope's kind, and six fields that are empty.
const unknownHead = "\x63\x00\x00\x00\x00\x00\x00"

// unknownEnvelope is an envelope of a kind that no version knows: whoever gets it drops it.
func unknownEnvelope(data []byte) []byte {
	rest := fmt.Appendf([]byte(unknownHead), `{"event":"bench","data":%s,"id":"%s"}`, data, uuid.Nil)
	return append(binary.AppendUvarint(nil, uint64(len(rest))), rest...)
}
