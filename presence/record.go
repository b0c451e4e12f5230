package presence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"rollcall/lua"
)

// Record describes an instance to people.
type Record struct {
	ID        string    `json:"id"`
	Host      string    `json:"host"`
	Addr      string    `json:"addr"`
	StartedAt time.Time `json:"startedAt"` // by the instance's own clock
	Sockets   int       `json:"sockets"`
	Users     int       `json:"users"` // with at least one socket there
	State     string    `json:"state"` // live, draining, left, or lost: expired, and had not drained
}

// Drain tells all instances that this one is about to leave. If Redis can't be told before the context ends,
// only this instance knows.
func (m *Mirror) Drain(ctx context.Context) {
	m.draining.Store(true)
	if _, err := m.announce(ctx); err != nil {
		m.log.Warn("the others are not told that this instance drains", "error", err)
	}
}

// agree announces this instance, and fails if the others use another number of shards.
func (m *Mirror) agree(ctx context.Context) error {
	agreed, err := m.announce(ctx)
	if errors.Is(err, lua.ErrOtherShards) {
		return fmt.Errorf("presence: the instances on this Redis use %d shards, this one is set to %d: "+
			"set --shards to %d, or use another --prefix", agreed, len(m.shards), agreed)
	}
	return err
}

// announce writes this instance's record, and returns the number of shards that all instances agree on.
func (m *Mirror) announce(ctx context.Context) (agreedShards int, err error) {
	record := m.record
	record.Sockets, record.Users = m.sockets.Totals()
	if m.draining.Load() {
		record.State = "draining"
	}
	text, err := json.Marshal(record)
	if err != nil {
		return 0, fmt.Errorf("presence: announce: %w", err)
	}
	return m.redis.announce(ctx, m.instance, string(text))
}
