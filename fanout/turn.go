package fanout

import "sync"

// laneUser is what a lane knows of a user to whom somebody pushes at this moment, or for whose clients
// something is queued.
type laneUser struct {
	user string

	// turn is held by the only one who pushes to this user now. So the user's sockets here and the queue get
	// pushes in the same order, and writing to one user's sockets, who may have thousands, holds up nobody
	// else's.
	turn sync.Mutex

	// guarded by the lane's mu
	callers int   // who have the turn, or wait for it
	clients usage // of the lane's room, by what this user's clients have caused
}

// takeTurn waits until nobody else pushes to a user. endTurn must be called.
func (l *lane) takeTurn(user string) *laneUser {
	l.mu.Lock()
	u := l.users[user]
	if u == nil {
		u = &laneUser{user: user}
		l.users[user] = u
	}
	u.callers++
	l.mu.Unlock()
	u.turn.Lock()
	return u
}

func (l *lane) endTurn(u *laneUser) {
	u.turn.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	u.callers--
	l.forgetUserLocked(u.user)
}

// forgetUserLocked forgets a user of whom there is nothing to know any more.
func (l *lane) forgetUserLocked(user string) {
	if u := l.users[user]; u != nil && u.callers == 0 && u.clients.orders == 0 {
		delete(l.users, user)
	}
}
