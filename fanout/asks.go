package fanout

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"rollcall/presence"
)

// asks are the questions of this instance that wait for replies. A question goes to the channels of the instances that are asked, and
// they reply to the asker's; what replies too late is dropped and counted.
type asks struct {
	late atomic.Int64 // replies that nobody waited for any more

	mu sync.Mutex
	// mu guards the following
	last uint64
	open map[uint64]chan<- reply // each with room for all replies that it can get
}

// reply is what one instance replied.
type reply struct {
	sender string
	frame  []byte
}

// begin gives a question its number, and room for so many replies. end must be called.
func (a *asks) begin(replies int) (ask uint64, arrived <-chan reply, end func()) {
	arrivals := make(chan reply, replies)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last++
	ask = a.last
	if a.open == nil {
		a.open = map[uint64]chan<- reply{}
	}
	a.open[ask] = arrivals
	return ask, arrivals, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.open, ask)
	}
}

// arrive hands a reply to who asked. It never waits: an instance that replies twice finds no room.
func (a *asks) arrive(e envelope) {
	a.mu.Lock()
	arrivals := a.open[e.ask]
	a.mu.Unlock()
	select {
	case arrivals <- reply{e.sender, e.frame}:
	default:
		a.late.Add(1)
	}
}

// Audit compares the maps of all instances with Redis. unanswered are the instances that did not reply before the context ended.
func (r *Router) Audit(ctx context.Context, instances []string) (audits []presence.Audit, unanswered []string, err error) {
	ask, arrived, end := r.receiver.asks.begin(len(instances))
	defer end()
	waiting := map[string]bool{}
	for _, instance := range instances {
		question := envelope{kind: kindAudit, ask: ask, sender: r.instance}.append(nil)
		if err := r.redis.Client.Do(ctx, publish(r.redis, r.redis.Keys.Channels(0)+instance, question)).Error(); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		waiting[instance] = true
	}
	for len(waiting) > 0 && ctx.Err() == nil {
		select {
		case reply := <-arrived:
			delete(waiting, reply.sender)
			var audit presence.Audit
			if err := json.Unmarshal(reply.frame, &audit); err != nil || audit.Instance == "" { // it could not look
				unanswered = append(unanswered, reply.sender)
				continue
			}
			audits = append(audits, audit)
		case <-ctx.Done():
		}
	}
	for instance := range waiting {
		unanswered = append(unanswered, instance)
	}
	return audits, unanswered, nil
}

// auditTime is how long one audit may take.
const auditTime = time.Minute

// replyAudit answers another instance's question.
func (r *Receiver) replyAudit(ctx context.Context, question envelope) {
	ctx, cancel := context.WithTimeout(ctx, auditTime)
	defer cancel()
	audit, err := r.mirror.Audit(ctx)
	frame := []byte("{}")
	if err == nil {
		frame, err = json.Marshal(audit)
	}
	if err != nil {
		r.log.Warn("audit", "error", err)
	}
	message := envelope{kind: kindReply, ask: question.ask, sender: r.instance, frame: frame}.append(nil)
	if err := r.redis.Client.Do(ctx, publish(r.redis, r.redis.Keys.Channels(0)+question.sender, message)).Error(); err != nil {
		r.log.Warn("reply", "to", question.sender, "error", err)
	}
}
