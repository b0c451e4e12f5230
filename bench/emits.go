package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	audience     = 5000 // sockets that get every emit
	emitsAtATime = 4    // in the second part
)

// measureEmits emits to all sockets of two instances, in turn with two floors.
func measureEmits(ctx context.Context, e *env) ([]row, error) {
	floors, err := e.startFloors(ctx, 2)
	if err != nil {
		return nil, err
	}
	redis, err := e.startRedis(ctx)
	if err != nil {
		return nil, err
	}
	instances, err := e.startInstances(ctx, 2, redis)
	if err != nil {
		return nil, err
	}
	floor := &emitting{env: e, target: target{nil, floors}, instances: 1, toEach: true}
	found := &emitting{env: e, target: target{redis, instances}, instances: 2}
	for _, one := range []*emitting{floor, found} {
		one.clients = &fleet{clients: audience, sharing: true}
		if _, err := e.connect(one.clients, one.servers); err != nil {
			return nil, err
		}
	}
	var leastAlone, alone, leastTogether, together cost
	err = takeTurns(
		turn{func() (cost, error) { return floor.flatOut(ctx, 1) }, &leastAlone},
		turn{func() (cost, error) { return found.flatOut(ctx, 1) }, &alone},
		turn{func() (cost, error) { return floor.flatOut(ctx, emitsAtATime) }, &leastTogether},
		turn{func() (cost, error) { return found.flatOut(ctx, emitsAtATime) }, &together},
	)
	compared := against("a raw write to each")
	one := fmt.Sprintf("**deliveries of emits** on 2, to %s sockets, %d bytes, one emit at a time",
		thousands(audience), payload)
	return []row{
		compared(one, alone.rate(), leastAlone.rate()),
		compared("CPU of the instances, a delivery", alone.cpuEach(), leastAlone.cpuEach()),
		compared(fmt.Sprintf("%d emits at a time", emitsAtATime), together.rate(), leastTogether.rate()),
		compared("CPU of the instances, a delivery", together.cpuEach(), leastTogether.cpuEach()),
	}, err
}

// emitting is servers, clients, and backends that emit.
type emitting struct {
	*env
	target
	instances int  // that each answer must name
	toEach    bool // every server must be told of each emit, because they know nothing of each other
	clients   *fleet
	emits     atomic.Int64 // so far; also the number of the next
}

// flatOut emits as fast as so many callers can, and measures the cost of the deliveries.
func (m *emitting) flatOut(ctx context.Context, callers int) (cost, error) {
	dialed := make([][]*backend, callers)
	for i := range dialed {
		to := m.servers[i%len(m.servers):][:1]
		if m.toEach {
			to = m.servers
		}
		var err error
		if dialed[i], err = m.dialBackends(len(to), to); err != nil {
			return cost{}, err
		}
	}
	return m.measure(ctx, func() (int64, error) {
		emit := func(caller int) error { return m.emit(dialed[caller]) }
		emits, err := flatOut(ctx, callers, m.turn(), emit)
		if err == nil {
			n := m.emits.Load()
			err = m.clients.await(ctx, n*audience, n*(n-1)/2*audience)
		}
		return emits * audience, err
	})
}

// emit makes one emit, with a request by each backend at the same time.
func (m *emitting) emit(backends []*backend) error {
	data, want := stamp(m.emits.Add(1)-1, time.Time{}), fmt.Sprintf(`"instances":%d`, m.instances)
	errs := make([]error, len(backends))
	var calling sync.WaitGroup
	for i, b := range backends {
		calling.Go(func() { errs[i] = b.postExpecting("/emit/all", data, "", want, 1) })
	}
	calling.Wait()
	return errors.Join(errs...)
}
