// Package fanout carries bytes from any instance to every socket of one user.
//
// A [Router] takes pushes. It serves its own instance's sockets by hand, and in the same moment queues the push for its user's
// shard. One script call at a time is under way in a shard: it looks up where the users of all queued pushes are and publishes one
// message to each instance that owns sockets of any of them. Pushes that arrive meanwhile wait and share the next call, so the
// busier it gets, the less a push costs; and pushes for one user stay in the order in which they came. Calls are numbered: what comes of one
// that was given up, when a later one has come, is dropped.
//
// A [Receiver] listens on its instance's own channel, and on the channels of emits, and hands the frames in each message to its
// sockets. The subscription takes messages apart, and notices heartbeats. Each user belongs to one of several workers, at which the
// users who have something waiting take turns: so pushes for a user keep their order, and a user who gets too many, or has thousands of
// sockets, loses some of them and holds up nobody else. An emitter beside them does what is for everybody. Emits keep their order too,
// but between a push and an emit there is none.
//
// What clients cause, such as answers of handlers, has room of its own in the queues, so that they cannot take that of backends; and an
// asker waits until other instances have handed over what it was answered before.
//
// What travels is a series of envelopes: a frame, ready for the client, and where it must go. A frame for many users goes first, once,
// and their envelopes only refer to it.
package fanout
