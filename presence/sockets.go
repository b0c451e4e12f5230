package presence

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// Sockets are this instance's own sockets: the truth that everything else copies. The map is split into
// stripes, so that connects, pushes and emits on different users do not wait for each other.
type Sockets struct {
	// static after construction
	seed     maphash.Seed
	grace    time.Duration
	minStay  time.Duration // see Redis.MinStay
	onChange func(countChange)
	keys     Keys
	stripes  []stripe // those of shard 0, then as many of shard 1, …: a stripe holds users of one shard only

	sockets, users atomic.Int64 // users: with at least one socket that counts

	graces graces
}

type stripe struct {
	mu sync.RWMutex
	// mu guards the following
	users     map[string]*localUser
	anonymous map[*Socket]struct{}
}

// localUser is a user who has sockets here, or had some until a moment ago.
type localUser struct {
	sockets []*Socket // replaced, never changed: readers hold it without a lock
	retired int       // how many of these do not count any more
	came    time.Time // since when the user is here, whatever short drops there were
	grace   *grace    // without sockets that count: the time to come back
	gone    bool      // without sockets that count: that time is over
}

func (l *localUser) count() int { return len(l.sockets) - l.retired }

// countChange is a change of what this instance has of a user.
type countChange struct {
	user          string
	came          bool // the user was not here before
	leftOnPurpose bool // the last socket was closed on purpose
	at            time.Time
}

// manyStripes is how many stripes there are at least: far more than cores that could want one at once.
const manyStripes = 64

// NewSockets makes an empty map, for the shards, the grace and the shortest stay that redis names; it does
// not call Redis. onChange is called at each change of a user's count, from any goroutine, while the user's
// stripe is locked: it must not block. When a grace ends, the change is at the time when the grace began.
func NewSockets(redis Redis, onChange func(countChange)) *Sockets {
	keys := redis.Keys
	s := &Sockets{
		seed: maphash.MakeSeed(), grace: redis.Grace, minStay: redis.MinStay, onChange: onChange, keys: keys,
	}
	s.graces.sooner = make(chan struct{}, 1)
	s.stripes = make([]stripe, keys.Shards()*((manyStripes+keys.Shards()-1)/keys.Shards()))
	for i := range s.stripes {
		s.stripes[i].users = map[string]*localUser{}
		s.stripes[i].anonymous = map[*Socket]struct{}{}
	}
	return s
}

func (s *Sockets) stripeOf(user string, id uuid.UUID) *stripe {
	if user == "" {
		return &s.stripes[int(id[15])%len(s.stripes)] // the last byte of an id is random
	}
	own := s.stripesOf(s.keys.ShardOf(user))
	return &own[maphash.String(s.seed, user)%uint64(len(own))]
}

// stripesOf are the stripes that hold the users of a shard.
func (s *Sockets) stripesOf(shard int) []stripe {
	each := len(s.stripes) / s.keys.Shards()
	return s.stripes[shard*each : (shard+1)*each]
}

// Add makes a socket known. Pushes on this instance find it at once.
func (s *Sockets) Add(socket *Socket) {
	stripe := s.stripeOf(socket.User, socket.ID)
	stripe.mu.Lock()
	defer stripe.mu.Unlock()
	s.sockets.Add(1)
	if socket.User == "" {
		stripe.anonymous[socket] = struct{}{}
		return
	}
	now, local := time.Now(), stripe.users[socket.User]
	came := local == nil || local.gone
	if local == nil {
		local = &localUser{}
		stripe.users[socket.User] = local
	}
	if came {
		local.came, local.gone = now, false
	}
	if local.count() == 0 {
		s.users.Add(1)
	}
	s.graces.end(local.grace)
	local.grace = nil
	local.sockets = append(slices.Clip(local.sockets), socket)
	s.onChange(countChange{user: socket.User, came: came, at: now})
}

// Remove forgets a socket. If it was its user's last here and the client closed it on purpose (close code
// 1000), the user is gone at once, or when the shortest stay is over. Otherwise the user is gone after the
// grace.
func (s *Sockets) Remove(socket *Socket, onPurpose bool) {
	stripe := s.stripeOf(socket.User, socket.ID)
	stripe.mu.Lock()
	defer stripe.mu.Unlock()
	if socket.User == "" {
		if _, known := stripe.anonymous[socket]; known {
			delete(stripe.anonymous, socket)
			s.sockets.Add(-1)
		}
		return
	}
	now, local := time.Now(), stripe.users[socket.User]
	if local == nil {
		return
	}
	index := slices.Index(local.sockets, socket)
	if index < 0 {
		return
	}
	s.sockets.Add(-1)
	counted := local.count()
	local.sockets = slices.Concat(local.sockets[:index], local.sockets[index+1:])
	if socket.retired {
		local.retired--
	}
	last := local.count() == 0
	if last && counted > 0 {
		s.users.Add(-1)
	}
	if last && (counted > 0 || onPurpose) {
		s.leaveLocked(socket.User, local, now, onPurpose)
	}
	if local.gone && len(local.sockets) == 0 {
		delete(stripe.users, socket.User)
	}
	s.onChange(countChange{user: socket.User, leftOnPurpose: last && onPurpose, at: now})
}

// Retire makes a socket count no more, as if it had dropped. It still gets what is pushed until it is
// removed: other instances may not know yet.
func (s *Sockets) Retire(socket *Socket) {
	if socket.User == "" {
		return // anonymous sockets are not counted
	}
	stripe := s.stripeOf(socket.User, socket.ID)
	stripe.mu.Lock()
	defer stripe.mu.Unlock()
	now, local := time.Now(), stripe.users[socket.User]
	if socket.retired || local == nil || !slices.Contains(local.sockets, socket) {
		return
	}
	socket.retired = true
	if local.retired++; local.count() == 0 {
		s.users.Add(-1)
		s.leaveLocked(socket.User, local, now, false)
	}
	s.onChange(countChange{user: socket.User, at: now})
}

// Count is what this instance has of a user.
func (s *Sockets) Count(user string) Count {
	count, _ := s.count(user)
	return count
}

// count also says when the user came or, in the grace, when the last socket went.
func (s *Sockets) count(user string) (count Count, at time.Time) {
	stripe := s.stripeOf(user, uuid.Nil)
	stripe.mu.RLock()
	defer stripe.mu.RUnlock()
	local := stripe.users[user]
	switch {
	case local == nil || local.gone:
		return Count{Kind: Gone}, time.Time{}
	case local.count() == 0:
		return Count{Kind: InGrace}, local.grace.began
	}
	return Count{Sockets: local.count()}, local.came
}

// Of are the sockets of a user here, retired ones too.
func (s *Sockets) Of(user string) List {
	stripe := s.stripeOf(user, uuid.Nil)
	stripe.mu.RLock()
	defer stripe.mu.RUnlock()
	if local := stripe.users[user]; local != nil {
		return local.sockets
	}
	return nil
}

// appendUsers appends all users of a shard who have sockets here or are in their grace, in no order.
func (s *Sockets) appendUsers(users []string, shard int) []string {
	stripes := s.stripesOf(shard)
	for i := range stripes {
		stripe := &stripes[i]
		stripe.mu.RLock()
		for user := range stripe.users {
			users = append(users, user)
		}
		stripe.mu.RUnlock()
	}
	return users
}

// Totals are the numbers of sockets, and of users who have at least one.
func (s *Sockets) Totals() (sockets, users int) {
	return int(s.sockets.Load()), int(s.users.Load())
}
