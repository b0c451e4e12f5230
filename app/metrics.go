package main

import (
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"rollcall/fanout"
)

// metrics are what /metrics shows. No label has a value that a client or backend could choose: each value is
// a time series, and there must not be many.
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

// latency are the buckets of times in seconds, from a tenth of a millisecond to longer than anybody waits.
var latency = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_pushes_total",
			Help: "Pushes by outcome: the user's state as the routing saw it, or why nobody took the push.",
		}, []string{"outcome"}),
		routing: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "rollcall_routing_seconds",
			Help:    "From taking a push to knowing who took it, for pushes that wait for no more.",
			Buckets: latency,
		}),
		written: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "rollcall_delivery_seconds",
			Help: "From taking a push to knowing that all sockets were written to, or that all clients " +
				"have confirmed it; handed: that an answer to a client was given to all sockets of its user.",
			Buckets: latency,
		}, []string{"wait"}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "rollcall_batch_pushes",
			Help:    "Pushes that shared one call of Redis.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 9),
		}),
		call: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "rollcall_push_call_seconds",
			Help:    "One call of Redis that routes pushes.",
			Buckets: latency,
		}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_push_call_errors_total",
			Help: "Calls of Redis for routing that failed.",
		}),
	}
	m.edge = newEdge(m.registry)
	m.registry.MustRegister(m.pushes, m.routing, m.written, m.batch, m.call, m.failed, buildInfo(),
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
	case errors.Is(outcome.Err, fanout.ErrBusy), errors.Is(outcome.Err, fanout.ErrTooManyRequests):
		return "busy"
	case errors.Is(outcome.Err, fanout.ErrClosing):
		return "closing"
	case errors.Is(outcome.Err, fanout.ErrUnreachable):
		return "unreachable"
	default:
		return "given_up"
	}
}
