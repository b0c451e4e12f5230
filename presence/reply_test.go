package presence

import (
	"strings"
	"testing"

	"rollcall/lua/redistest"
)

func TestReply_KeepsItsFirstErrorAndReadsNothingAfterIt(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		c := newCluster(t, server, 1)
		server.Do(c.client, "HSET", "h", "f", "text", "g", "7")
		reply := c.redis.do(t.Context(), 3, c.client.B().Hmget().Key("h").Field("f", "nothing", "g").Build())
		if texts := reply.texts(); len(texts) != 3 || texts[0] != "text" || texts[1] != "" || reply.err != nil {
			t.Errorf("read %q, %v", texts, reply.err)
		}
		if n := reply.int(); n != 0 || reply.err == nil {
			t.Errorf("read %d behind the end, %v", n, reply.err)
		}
		reply = c.redis.do(t.Context(), 3, c.client.B().Hget().Key("h").Field("f").Build())
		if n := reply.int(); n != 0 || reply.err == nil || !strings.Contains(reply.err.Error(), "HGET in shard 3") {
			t.Errorf("a text is read as the number %d, %v", n, reply.err)
		}
		first := reply.err
		if text := reply.text(); text != "" || reply.err != first {
			t.Errorf("read %q after an error, %v", text, reply.err)
		}
	})
}
