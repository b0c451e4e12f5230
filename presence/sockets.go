package presence

import (
	"hash/maphash"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// Conn is the connection under a socket.
type Conn interface {
	// Send sends text frames, in this order, or queues them, and never blocks. It reports false if some will not be sent: the socket is
	// closed, or is closed now because it is too slow. Tallies are told what becomes of their frames, whatever that is.
	Send(messages ...Message) bool
	// Close sends a close frame after what waits to be written, and closes. It never blocks.
	Close(code int, reason string)
	// Reachable tells the client that pushes from every instance find it from now on.
	Reachable()
}

// Message is a frame for a socket.
type Message struct {
	Frame   []byte   // shared: nobody may change it
	Shared  *Shared  // of a frame that many users' sockets get; nil: there is nothing to share
	Tracker *Tracker // is told what becomes of it; nil: nobody is
}

// Shared holds the form in which a frame is written, once the first of the sockets that get it has made it.
type Shared struct {
	once sync.Once
	form any
}

// Form returns what was made, or makes it.
func (s *Shared) Form(make func() any) any {
	s.once.Do(func() { s.form = make() })
	return s.form
}

// Socket is one WebSocket connection.
type Socket struct {
	ID   uuid.UUID
	User string // empty: anonymous
	Conn Conn

	retired bool // guarded by the map: counts no more, but still gets what is pushed
}

// Audience is who an emit is for.
type Audience int

const (
	Everybody     Audience = iota // every socket
	Authenticated                 // every socket that has a user
)

// Count is what this instance has of a user.
type Count struct {
	Kind    Kind
	Sockets int // above 0 if the kind is HasSockets, else 0
}

// Kind says what an instance has of a user. Sockets knows the first three. The others are what the mirror
// tells Redis when there is more to say. All but HasSockets, for which the number itself stands, are words of
// mirror.lua, whose header explains them with examples.
type Kind string

const (
	HasSockets Kind = ""
	InGrace    Kind = "grace" // no sockets, but the time to come back is not over
	Gone       Kind = "gone"  // neither sockets nor a grace

	left           Kind = "left"             // gone on purpose: graces on other instances end too
	graceIfPresent Kind = "grace-if-present" // in a grace, unless Redis says that the user is offline
	leftEarly      Kind = "left-early"       // the same, but left on purpose: graces on other instances end
)

// String is the count as mirror.lua takes it: 3, grace, gone.
func (c Count) String() string {
	if c.Kind == HasSockets {
		return strconv.Itoa(c.Sockets)
	}
	return string(c.Kind)
}

// Sockets are this instance's own sockets: the truth that everything else copies. Maps are striped, so that connects, pushes and
// emits on different users do not wait for each other.
type Sockets struct {
	// static after construction
	seed    maphash.Seed
	grace   time.Duration
	minStay time.Duration                                    // see Redis.MinStay
	changed func(user string, came, left bool, at time.Time) // see NewSockets
	keys    Keys
	stripes []stripe // as many for each shard, which holds the users of no other, one shard after the other

	sockets, users atomic.Int64

	graces graces
}

type stripe struct {
	mu sync.RWMutex
	// mu guards the following
	users     map[string]*localUser
	anonymous map[*Socket]struct{}
}

// localUser is a user who has sockets here, or had until a moment ago.
type localUser struct {
	sockets []*Socket // replaced, never changed: readers hold it without a lock
	retired int       // of these, such as do not count any more
	came    time.Time // since when the user is here, whatever short drops there were
	grace   *grace    // with no sockets that count: the time to come back
	gone    bool      // with no sockets that count: that is over
}

func (l *localUser) count() int { return len(l.sockets) - l.retired }

// manyStripes is how many stripes there are at least: far more than the cores that could want one at once.
const manyStripes = 64

// NewSockets makes an empty map, for the shards, the grace and the shortest stay that redis names; it asks nothing of it. changed is called
// at each change of a user's count, from any goroutine, while a part of the map is locked; it must not block. came says that the user was
// not here before; left, that the last socket was closed on purpose; at is when the change was, and, if a grace has ended, when it began.
func NewSockets(redis Redis, changed func(user string, came, left bool, at time.Time)) *Sockets {
	keys := redis.Keys
	s := &Sockets{seed: maphash.MakeSeed(), grace: redis.Grace, minStay: redis.MinStay, changed: changed, keys: keys}
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

// stripesOf are the stripes in which the users of a shard are.
func (s *Sockets) stripesOf(shard int) []stripe {
	each := len(s.stripes) / s.keys.Shards()
	return s.stripes[shard*each : (shard+1)*each]
}

// Add makes a socket known. Pushes on this instance find it at once.
func (s *Sockets) Add(socket *Socket) {
	now, stripe := time.Now(), s.stripeOf(socket.User, socket.ID)
	stripe.mu.Lock()
	s.sockets.Add(1)
	if socket.User == "" {
		stripe.anonymous[socket] = struct{}{}
		stripe.mu.Unlock()
		return
	}
	local := stripe.users[socket.User]
	came := local == nil || local.gone
	if local == nil {
		local = &localUser{came: now}
		stripe.users[socket.User] = local
	}
	if local.count() == 0 {
		s.users.Add(1)
	}
	if local.gone {
		local.came, local.gone = now, false
	}
	s.graces.end(local.grace)
	local.grace = nil
	local.sockets = append(slices.Clip(local.sockets), socket)
	s.changed(socket.User, came, false, now)
	stripe.mu.Unlock()
}

// Remove forgets a socket. If it was its user's last here, the user is gone at once when the client closed it on purpose (close
// code 1000), and otherwise after the grace; but not before the least stay is over.
func (s *Sockets) Remove(socket *Socket, onPurpose bool) {
	now, stripe := time.Now(), s.stripeOf(socket.User, socket.ID)
	stripe.mu.Lock()
	if socket.User == "" {
		if _, ok := stripe.anonymous[socket]; ok {
			delete(stripe.anonymous, socket)
			s.sockets.Add(-1)
		}
		stripe.mu.Unlock()
		return
	}
	local := stripe.users[socket.User]
	if local == nil || !slices.Contains(local.sockets, socket) {
		stripe.mu.Unlock()
		return
	}
	s.sockets.Add(-1)
	counted := local.count()
	local.sockets = slices.DeleteFunc(slices.Clone(local.sockets), func(other *Socket) bool { return other == socket })
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
	s.changed(socket.User, false, last && onPurpose, now)
	stripe.mu.Unlock()
}

// Retire makes a socket count no more, as if it had dropped. Until it is removed it gets what is pushed: others may not know yet.
func (s *Sockets) Retire(socket *Socket) {
	if socket.User == "" {
		return // nobody counts it
	}
	now, stripe := time.Now(), s.stripeOf(socket.User, socket.ID)
	stripe.mu.Lock()
	local := stripe.users[socket.User]
	if socket.retired || local == nil || !slices.Contains(local.sockets, socket) {
		stripe.mu.Unlock()
		return
	}
	socket.retired = true
	if local.retired++; local.count() == 0 {
		s.users.Add(-1)
		s.leaveLocked(socket.User, local, now, false)
	}
	s.changed(socket.User, false, false, now)
	stripe.mu.Unlock()
}

// Count is what this instance has of a user.
func (s *Sockets) Count(user string) Count {
	count, _ := s.count(user)
	return count
}

// count also says when the user came, or, in the grace, when the last socket went.
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

// Users are all users with sockets here or in their grace, in no order.
func (s *Sockets) Users() []string {
	users := make([]string, 0, s.users.Load())
	for shard := range s.keys.Shards() {
		users = s.appendUsers(users, shard)
	}
	return users
}

// appendUsers appends those of one shard.
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
