// Package fanout carries bytes from any instance to every socket of one user. It does not know what they
// mean.
//
// A [Bus] has two halves. The sending half takes pushes ([Bus.Begin]), emits ([Bus.Emit]) and kicks
// ([Bus.Kick], [Bus.KickSocket]). The receiving half listens on the channels of its instance and hands what
// arrives to its sockets.
//
//	       sending instance                     Redis                    owning instance
//	┌──────────────────────────────┐                            ┌──────────────────────────────┐
//	│ Begin ─▶ local sockets       │                            │ subscriptions ─▶ receive     │
//	│   │                          │                            │                    │         │
//	│   ▼                          │      ┌──────────┐ channel  │                    ▼         │
//	│ shardQueue ─▶ shardRouter ───┼─────▶│ push.lua │─────────▶│ local sockets ◀─ workers     │
//	│                              │      └──────────┘          │   │                          │
//	│ Ticket ◀─ collector ◀────────┼──────── channel ◀──────────┼─ replyBatcher ◀─ Tracker     │
//	└──────────────────────────────┘                            └──────────────────────────────┘
//
// # A push, step by step
//
//  1. Begin takes the lock of the push's user. Under it, the push is admitted to the queue of the user's
//     shard, or refused if the queue is full. Then it is delivered to the user's sockets on this instance,
//     and added to the queue. So the local sockets and the queue see the pushes to a user in the same order.
//     Begin returns a [Ticket], with which the caller waits.
//  2. The shardRouter has one call of push.lua under way at a time. Pushes that arrive meanwhile wait, and
//     share the next call as one batch. So the busier it gets, the less a push costs, and pushes to a user
//     stay in order.
//  3. push.lua looks up which instances own sockets of the users under live leases. It publishes one message
//     to each of them: the number of the batch, and the envelopes for this instance. It answers the state of
//     each user, how many instances took the push, and how many sockets these have. A caller who waits for
//     [Routed] has its answer now.
//  4. At an owner, receive takes the message apart. A batch that comes after a later one of the same sender
//     is dropped: see sequenceGuard. Each push goes to the worker of its user, where users who have something
//     waiting take turns. So the pushes to a user stay in order, and a user who gets very many of them, or
//     has thousands of sockets, holds up nobody else.
//  5. If the caller waits for more than Routed, the envelope carries the number of a request. At the owner, a
//     [presence.Tracker] counts what becomes of the push at the sockets, and the counts go back through the
//     sender's channel as a report. All reports that wait at the same moment share one round trip.
//  6. The sender's collector adds up the reports of all owners and the counts of the local sockets. When all
//     are there, or the caller's time is over, Ticket.Wait returns. What has not been reported by then counts
//     as unanswered. An owner that has no socket of the user any more reports that, and corrects what Redis
//     shows. The sockets that push.lua saw there then count as gone.
//
// An emit is published to every instance without a lookup, and handed to sockets by the emitter. Emits stay
// in order too, but between a push and an emit there is no order.
//
// # Caps
//
// Every queue has a cap, and says next to it what happens there. What clients cause, such as the answers of
// handlers, may have a quarter of a queue, so it cannot take the room of backends.
//
// # Locks
//
// Each part has a mutex of its own, which no other part takes. Where one is held while another is taken, the
// order is
//
//	user lock → shardQueue → Ticket → collector
//	user lock → pendingRequests
//	user lock → presence.Tracker
//
// A tracker calls back, into a collector or a replyBatcher, when it has released its own mutex. A worker
// calls no other part while it holds its mutex.
package fanout
