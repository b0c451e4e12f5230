package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rollcall/fanout"
	"rollcall/fanout/idempotency"
	"rollcall/handlers"
	"rollcall/handlers/sockets"
	"rollcall/presence"
)

// The parts of an instance count by themselves. The functions of this file register metrics that ask them,
// each time that somebody asks for /metrics.

func (m *metrics) gauge(name, help string, value func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
}

func (m *metrics) counter(name, help string, value func() int64) {
	m.labelled(name, help, nil, value)
}

func (m *metrics) labelled(name, help string, labels prometheus.Labels, value func() int64) {
	options := prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}
	m.registry.MustRegister(prometheus.NewCounterFunc(options, func() float64 { return float64(value()) }))
}

// drops counts what could not be delivered for one reason.
func (m *metrics) drops(reason string, value func() int64) {
	const help = "What could not be delivered, by reason: sockets too slow, frames of clients that send " +
		"too many or do not finish, messages, envelopes, replies, or results to be stored for repeats."
	m.labelled("rollcall_drops_total", help, prometheus.Labels{"reason": reason}, value)
}

// state is 1 while something holds, else 0. The label may be empty.
func (m *metrics) state(name, help, label, value string, holds func() bool) {
	options := prometheus.GaugeOpts{Name: name, Help: help}
	if label != "" {
		options.ConstLabels = prometheus.Labels{label: value}
	}
	m.registry.MustRegister(prometheus.NewGaugeFunc(options, func() float64 {
		if holds() {
			return 1
		}
		return 0
	}))
}

// watchPresence shows who is here, and how the mirror stands with Redis.
func (m *metrics) watchPresence(sockets *presence.Sockets, mirror *presence.Mirror, lease time.Duration) {
	m.gauge("rollcall_sockets", "Open sockets here.",
		func() float64 { n, _ := sockets.Totals(); return float64(n) })
	m.gauge("rollcall_users", "Users with at least one socket here.",
		func() float64 { _, n := sockets.Totals(); return float64(n) })
	m.gauge("rollcall_mirror_dirty_users", "Users whose count has yet to be written to Redis.",
		func() float64 { return float64(mirror.Stats().Dirty) })
	m.gauge("rollcall_mirror_lag_seconds", "For how long the oldest of them has waited.",
		func() float64 { return mirror.Stats().Lag.Seconds() })
	m.gauge("rollcall_lease_trust_seconds",
		"How much longer other instances believe this one. 0 or less: they do not.",
		func() float64 { return mirror.Stats().Trust.Seconds() })
	m.gauge("rollcall_audit_oldest_difference_seconds",
		"Age of the oldest difference between this instance's map and Redis.",
		func() float64 { _, oldest := mirror.Audits(); return oldest.Seconds() })

	m.counter("rollcall_mirror_errors_total", "Failed steps of the mirror.",
		func() int64 { return mirror.Stats().Errors })
	m.counter("rollcall_remirrors_total",
		"Times that Redis had lost its state, and a shard was mirrored again.",
		func() int64 { return mirror.Stats().Remirrors })
	m.counter("rollcall_redis_unreadable_total",
		"Entries, leases and records in Redis that made no sense and were passed over, each time.",
		func() int64 { return mirror.Stats().Unreadable })
	m.counter("rollcall_audit_differences_total", "Differences that audits found, and mended.",
		func() int64 { n, _ := mirror.Audits(); return n })

	redis := func(state string, holds func() bool) {
		m.state("rollcall_redis", "How this instance stands with Redis: lease_held (other instances believe "+
			"this one), reachable (the lease was renewed within half its life), full (Redis has no room).",
			"state", state, holds)
	}
	redis("lease_held", func() bool { return mirror.Stats().Trust > 0 })
	redis("reachable", func() bool { return mirror.Stats().Trust > lease/2 })
	redis("full", func() bool { return mirror.Stats().Full })
}

// watchFanout shows what waits for Redis or for other instances, and what could not be delivered.
func (m *metrics) watchFanout(bus *fanout.Bus, results *idempotency.Store) {
	m.gauge("rollcall_queued_pushes", "Pushes that wait for Redis.",
		func() float64 { n, _ := bus.Waiting(); return float64(n) })
	m.gauge("rollcall_open_questions", "Pushes that wait for owners to tell what became of them.",
		func() float64 { _, n := bus.Waiting(); return float64(n) })
	m.gauge("rollcall_received_queue",
		"Pushes and kicks from other instances that wait to be handed to sockets.",
		func() float64 { return float64(bus.Queued()) })

	m.drops("message_malformed", bus.Dropped.Malformed.Load)
	m.drops("push_overflow", bus.Dropped.Overflow.Load)
	m.drops("emit_overflow", bus.Dropped.Emits.Load)
	m.drops("message_late", bus.Dropped.Late.Load)
	m.drops("envelope_unknown", bus.Dropped.Unknown.Load)
	m.drops("envelope_no_socket", bus.Dropped.NoSocket.Load)
	m.drops("question_overflow", bus.Dropped.Audits.Load)
	m.drops("reply_unsent", bus.Dropped.Replies.Load)
	m.drops("reply_late", bus.LateReplies)
	m.drops("answer_unsettled", results.LostResults)
}

// watchSockets shows what the limits of sockets and their frames refused.
func (m *metrics) watchSockets(server *sockets.Server) {
	m.counter("rollcall_sockets_full_total",
		"Handshakes refused because there are as many sockets as may be.", server.Counts.Full.Load)
	m.drops("socket_too_slow", server.Counts.TooSlow.Load)
	m.drops("client_rate_limited", server.Counts.RateLimited.Load)
	m.drops("client_too_many_frames", server.Counts.Floods.Load)
	m.drops("client_unfinished", server.Counts.Unfinished.Load)
}

// watchServer shows readiness and streams.
func (m *metrics) watchServer(server *handlers.Server) {
	m.gauge("rollcall_open_streams", "Streams of pushes that are open.",
		func() float64 { return float64(server.Streams()) })
	m.state("rollcall_ready", "Whether this instance should get traffic, as /readyz says.", "", "",
		func() bool { return server.Readiness().Ready() })
	notReady := func(reason string, holds func() bool) {
		m.state("rollcall_not_ready",
			"Why this instance should get no traffic: 1 for each reason that holds.", "reason", reason, holds)
	}
	notReady("draining", func() bool { return server.Readiness().Draining })
	notReady("deaf", func() bool { return server.Readiness().NotReceiving })
}

// watchGate shows what the limit of connections closed.
func (m *metrics) watchGate(gate *gate) {
	m.counter("rollcall_connections_closed_total",
		"Connections, none of them a socket, that were closed to make room for others.", gate.closed.Load)
}
