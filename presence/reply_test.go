package presence

import (
	"slices"
	"strings"
	"testing"

	"rollcall/lua/redistest"
)

func TestReply_KeepsItsFirstErrorAndReadsNothingAfterIt(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		server.Do(c.client, "HSET", "h", "f", "text", "g", "7")
		reply := c.redis.do(t.Context(), 3, c.client.B().Hmget().Key("h").Field("f", "nothing", "g").Build())
		texts := reply.texts()
		if !slices.Equal(texts, []string{"text", "", "7"}) || reply.err != nil {
			t.Errorf("read %q, %v", texts, reply.err)
		}
		if n := reply.int(); n != 0 || reply.err == nil {
			t.Errorf("read %d behind the end, %v", n, reply.err)
		}
		reply = c.redis.do(t.Context(), 3, c.client.B().Hget().Key("h").Field("f").Build())
		n := reply.int()
		first := reply.err
		if n != 0 || first == nil || !strings.Contains(first.Error(), "HGET in shard 3") {
			t.Errorf("a text is read as the number %d, %v", n, first)
		}
		if text := reply.text(); text != "" || reply.err != first {
			t.Errorf("read %q after an error, %v", text, reply.err)
		}
	})
}
