// Package presence answers who is online, and where.
//
// The truth is [Sockets], each instance's map of its own sockets. Redis holds a projection of all those maps:
// for every user an entry that names the instances with that user's sockets and how many each has. The
// projection is kept by [Mirror], which is level-triggered: a socket that opens or closes only marks its
// user; a loop then writes the count as it is at that moment. Counts are absolute, so a write can be
// repeated, coalesced with others, or redone from nothing.
//
// What an instance wrote is believed only under its lease. A lease belongs to a token, the instance's id and
// an epoch; it is renewed by a heartbeat, and by every write, and measured by Redis' clock alone. When a
// lease lapses, all the users it vouched for stop being online at once, with no work at all: for a grace
// period they are reconnecting, then offline, and one of the instances still alive sweeps the leftovers away.
//
// Redis counts the writes under each lease, the version, and the instance counts along. If the two ever
// differ, or the lease is gone, Redis was emptied, rolled back, or gave the instance up for dead. The
// instance then raises its epoch, opens a new lease, writes every local user again under the new token, and
// only after that condemns the old one: nobody flickers.
//
// All state is split into shards by user; the keys of a shard share a hash tag, so that on a Redis Cluster
// they share a slot. Shards know nothing of each other: each has its own lease, epoch, version and loop.
package presence
