package fanout

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"rollcall/presence"
)

const (
	auditTime = time.Minute // one audit may take
	maxAudits = 4           // under way at the same time: each looks at every user
)

// Audit compares the maps of some instances with Redis. unanswered are those that did not listen, or did not reply before the context
// ended; all of them, if this instance does not listen.
func (r *Router) Audit(ctx context.Context, instances []string) (audits []presence.Audit, unanswered []string, err error) {
	type reply struct {
		sender string
		frame  []byte
	}
	arrived := make(chan reply, len(instances))
	ask, err := r.receiver.asks.begin(func(sender string, frame []byte) {
		select {
		case arrived <- reply{sender, frame}:
		default: // one instance has replied twice
		}
	}, "")
	if err != nil {
		return nil, nil, err
	}
	defer r.receiver.asks.end(ask)
	if !r.receiver.Hears() {
		return nil, instances, nil
	}
	waiting := map[string]bool{}
	for _, instance := range instances {
		question := envelope{kind: kindAudit, ask: ask, sender: r.instance}.append(nil)
		listeners, err := r.redis.Client.Do(ctx, publish(r.redis, r.redis.Keys.Channels(0)+instance, question)).AsInt64()
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
		case listeners == 0:
			unanswered = append(unanswered, instance)
		default:
			waiting[instance] = true
		}
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

// audit takes a question for an audit if there is room; who asked will find that it was not answered.
func (r *Receiver) audit(ctx context.Context, question envelope) {
	if r.auditing.Add(1) > maxAudits {
		r.auditing.Add(-1)
		r.Dropped.Questions.Add(1)
		return
	}
	r.replying.Go(func() {
		defer r.auditing.Add(-1)
		r.replyAudit(ctx, question)
	})
}

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
	r.reply(0, question, frame)
}

// reply answers a question through a shard's channel of the instance that asked.
func (r *Receiver) reply(shard int, question envelope, frame []byte) {
	r.repliers[shard].send(r.keys.Channels(shard)+question.sender, envelope{kind: kindReply, ask: question.ask, sender: r.instance, frame: frame})
}
