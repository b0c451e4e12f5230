package fanout

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"rollcall/presence"
)

const (
	auditTime = time.Minute // how long one audit may take
	maxAudits = 4           // how many may be under way at the same time: each looks at every user
)

// Audit has some instances compare their maps with Redis. unanswered are those that did not listen, or did
// not reply before the context ended; all of them, if this instance itself does not hear replies.
func (b *Bus) Audit(
	ctx context.Context, instances []string,
) (audits []presence.Audit, unanswered []string, err error) {
	number, arrived, err := b.requests.registerChan(len(instances))
	if err != nil {
		return nil, nil, err
	}
	defer b.requests.remove(number)
	if !b.subscriptions.up() {
		return nil, instances, nil
	}
	open := map[string]bool{} // the instances that listened, and have not replied
	for _, instance := range instances {
		request := envelope{kind: kindAudit, request: number, sender: b.instance}.append(nil)
		listeners, err := b.redis.Publish(ctx, b.redis.Keys.Channels(0)+instance, request)
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
		case listeners == 0:
			unanswered = append(unanswered, instance)
		default:
			open[instance] = true
		}
	}
	for len(open) > 0 && ctx.Err() == nil {
		select {
		case reply := <-arrived:
			delete(open, reply.sender)
			var audit presence.Audit
			err := json.Unmarshal(reply.frame, &audit)
			if err != nil || audit.Instance == "" { // the audit failed there
				unanswered = append(unanswered, reply.sender)
				continue
			}
			audits = append(audits, audit)
		case <-ctx.Done():
		}
	}
	for instance := range open {
		unanswered = append(unanswered, instance)
	}
	return audits, unanswered, nil
}

// receiveAudit starts an audit that another instance asked for, if not too many are under way. If they are,
// that instance finds this one unanswered.
func (b *Bus) receiveAudit(ctx context.Context, request envelope) {
	if b.auditing.Add(1) > maxAudits {
		b.auditing.Add(-1)
		b.Dropped.Audits.Add(1)
		return
	}
	b.audits.Go(func() {
		defer b.auditing.Add(-1)
		b.replyAudit(ctx, request)
	})
}

func (b *Bus) replyAudit(ctx context.Context, request envelope) {
	ctx, cancel := context.WithTimeout(ctx, auditTime)
	defer cancel()
	audit, err := b.mirror.Audit(ctx)
	frame := []byte("{}")
	if err == nil {
		frame, err = json.Marshal(audit)
	}
	if err != nil {
		b.log.Warn("audit", "error", err)
	}
	b.reply(0, request, frame)
}
