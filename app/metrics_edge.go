package main

import (
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rollcall/handlers/sockets"
)

// edge counts what happens between an instance and the outside.
type edge struct {
	requests *prometheus.CounterVec
	times    *prometheus.HistogramVec
	refused  *prometheus.CounterVec
	opened   prometheus.Counter
	closed   *prometheus.CounterVec
	handled  *prometheus.CounterVec
	handling *prometheus.HistogramVec
}

func newEdge(registry *prometheus.Registry) edge {
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		registry.MustRegister(c)
		return c
	}
	times := func(name, help string, labels ...string) *prometheus.HistogramVec {
		options := prometheus.HistogramOpts{Name: name, Help: help, Buckets: latency}
		h := prometheus.NewHistogramVec(options, labels)
		registry.MustRegister(h)
		return h
	}
	e := edge{
		requests: counters("rollcall_http_requests_total",
			"HTTP requests by method, pattern of the route (none: no such path) and status; 101 is a socket.",
			"method", "route", "status"),
		times: times("rollcall_http_request_seconds",
			"From the head of a request to the end of its answer; of a socket to its welcome. "+
				"Streams are left out.",
			"method", "route"),
		refused: counters("rollcall_handshakes_refused_total",
			"Sockets that were refused, by the code of the problem.", "code"),
		opened: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_sockets_opened_total", Help: "Sockets that were connected.",
		}),
		closed: counters("rollcall_sockets_closed_total",
			"Sockets that are gone, by who closed them first (server, client, network: the connection "+
				"broke) and the close code or its class; 1006: without a close frame.",
			"by", "code"),
		handled: counters("rollcall_client_events_total",
			"Events of clients by handler (unknown: none has this name) and outcome: "+
				"ok, refused (the client was told what was wrong), failed.",
			"handler", "outcome"),
		handling: times("rollcall_handler_seconds",
			"From an event of a client to the end of its handler, when its answers are on their way.",
			"handler"),
	}
	registry.MustRegister(e.opened)
	return e
}

// Request implements handlers.Meter.
func (e edge) Request(method, route string, status int, took time.Duration, stream bool) {
	e.requests.WithLabelValues(method, route, strconv.Itoa(status)).Inc()
	if !stream {
		e.times.WithLabelValues(method, route).Observe(took.Seconds())
	}
}

// Refused implements handlers.Meter.
func (e edge) Refused(code string) { e.refused.WithLabelValues(code).Inc() }

// Opened implements sockets.Meter.
func (e edge) Opened() { e.opened.Inc() }

// Closed implements sockets.Meter.
func (e edge) Closed(by sockets.Closer, code int) {
	e.closed.WithLabelValues(string(by), closeLabel(code)).Inc()
}

// Handled implements sockets.Meter.
func (e edge) Handled(handler, outcome string, took time.Duration) {
	e.handled.WithLabelValues(handler, outcome).Inc()
	e.handling.WithLabelValues(handler).Observe(took.Seconds())
}

// closeCodes are the close codes that have a label each: those of RFC 6455 that occur, and ours.
var closeCodes = []int{
	1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1012, 1013,
	4001, 4003, 4101, 4102, 4201, 4290,
}

// closeLabel is the label for a close code. A client may close with any code.
func closeLabel(code int) string {
	switch {
	case slices.Contains(closeCodes, code):
		return strconv.Itoa(code)
	case 1000 <= code && code < 5000:
		return strconv.Itoa(code/1000) + "xxx"
	}
	return "other"
}

// buildInfo is 1, with labels that say which version this is.
func buildInfo() prometheus.Gauge {
	version := "unknown"
	if built, ok := debug.ReadBuildInfo(); ok {
		version = built.Main.Version
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "rollcall_build_info",
		Help:        "1. The labels say which version this is, and of which Go.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()},
	})
	info.Set(1)
	return info
}
