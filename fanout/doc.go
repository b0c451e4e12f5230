// Package fanout carries bytes from any instance to every socket of one user.
//
// A [Router] takes pushes. It serves its own instance's sockets by hand, and in the same moment queues the push for its user's
// shard. One script call at a time is under way in a shard: it looks up where the users of all queued pushes are and publishes one
// message to each instance that owns sockets of any of them. Pushes that arrive meanwhile wait and share the next call, so the
// busier it gets, the less a push costs; and pushes for one user stay in the order in which they came. Calls are numbered: what comes of one
// that was given up, when a later one has come, is dropped.
//
// A [Receiver] listens on its instance's own channel, and on the channels of emits, and hands the frames in each message to its
// sockets. The subscription does nothing but queue; a worker does the rest, and an emitter beside it what is for everybody. So pushes for
// a user keep their order, and emits theirs, but between a push and an emit there is none.
//
// What travels is a series of envelopes: a frame, ready for the client, and where it must go. A frame for many users goes first, once,
// and their envelopes only refer to it.
package fanout
