package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"

	"rollcall/handlers"
)

// servePprof serves Go's profiles on an address of their own.
func (a *App) servePprof() error {
	if a.config.PprofAddr == "" {
		return nil
	}
	listener, err := net.Listen("tcp", a.config.PprofAddr)
	if err != nil {
		return fmt.Errorf("--pprof-addr (ROLLCALL_PPROF_ADDR): %w", err)
	}
	a.PprofAddr = listener.Addr().String()
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	// There is no cmdline, because it may have keys and secrets in it.
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: onlyLoopback(mux), ReadHeaderTimeout: requestTimeout}
	a.startJob(func(ctx context.Context) {
		stop := context.AfterFunc(ctx, func() { server.Close() })
		defer stop()
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			a.log.Error("profiles are no longer served", "error", err)
		}
	})
	return nil
}

// onlyLoopback answers only requests that name this machine. Otherwise a page of another site could read the
// answers, by making its own name point here.
func onlyLoopback(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host := handlers.HostOf(r); !handlers.IsLoopback(host) {
			message := fmt.Sprintf("profiles are served on localhost only, not on %q", host)
			http.Error(w, message, http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
