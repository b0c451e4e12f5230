package lua

import (
	"maps"
	"slices"
	"testing"

	"rollcall/lua/redistest"
)

func TestPush_ReachesOwnersUnderLiveLeasesOnly(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newShard(t, server)
		messages := s.listen("to:a", "to:b", "to:c")
		s.open("a.1", "b.1", "c.1", "deaf.1")
		s.write("a.1", "0", "alice", "2", "bob", "1", "cathy", "grace", "frank", "3")
		s.write("b.1", "0", "alice", "1")
		s.write("c.1", "0", "alice", "1", "dave", "1")
		s.age("c.1", 12000) // expired
		s.write("deaf.1", "0", "erin", "1", "frank", "1")
		pushes := []string{
			"alice", "bob", "cathy", "dave", "erin", "frank", "nobody",
			"<1>", "<2>", "<3>", "<4>", "<5>", "<6>", "<7>",
		}
		// b is the caller, and nobody subscribes as deaf, so only a takes anything.
		const instance, socket = 4, 4 * 65536 // in an answer; the rest is the user's state
		alice, bob, frank := int64(2+instance+2*socket), int64(2+instance+socket), int64(2+instance+3*socket)
		got := s.push("b.1", "", 7, pushes...)
		if want := []int64{alice, bob, 1, 1, 2, frank, 0}; !slices.Equal(got, want) {
			t.Errorf("answers %v, want %v", got, want)
		}
		message := <-messages
		if message.Channel != s.key("to:a") || message.Message != "<0><1><2><6>" {
			t.Errorf("published %q to %s, want <0><1><2><6> to a", message.Message, message.Channel)
		}
		if len(messages) > 0 {
			t.Errorf("published more: %v", <-messages)
		}

		got = s.push("b.2", "", 7, pushes...)
		if want := []int64{alice, bob, 3, 3, 3, frank, 3}; !slices.Equal(got, want) {
			t.Errorf("from a caller without a lease: %v, want %v", got, want)
		}
	})
}

func TestPush_SendsACommonFrameWhereItIsNeededAndOnceInARow(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		s := newShard(t, server)
		messages := s.listen("to:a", "to:b")
		s.open("a.1", "b.1")
		s.write("a.1", "0", "alice", "1")
		s.write("b.1", "0", "bob", "1")
		s.push("c.1", "\x01\x00\x01\x00\x01\x02", 6,
			"alice", "bob", "alice", "alice", "alice", "alice",
			"<1>", "<2>", "<3>", "<4>", "<5>", "<6>",
			"{1}", "{2}")
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
