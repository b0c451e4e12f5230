package redistest

import (
	"context"
	"strconv"
	"strings"
)

const (
	fullAt = "16mb" // far more than a Redis needs that holds nothing
	filler = "filler, which is another's"
)

// SmallRedis are arguments of a server that Fill can fill.
var SmallRedis = []string{"--maxmemory", fullAt, "--maxmemory-policy", "noeviction"}

// Fill has somebody else fill the server, so that it refuses whatever may need memory.
func (s *Server) Fill() {
	s.t.Helper()
	client := s.Client()
	s.Do(client, "SETRANGE", filler, strconv.Itoa(16<<20), "x")
	err := client.Do(context.Background(), client.B().Set().Key("more").Value("x").Build()).Error()
	if err == nil || !strings.HasPrefix(err.Error(), "OOM ") {
		s.t.Fatalf("the server is to be full, and answers %v", err)
	}
}

// MakeRoom ends what Fill did.
func (s *Server) MakeRoom() {
	s.t.Helper()
	s.Do(s.Client(), "DEL", filler)
}
