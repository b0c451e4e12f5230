package fanout

import "sync"

// userLocks has a mutex for each user to whom somebody pushes at this moment. Whoever holds a user's lock
// delivers to the local sockets and enqueues in one atomic step, so both see pushes in the same order. Each
// user has a lock of their own, rather than one of a few that users share: alice, who has thousands of
// sockets here, must not hold up the pushes to bob.
type userLocks struct {
	mu sync.Mutex
	// mu guards the following
	users map[string]*userLock
}

type userLock struct {
	sync.Mutex
	user string

	// guarded by the userLocks' mu
	callers int // how many hold it or wait for it; the last of them deletes it
}

func (l *userLocks) lock(user string) *userLock {
	l.mu.Lock()
	u := l.users[user]
	if u == nil {
		u = &userLock{user: user}
		if l.users == nil {
			l.users = map[string]*userLock{}
		}
		l.users[user] = u
	}
	u.callers++
	l.mu.Unlock()
	u.Lock()
	return u
}

func (l *userLocks) unlock(u *userLock) {
	u.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if u.callers--; u.callers == 0 {
		delete(l.users, u.user)
	}
}
