package fanout

import (
	"context"

	"github.com/google/uuid"

	"rollcall/presence"
)

// closeKicked is the close code of a socket that was kicked: do not come back.
const closeKicked = 4003

// Kick closes the sockets of a user on all instances, except one socket (uuid.Nil: except none). It goes the
// way of a push. The outcome's Sockets.Written says how many were closed.
func (b *Bus) Kick(ctx context.Context, user string, except uuid.UUID, reason string) Outcome {
	kick := Push{User: user, Exclude: except, Frame: []byte(reason), Wait: Written, kick: true}
	return b.Begin([]Push{kick}, deadline(ctx)).Wait(ctx)[0]
}

// KickSocket closes one socket, wherever it is. The outcome's Sockets.Written says how many there were.
func (b *Bus) KickSocket(ctx context.Context, id uuid.UUID, reason string) (Outcome, error) {
	e := envelope{kind: kindKickSocket, sender: b.instance, exclude: id, frame: []byte(reason)}
	return b.broadcast(ctx, b.redis.Keys.All(), e, true, func(tracker *presence.Tracker) int {
		return b.sockets.Find(id).Close(uuid.Nil, closeKicked, reason, tracker)
	})
}

// receiveKickSocket has the emitter look for the socket.
func (b *Bus) receiveKickSocket(e envelope) {
	if e.sender == b.instance {
		return // done when it was sent
	}
	if !b.emitter.enqueue(emitJob{scan: func() { b.findAndKick(e) }}) {
		b.Dropped.Emits.Add(1)
	}
}

// findAndKick closes a socket, if it is here, behind what its user was sent before.
func (b *Bus) findAndKick(e envelope) {
	found := b.sockets.Find(e.exclude)
	if len(found) == 0 {
		found.Close(uuid.Nil, closeKicked, "", b.newTracker(0, e, e.within)) // reports that there was none
		return
	}
	e.user = found[0].User // empty if it is anonymous: all anonymous sockets take turns as one user
	b.enqueue(job{envelope: e, only: found[0]})
}
