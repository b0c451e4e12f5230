package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// crashUsers have a socket on the instance that crashes.
const crashUsers = 500

// measureCrash kills an instance, with the default lease and grace, and waits until the other tells that its users are gone.
func measureCrash(ctx context.Context, s *stage) ([]row, error) {
	redis, err := s.startRedis(ctx)
	if err != nil {
		return nil, err
	}
	servers, err := startServers(2, func() (*server, error) { return s.startInstance(ctx, redis) })
	if err != nil {
		return nil, err
	}
	crowd, err := s.gather(crashUsers)
	if err != nil {
		return nil, err
	}
	if _, err := crowd.dial(ctx, crashUsers, servers[0]); err != nil {
		return nil, err
	}
	servers[0].end()
	started := time.Now()
	online, err := s.waitRead(ctx, servers[1], "/presence/"+userName(crashUsers-1), func(a readAnswer) bool { return a.State != "online" })
	if err != nil {
		return nil, err
	}
	swept, err := s.waitRead(ctx, servers[1], "/presence/count", func(a readAnswer) bool { return a.Present != nil && *a.Present == 0 })
	if err != nil {
		return nil, err
	}
	return []row{
		{what: fmt.Sprintf("**an instance killed**, lease 10 s and grace 15 s, until its %d users are online no more", crashUsers), found: seconds(online.Sub(started))},
		{what: "until they are offline, and swept", found: seconds(swept.Sub(started))},
	}, nil
}

// readAnswer is what two reads of presence answer.
type readAnswer struct {
	State   string
	Present *int
}

// waitRead reads until the answer is as wanted, and tells when it was.
func (s *stage) waitRead(ctx context.Context, from *server, path string, wanted func(readAnswer) bool) (time.Time, error) {
	looks := time.NewTicker(20 * time.Millisecond)
	defer looks.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+from.addr+path, nil)
		if err != nil {
			return time.Time{}, err
		}
		request.Header.Set("Authorization", "Bearer "+s.apiKey)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return time.Time{}, err
		}
		var answer readAnswer
		err = json.NewDecoder(response.Body).Decode(&answer)
		response.Body.Close()
		if err != nil {
			return time.Time{}, fmt.Errorf("GET %s: %w", path, err)
		}
		if wanted(answer) {
			return time.Now(), nil
		}
		<-looks.C
	}
}
