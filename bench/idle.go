package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// measureIdle opens sockets on a floor and on an instance, as fast as they take them, and leaves them alone.
func measureIdle(ctx context.Context, e *env) ([]row, error) {
	floors, err := e.startFloors(ctx, 1)
	if err != nil {
		return nil, err
	}
	least, err := e.fill(ctx, target{nil, floors})
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	redis, err := e.startRedis(ctx)
	if err != nil {
		return nil, err
	}
	instances, err := e.startInstances(ctx, 1, redis)
	if err != nil {
		return nil, err
	}
	found, err := e.fill(ctx, target{redis, instances})
	if err != nil {
		return nil, err
	}
	quiet, err := target{redis, instances}.measure(ctx, func() (int64, error) {
		return 1, wait(ctx, 10*time.Second)
	})
	commands := int64(0)
	for _, calls := range quiet.redis.commands {
		commands += calls
	}
	compared := against("bare gorilla/websocket")
	connected := fmt.Sprintf("**sockets connected**, %s on one instance, %d at a time",
		thousands(connections), dialAtOnce)
	return []row{
		compared(connected, found.connecting.rate(), least.connecting.rate()),
		compared("CPU of the instance, a socket", found.connecting.cpuEach(), least.connecting.cpuEach()),
		{what: "CPU of Redis, a socket", found: found.connecting.redisEach()},
		compared("from dialing to the welcome, 99th percentile", millis(quantile(found.took, 0.99)),
			millis(quantile(least.took, 0.99))),
		compared("**memory of an idle socket**", found.bytesEach, least.bytesEach),
		{what: "commands in Redis while all are idle, with those in scripts",
			found: quantity{float64(commands) / quiet.took.Seconds(), "/s"}},
	}, err
}

// filled is what it took to open the sockets of one server.
type filled struct {
	connecting cost
	took       []time.Duration // until the welcome, sorted
	bytesEach  quantity
}

func (e *env) fill(ctx context.Context, t target) (f filled, err error) {
	server := t.servers[0]
	before, err := restingBytes(ctx, server.pid())
	if err != nil {
		return f, err
	}
	clients := &fleet{clients: connections}
	f.connecting, err = t.measure(ctx, func() (int64, error) {
		f.took, err = e.connect(clients, t.servers)
		return connections, err
	})
	if err != nil {
		return f, err
	}
	if t.redis == nil {
		_, err = http.Get("http://" + server.addr + "/free")
	}
	after, memoryErr := restingBytes(ctx, server.pid())
	f.bytesEach = quantity{float64(after-before) / connections, " B"}
	err = errors.Join(err, memoryErr, clients.await(ctx, 0, 0)) // no socket may have ended
	clients.hangUp()                                            // the next server's need the files of these
	return f, err
}
