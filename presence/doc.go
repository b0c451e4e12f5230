// Package presence answers who is online, and where. The tour of the code begins here.
//
// # Model
//
// Each instance knows its own sockets: [Sockets] is the truth. Redis holds a copy of all these maps, so that
// every instance can read where a user is. [Mirror] makes the copy, and [Directory] reads it.
//
// A socket that opens or closes only marks its user as dirty. A loop then tells Redis what this instance has
// of the user at that moment, for example "alice has 2 sockets on 7f3a9c1e.3". It never tells Redis "one
// more": a statement can be repeated, combined with later ones, or made again from nothing; an increment
// cannot.
//
// Redis must not believe an instance that has died. So every statement is made under a lease: a right to be
// believed until a deadline, by Redis' clock. An instance renews its lease five times per lease period, and
// with every write. When a lease expires, all users of its instance stop being online at once, without a
// single write. They are reconnecting for a grace period, then offline. Another instance sweeps the entries
// away.
//
// Redis may lose data too: it was emptied, or a replica took over that had not got the last writes. To notice
// this, Redis and the instance both count the writes under a lease. This number is the lease's version. If
// the two differ, or the lease is not there, Redis has lost data, and the instance writes all of its users
// again.
//
// # Words
//
//	user         who a socket belongs to: the sub of a verified token. Anonymous sockets have none
//	socket       one WebSocket connection
//	instance     one running process. Its id is new at every start: 7f3a9c1e
//	epoch        counts how often an instance began anew in a shard: 1, 2, 3
//	incarnation  an instance in one epoch: 7f3a9c1e.3. This is the name under which it writes
//	lease        the right of an incarnation to be believed, until a deadline
//	version      how many writes there were under a lease
//	owner        an incarnation that has sockets of a user, or a grace
//	entry        what Redis holds of a user: since when, and each owner with its number of sockets
//	shard        a part of the users, with its own keys, leases, epochs and loop. On a Redis Cluster a shard
//	             lives on one node
//	grace        the time that a user without sockets has to come back, before others see offline
//	mirror       to copy the counts of this instance to Redis
//	dirty        said of a user: what Redis holds may not be what is true
//	sweep        to remove entries and leases of the dead
//	audit        to compare Redis with the map of this instance, and mend what differs
//	state loss   Redis has lost data
//	drain        to close the sockets of an instance slowly before it stops
//	push         an event for the sockets of one user
//	emit         an event for all sockets, or for all that have a user
//	frame        what a client gets: one JSON object in one WebSocket message
//	envelope     a frame on its way between instances, with whom it is for
//
// # The life of a lease
//
// Seen from Redis, a lease is live until its deadline, then expired for the grace, then dead. An expired
// lease can still be renewed, a dead one cannot. A fenced lease is dead whatever its deadline. lua/leases.lua
// has more.
//
// Seen from the instance, each shard is in one of four states. Refused means that Redis answered STALE_LEASE:
// it has no such lease, a dead one, or another version.
//
//	┌──────────────────────────────┐
//	│ starting                     │
//	│ there was no lease yet       │
//	└──────────────┬───────────────┘
//	               │ lease opened
//	               ▼
//	┌──────────────────────────────┐  all users written,   ┌──────────────────────────────┐
//	│ held                         │  lease renewed,       │ refilling                    │
//	│ Redis has all users of this  │  earlier incarnations │ Redis is told of all users   │
//	│ instance: write, renew       │◀──────────────────────│ under the new incarnation    │
//	└──────────────┬───────────────┘  fenced               └───────┬──────────────────────┘
//	               │                                               │              ▲
//	               │ a write or renewal is refused                 │ refused      │ lease opened
//	               ▼                                               ▼              │
//	┌─────────────────────────────────────────────────────────────────────────────┴───────┐
//	│ lost                                                                                │
//	│ the next epoch has begun: it needs a lease                                          │
//	└─────────────────────────────────────────────────────────────────────────────────────┘
//
// An error is not a refusal. If the answer to a write is lost, the write may have got through or not. Before
// the next write the instance therefore reads the version: it is the old one or the next one, and the loop
// goes on from there. If the lost write arrives later than that, Redis refuses it because of its version.
//
// When the instance stops, it writes what is dirty and ends the lease: the deadline is now. Its users have
// the grace to come back. If that fails, the lease expires by itself: a graceful stop is a polite crash.
//
// The instance itself trusts a lease for less long than Redis does. It counts from the moment before it sent
// the renewal, with its monotonic clock.
//
// # When Redis loses its data
//
// Take FLUSHALL, with alice on instance A, bob on instance B, and a lease period of 10 s.
//
//  1. Nobody has noticed yet. But each read brings the leases along, and the reader's own one is missing. So
//     its answers say stale, and unknown instead of offline.
//  2. After at most 2 s A renews its lease, or writes because a socket came. It is refused. The state of its
//     shard is lost, and its epoch is the next one: A.2 follows A.1. No socket is closed.
//  3. A opens a lease for A.2 and marks all its users as dirty. The state is refilling.
//  4. A writes alice under A.2. She has no entry, but A says that she was mirrored before, so mirror.lua
//     takes her as online already: the change log does not say that she came. Had only the lease been lost,
//     her entry would still name A.1, and the same write would replace it: nobody ever sees her offline.
//  5. When all users are written, A renews the lease of A.2 and fences A.1. Entries that still name A.1
//     belong to users who left meanwhile, and are swept. The state is held again.
//  6. B does the same in its own time. Until one renewal period and a second after step 2, bob may be
//     missing, so the answers of A are still stale.
//  7. Until a grace after step 2, A does not tell Redis that anybody is gone. If carol leaves A, she may
//     have a socket on B, which has not told Redis again yet, and the log would say offline by mistake. A
//     says that she is in a grace, defers her, and decides again at each renewal.
//
// A failover that lost the last writes takes the same way, and so does a process that hung for longer than
// its lease and the grace: it is refused, too.
//
// # Locks
//
// They are taken in this order:
//
//	Mirror.auditing → stripe of Sockets → writeBehind of a shard
//	                  stripe of Sockets → graces
//
// Sockets calls the mirror while a stripe is locked: changes of one user are marked in the order in which
// they happen. So nobody may read a count while they hold writeBehind's lock. A [Tracker] has a lock of its
// own, under which nothing is called. Connections are called with none of these locks held.
//
// The users in flight are the only thing that is read without its lock, and only by the loop of their shard.
// The loop may do that because only the loop changes that map, and it takes the lock to do so. Others read
// the map under the lock.
//
// # Where to read on
//
//	sockets.go, socket.go, graces.go  the map of local sockets, and the time to come back
//	plan.go, count.go                 the decision what Redis is told of a user
//	writebehind.go                    the users who are dirty
//	loop.go, flush.go, shard.go       the loop that tells Redis, and the life of its lease
//	leases.go, state.go               what leases and entries mean; lua/mirror.lua writes them
//	writes.go, reads.go, reply.go     the calls of Redis and their answers
//	redis.go, keys.go                 the door to Redis, and every name in it
//	mirror.go, record.go, health.go   what other packages call
//	directory.go, page.go             reads of presence
//	audit.go                          Redis compared with the map
//	deliver.go, tracker.go            frames for sockets, and what becomes of them
package presence
