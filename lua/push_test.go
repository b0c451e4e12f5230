package lua

import (
	"maps"
	"slices"
	"testing"

	"github.com/redis/rueidis"

	"rollcall/lua/redistest"
)

func TestPushReachesOwnersUnderLiveLeasesOnly(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		messages := make(chan rueidis.PubSubMessage, 10)
		listen(t, s, messages, s.key("to:a"), s.key("to:b"), s.key("to:c"))
		for _, token := range []string{"a.1", "b.1", "c.1", "deaf.1"} {
			s.want(s.lease(token, "", 10000), OK)
		}
		s.want(s.mirror("a.1", "0", "alice", "2", "bob", "1", "cathy", "grace", "frank", "3"), OK)
		s.want(s.mirror("b.1", "0", "alice", "1"), OK)
		s.want(s.mirror("c.1", "0", "alice", "1", "dave", "1"), OK)
		s.age("c.1", 12000) // lapsed
		s.want(s.mirror("deaf.1", "0", "erin", "1", "frank", "1"), OK)
		users := []string{"alice", "bob", "cathy", "dave", "erin", "frank", "nobody"}
		envelopes := []string{"<1>", "<2>", "<3>", "<4>", "<5>", "<6>", "<7>"}
		args := append([]string{"PUBLISH", s.key("to:"), "15000", "<0>", "7", "", "b.1"}, append(users, envelopes...)...)
		reply := s.run(Push, []string{"owners", "leases"}, args...)
		got := numbersIn(reply)
		// b is the sender and nobody listens for deaf, so only a took anything
		const instance, socket = 4, 4 * 65536
		if want := []int64{2 + instance + 2*socket, 2 + instance + socket, 1, 1, 2, 2 + instance + 3*socket, 0}; !slices.Equal(got, want) {
			t.Errorf("answers %v, want %v", got, want)
		}
		if message := <-messages; message.Channel != s.key("to:a") || message.Message != "<0><1><2><6>" {
			t.Errorf("published %q to %s, want <0><1><2><6> to a", message.Message, message.Channel)
		}
		if len(messages) > 0 {
			t.Errorf("published more: %v", <-messages)
		}

		args[6] = "b.2" // of which Redis does not know
		got = numbersIn(s.run(Push, []string{"owners", "leases"}, args...))
		if want := []int64{2 + instance + 2*socket, 2 + instance + socket, 3, 3, 3, 2 + instance + 3*socket, 3}; !slices.Equal(got, want) {
			t.Errorf("from a caller whom Redis has forgotten: %v, want %v", got, want)
		}
	})
}

func numbersIn(reply []rueidis.RedisMessage) (numbers []int64) {
	for _, message := range reply {
		n, _ := message.AsInt64()
		numbers = append(numbers, n)
	}
	return numbers
}

func TestAFrameInCommonGoesWhereItIsNeededAndOnceInARow(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newState(t, server)
		messages := make(chan rueidis.PubSubMessage, 10)
		listen(t, s, messages, s.key("to:a"), s.key("to:b"))
		for _, token := range []string{"a.1", "b.1"} {
			s.want(s.lease(token, "", 10000), OK)
		}
		s.want(s.mirror("a.1", "0", "alice", "1"), OK)
		s.want(s.mirror("b.1", "0", "bob", "1"), OK)
		args := []string{"PUBLISH", s.key("to:"), "15000", "<0>", "6", "\x01\x00\x01\x00\x01\x02", "c.1"}
		args = append(args, "alice", "bob", "alice", "alice", "alice", "alice")
		args = append(args, "<1>", "<2>", "<3>", "<4>", "<5>", "<6>")
		args = append(args, "{1}", "{2}")
		s.run(Push, []string{"owners", "leases"}, args...)
		got := map[string]string{}
		for range 2 {
			message := <-messages
			got[message.Channel] = message.Message
		}
		want := map[string]string{s.key("to:a"): "<0>{1}<1><3><4><5>{2}<6>", s.key("to:b"): "<0><2>"}
		if !maps.Equal(got, want) {
			t.Errorf("published %q, want %q", got, want)
		}
	})
}
