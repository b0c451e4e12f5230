package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

func TestProxy_RepeatsNoPushThatAnInstanceMayHaveTaken(t *testing.T) {
	t.Parallel()
	for what, fail := range map[string]func(http.ResponseWriter){
		"dies": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"says 503": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusServiceUnavailable)
		},
	} {
		var received atomic.Int64
		var instances []string
		for range 3 {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == "POST" {
					_, _ = io.Copy(io.Discard, r.Body)
					received.Add(1)
					fail(w)
				}
			}))
			t.Cleanup(server.Close)
			instances = append(instances, strings.TrimPrefix(server.URL, "http://"))
		}
		for _, kind := range proxyKinds {
			f := startFront(t, kind, instances, kind.text(t))
			awaitReady(t, f.backends)
			received.Store(0)
			got, err := askWith(http.DefaultClient, f.backends, "POST", "/push/alice", `{"event":"x"}`)
			n := received.Load()
			if n != 1 || err == nil && got.Status < 500 { // HAProxy may just close the connection
				t.Errorf("an instance %s, and %s sends the push %d times, and answers %d %v",
					what, kind.program, n, got.Status, err)
			}
		}
	}
}
