package fanout

import (
	"errors"
	"time"

	"github.com/google/uuid"

	"rollcall/presence"
)

// Push is a frame for all sockets of one user.
type Push struct {
	User    string
	Exclude uuid.UUID        // a socket that must not get it; uuid.Nil: none
	Frame   []byte           // nobody may change it
	Shared  *presence.Shared // the same for pushes that begin together and have the same frame; else nil

	Wait Wait
	ID   uuid.UUID // of the push, for clients to confirm; needed for Acked alone

	FromClient bool // a client has caused it: it takes no room of what backends push

	kick bool // close the sockets instead; the frame is the reason
}

// Wait is what the caller of a push waits for.
type Wait int

const (
	Routed  Wait = iota // Redis has said which instances took it
	Written             // its frame was written to the connection of each socket
	Acked               // each client has confirmed it
	// Handed is for answers of handlers, which must keep their order: every owner has handed the frame to its
	// sockets. Nothing is said of when they write it.
	Handed
)

// MaxWait is how long the caller of a push may wait for sockets and clients.
const MaxWait = 5 * time.Second

// Outcome is what became of a push.
type Outcome struct {
	State     presence.State  // of the user, as Redis told it; Unknown if Redis could not be asked
	Instances int             // how many took it
	Partial   bool            // only this instance took it: Redis was out of reach
	Sockets   presence.Counts // only if the caller waits for more than Routed
	// Err is ErrUnreachable, ErrBusy, ErrTooManyRequests, ErrClosing or a context's error. With
	// ErrUnreachable the push may have been sent, or may be sent later; with any other nothing was sent.
	Err error
}

// Errors of an Outcome.
var (
	ErrUnreachable     = errors.New("fanout: redis is out of reach") // or it has lost what it held
	ErrBusy            = errors.New("fanout: too many pushes are waiting for redis")
	ErrTooManyRequests = errors.New("fanout: too many requests are waiting for replies")
	ErrClosing         = errors.New("fanout: this instance is shutting down")
)

// Begin sends pushes on their way and does not wait. Each push stays behind all that this instance took
// earlier for the same user. until is when the caller stops waiting for reports. A push that has not even
// been sent by then is given up. The caller must call Wait of the ticket.
func (b *Bus) Begin(pushes []Push, until time.Time) *Ticket {
	t := newTicket(pushes, until, b.meter)
	for i := range t.pushes {
		p := &t.pushes[i]
		b.routers[b.redis.Keys.ShardOf(p.push.User)].begin(p)
	}
	return t
}

// deliverHere delivers a push to the user's sockets on this instance, and returns how many took it.
func (b *Bus) deliverHere(p *pendingPush) (took int) {
	sockets, tracker := b.sockets.Of(p.push.User), p.tracker()
	if p.push.kick {
		return sockets.Close(p.push.Exclude, closeKicked, string(p.push.Frame), tracker)
	}
	message := presence.Message{Frame: p.push.Frame, Shared: p.push.Shared, Tracker: tracker}
	return sockets.Deliver(p.push.Exclude, message)
}
