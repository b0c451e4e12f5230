package redis

import (
	"context"
	"testing"
	"time"
)

func TestInProcess_RemovesKeysThatHaveExpired(t *testing.T) {
	t.Parallel()
	s, err := startInProcess()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	s.stop() // the test has a clock of its own
	for _, key := range []string{"lasting", "passing"} {
		if err := s.redis.Set(key, "x"); err != nil {
			t.Fatal(err)
		}
	}
	s.redis.SetTTL("passing", 5*time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	ticks, ended := make(chan time.Time), make(chan struct{})
	go func() { s.expire(ctx, ticks); close(ended) }()
	start := time.Now()
	ticks <- start.Add(4 * time.Minute)
	ticks <- start.Add(4 * time.Minute) // is taken only after the first was handled
	if !s.redis.Exists("passing") {
		t.Error("it was removed too early")
	}
	ticks <- start.Add(6 * time.Minute)
	cancel()
	<-ended
	if s.redis.Exists("passing") || !s.redis.Exists("lasting") {
		t.Errorf("it holds %v", s.redis.Keys())
	}
}
