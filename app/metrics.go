package main

import (
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"rollcall/fanout"
	"rollcall/fanout/idempotency"
	"rollcall/handlers"
	"rollcall/presence"
)

// metrics are what /metrics shows. No label has a value that a client or backend could choose.
type metrics struct {
	edge
	registry *prometheus.Registry
	pushes   *prometheus.CounterVec
	routing  prometheus.Histogram
	written  *prometheus.HistogramVec
	batch    prometheus.Histogram
	call     prometheus.Histogram
	failed   prometheus.Counter
}

// latency are the buckets of times: from a tenth of a millisecond to longer than anybody waits.
var latency = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_pushes_total", Help: "Pushes by what became of them: the user's state as the routing saw it, or why nobody took it.",
		}, []string{"outcome"}),
		routing: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "rollcall_routing_seconds", Help: "From taking a push to knowing who took it, for those that wait for no more.", Buckets: latency,
		}),
		written: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "rollcall_delivery_seconds", Help: "From taking a push to knowing that all sockets were written to, or all clients have confirmed it; handed: that an answer to a client was given to all of its user's sockets.", Buckets: latency,
		}, []string{"wait"}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "rollcall_batch_pushes", Help: "Pushes that shared one call of Redis.", Buckets: prometheus.ExponentialBuckets(1, 2, 9),
		}),
		call: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "rollcall_push_call_seconds", Help: "One call of Redis that routes pushes.", Buckets: latency,
		}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_push_call_errors_total", Help: "Calls of Redis for routing that failed.",
		}),
	}
	m.edge = newEdge(m.registry)
	tellBuild(m.registry)
	m.registry.MustRegister(m.pushes, m.routing, m.written, m.batch, m.call, m.failed,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Batch implements fanout.Meter.
func (m *metrics) Batch(pushes int, took time.Duration, err error) {
	m.batch.Observe(float64(pushes))
	m.call.Observe(took.Seconds())
	if err != nil {
		m.failed.Inc()
	}
}

// Push implements fanout.Meter.
func (m *metrics) Push(outcome fanout.Outcome, wait fanout.Wait, took time.Duration) {
	m.pushes.WithLabelValues(outcomeLabel(outcome)).Inc()
	switch wait {
	case fanout.Routed:
		m.routing.Observe(took.Seconds())
	case fanout.Handed:
		m.written.WithLabelValues("handed").Observe(took.Seconds())
	case fanout.Written:
		m.written.WithLabelValues("written").Observe(took.Seconds())
	case fanout.Acked:
		m.written.WithLabelValues("acked").Observe(took.Seconds())
	}
}

func outcomeLabel(outcome fanout.Outcome) string {
	switch {
	case outcome.Partial:
		return "partial"
	case outcome.Err == nil:
		return outcome.State.String()
	case errors.Is(outcome.Err, fanout.ErrBusy), errors.Is(outcome.Err, fanout.ErrAsking):
		return "busy"
	case errors.Is(outcome.Err, fanout.ErrClosing):
		return "closing"
	case errors.Is(outcome.Err, fanout.ErrUnreachable):
		return "unreachable"
	default:
		return "given_up"
	}
}

// watch shows what the parts of an instance know of themselves, when it is asked for.
func (m *metrics) watch(mirror *presence.Mirror, lease time.Duration, sockets *presence.Sockets, router *fanout.Router, receiver *fanout.Receiver, results *idempotency.Store, server *handlers.Server) {
	gauge := func(name, help string, value func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	counter := func(name, help string, labels prometheus.Labels, value func() int64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels},
			func() float64 { return float64(value()) }))
	}
	gauge("rollcall_sockets", "Open sockets here.", func() float64 { n, _ := sockets.Totals(); return float64(n) })
	gauge("rollcall_users", "Users with at least one socket here.", func() float64 { _, n := sockets.Totals(); return float64(n) })
	gauge("rollcall_mirror_dirty_users", "Users whose count is to be written to Redis.", func() float64 { return float64(mirror.Stats().Dirty) })
	gauge("rollcall_mirror_lag_seconds", "Since when the oldest of them waits.", func() float64 { return mirror.Stats().Lag.Seconds() })
	gauge("rollcall_lease_trust_seconds", "How much longer other instances believe this one. Not above 0: not.", func() float64 { return mirror.Stats().Trust.Seconds() })
	gauge("rollcall_audit_oldest_difference_seconds", "Age of the oldest difference between this instance's map and Redis.",
		func() float64 { _, oldest := mirror.Audits(); return oldest.Seconds() })
	gauge("rollcall_queued_pushes", "Pushes that wait for Redis.", func() float64 { n, _ := router.Waiting(); return float64(n) })
	gauge("rollcall_open_questions", "Pushes that wait for owners to tell what became of them.", func() float64 { _, n := router.Waiting(); return float64(n) })
	gauge("rollcall_open_streams", "Streams of pushes that are open.", func() float64 { return float64(server.Streams()) })
	gauge("rollcall_received_queue", "Pushes and kicks from other instances that wait to be handed to sockets.", func() float64 { return float64(receiver.Queued()) })

	counter("rollcall_mirror_errors_total", "Failed steps of the mirror.", nil, func() int64 { return mirror.Stats().Errors })
	counter("rollcall_remirrors_total", "Times that Redis had lost its state, and a shard was mirrored again.", nil, func() int64 { return mirror.Stats().Remirrors })
	counter("rollcall_redis_unreadable_total",
		"Entries, leases and records in Redis that made no sense and were passed over, each time.", nil, func() int64 { return mirror.Stats().Unreadable })
	counter("rollcall_audit_differences_total", "Differences that audits found, and mended.", nil, func() int64 { n, _ := mirror.Audits(); return n })
	states{m.registry}.tellReadiness(server)
	states{m.registry}.tellRedis(mirror, lease)
	const drops, help = "rollcall_drops_total", "What could not be delivered, by reason: sockets too slow, frames of clients that send too many or do not finish, messages, envelopes, replies, or answers to be remembered."
	for reason, count := range map[string]func() int64{
		"socket_too_slow":    server.TooSlow,
		"message_malformed":  receiver.Dropped.Malformed.Load,
		"push_overflow":      receiver.Dropped.Overflow.Load,
		"emit_overflow":      receiver.Dropped.Emits.Load,
		"message_late":       receiver.Dropped.Late.Load,
		"envelope_unknown":   receiver.Dropped.Unknown.Load,
		"envelope_no_socket": receiver.Dropped.Strays.Load,
		"question_overflow":  receiver.Dropped.Questions.Load,
		"reply_unsent":       receiver.Dropped.Replies.Load,
		"reply_late":         receiver.LateReplies,
		"answer_unsettled":   results.LostResults,

		"client_rate_limited":    server.RateLimited,
		"client_too_many_frames": server.Floods,
		"client_unfinished":      server.Unfinished,
	} {
		counter(drops, help, prometheus.Labels{"reason": reason}, count)
	}
}

// watchLimits shows whom the limits of sockets and connections have refused.
func (m *metrics) watchLimits(server *handlers.Server, gate *gate) {
	counter := func(name, help string, value func() int64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value()) }))
	}
	counter("rollcall_sockets_full_total", "Handshakes refused because there are as many sockets as may be.", server.Full)
	counter("rollcall_connections_closed_total", "Connections, none of them a socket, that were closed to make room for others.", gate.closed.Load)
}
