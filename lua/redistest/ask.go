package redistest

import (
	"context"
	"strings"

	"github.com/redis/rueidis"
)

// Ask runs a command; the answer may be an error.
func (s *Server) Ask(words ...string) rueidis.RedisResult {
	s.t.Helper()
	client := s.asking()
	return client.Do(context.Background(), client.B().Arbitrary(words...).Build())
}

// Changes are what a log of presence holds, each as "user state".
func (s *Server) Changes(client rueidis.Client, log string) (changes []string) {
	s.t.Helper()
	entries, err := s.Do(client, "XRANGE", log, "-", "+").AsXRange()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, entry := range entries {
		changes = append(changes, entry.FieldValues["user"]+" "+entry.FieldValues["state"])
	}
	return changes
}

// run runs a command whose answer is text.
func (s *Server) run(words ...string) string {
	s.t.Helper()
	text, err := s.Ask(words...).ToString()
	if err != nil {
		s.t.Fatalf("%s: %v", words[0], err)
	}
	return text
}

// isMaster says whether it is one now. A server that becomes one may close its connections.
func (s *Server) isMaster() bool {
	info, err := s.Ask("INFO", "replication").ToString()
	return err == nil && strings.Contains(info, "role:master")
}

// isInStep says whether it has copied its master.
func (s *Server) isInStep() bool {
	info, err := s.Ask("INFO", "replication").ToString()
	return err == nil && strings.Contains(info, "master_link_status:up")
}
