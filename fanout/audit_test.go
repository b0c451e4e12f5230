package fanout

import (
	"slices"
	"testing"

	"rollcall/lua/redistest"
)

func TestBus_HasOnlySoManyAuditsUnderWay(t *testing.T) {
	a := startNode(t, "a", options(redistest.StartInProcess(t), 1))
	a.bus.auditing.Store(maxAudits)
	a.bus.dispatch(t.Context(), envelope{kind: kindAudit, request: 1, sender: "b"})
	if got := a.bus.Dropped.Audits.Load(); got != 1 || a.bus.auditing.Load() != maxAudits {
		t.Errorf("%d were counted, %d are under way", got, a.bus.auditing.Load())
	}
	a.bus.auditing.Store(0)
	if audits, _, err := a.bus.Audit(t.Context(), []string{"a"}); err != nil || len(audits) != 1 {
		t.Errorf("with room again: %v, %v", audits, err)
	}
}

func TestBus_AuditAsksEachInstanceAndNamesThoseThatDoNotAnswer(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		o := options(server, 2)
		a, b := startNode(t, "a", o), startNode(t, "b", o)
		a.join("alice")
		b.join("bob")
		keys := a.bus.redis.Keys
		server.Do(server.Client(), "HDEL", keys.Owners(keys.ShardOf("bob")), "bob")
		audits, unanswered, err := a.bus.Audit(t.Context(), []string{"a", "b"})
		if err != nil || len(unanswered) > 0 || len(audits) != 2 || audits[0].Missing+audits[1].Missing != 1 {
			t.Errorf("%+v, %v, %v", audits, unanswered, err)
		}
		audits, unanswered, err = a.bus.Audit(t.Context(), []string{"nobody"})
		if err != nil || len(audits) != 0 || !slices.Equal(unanswered, []string{"nobody"}) {
			t.Errorf("%+v, %v, %v", audits, unanswered, err)
		}
		a.bus.dispatch(t.Context(), envelope{kind: kindReply, request: 1, sender: "b"}) // long over
		if late := a.bus.requests.late.Load(); late != 1 {
			t.Errorf("%d late replies were counted", late)
		}
	})
}
