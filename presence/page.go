package presence

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MaxPage is the largest limit of a page.
const MaxPage = 1000

// ErrCursor says that a cursor is not one that a page gave.
var ErrCursor = errors.New("not a cursor that an earlier page gave")

// cursor is where a listing stands. Within a step of HSCAN that did not fit on a page, users are listed by name, so that
// the step can be read again and continued.
type cursor struct {
	local bool   // among this instance's own users: Redis could not be asked
	shard int    //
	step  uint64 // of HSCAN
	next  uint64 // step to which this one led when `after` was listed; if it leads elsewhere now, the hash has another size
	after string // the last user listed of this step; empty = none yet
}

func (c cursor) String() string {
	kind := "r"
	if c.local {
		kind = "l"
	}
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%s:%d:%d:%d:%s", kind, c.shard, c.step, c.next, c.after))
}

// parseCursor reads what String wrote; empty is the beginning.
func parseCursor(text string, shards int) (cursor, error) {
	if text == "" {
		return cursor{}, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return cursor{}, ErrCursor
	}
	words := strings.SplitN(string(raw), ":", 5)
	if len(words) != 5 || (words[0] != "r" && words[0] != "l") {
		return cursor{}, ErrCursor
	}
	shard, err := strconv.Atoi(words[1])
	if err != nil || shard < 0 || shard >= shards {
		return cursor{}, ErrCursor
	}
	step, err := strconv.ParseUint(words[2], 10, 64)
	if err != nil {
		return cursor{}, ErrCursor
	}
	next, err := strconv.ParseUint(words[3], 10, 64)
	if err != nil {
		return cursor{}, ErrCursor
	}
	return cursor{local: words[0] == "l", shard: shard, step: step, next: next, after: words[4]}, nil
}

// Page lists at most limit (1 to MaxPage) present users from a cursor on. Pages may be shorter than the limit; only one without a
// next cursor is the last. A user present throughout is listed at least once. If Redis can't be asked, or does not even hold this
// instance's lease, the answer is stale and lists this instance's own users; for a moment after that it is stale, and lists too few.
func (d *Directory) Page(ctx context.Context, from string, limit int) (Answer, error) {
	at, err := parseCursor(from, d.redis.Keys.Shards())
	if err != nil {
		return Answer{}, err
	}
	begin := at
	if begin.local {
		begin = cursor{} // Redis may be back: begin there again, rather than leave anybody out
	}
	answer, err := d.redisPage(ctx, begin, limit)
	if err == nil {
		return answer, nil
	}
	if !at.local {
		at = cursor{local: true}
	}
	d.logRefusal(err)
	return d.localPage(at, limit), nil
}

func (d *Directory) redisPage(ctx context.Context, at cursor, limit int) (Answer, error) {
	answer := Answer{Users: []User{}}
	count := limit
	if at.after != "" { // the page before ended within a step, which was this small
		count = 1
	}
	for at.shard < d.redis.Keys.Shards() && len(answer.Users) < limit {
		step, err := d.redis.page(ctx, at.shard, at.step, count)
		if err != nil {
			return Answer{}, err
		}
		if !d.holdsOwnLease(at.shard, step.at) {
			return Answer{}, errStateLost
		}
		answer.AsOf = Moment(step.at.now)
		answer.Stale = answer.Stale || d.shards[at.shard].recoveringFromLoss()
		if step.next != at.next {
			at.after = "" // the step holds others now, who were not listed
		}
		users := presentAfter(step.users, at.after)
		room := limit - len(answer.Users)
		whole := at.step == 0 && step.next == 0
		switch {
		case len(users) <= room:
			answer.Users = append(answer.Users, users...)
			at = cursor{shard: at.shard, step: step.next}
			if step.next == 0 {
				at.shard++
			}
			count = limit - len(answer.Users)
		case whole || count == 1: // can't be had in smaller steps
			answer.Users = append(answer.Users, users[:room]...)
			at.after, at.next = users[room-1].Name, step.next
		case len(answer.Users) > 0: // the next page begins with this step
			answer.Next = at.String()
			return answer, nil
		default:
			count /= 2
		}
	}
	if at.shard < d.redis.Keys.Shards() {
		answer.Next = at.String()
	}
	return answer, nil
}

// presentAfter are the users who are present and whose name comes after another, by name.
func presentAfter(users []User, after string) []User {
	users = slices.DeleteFunc(users, func(u User) bool { return u.State == Offline || u.Name <= after })
	slices.SortFunc(users, func(a, b User) int { return strings.Compare(a.Name, b.Name) })
	return users
}

// localPage lists this instance's own users by name. It looks at all of them: it is for the time without Redis.
func (d *Directory) localPage(at cursor, limit int) Answer {
	answer := Answer{Users: []User{}, AsOf: thisMoment(), Stale: true}
	names := d.sockets.firstUsers(at.after, limit+1)
	for _, name := range names[:min(limit, len(names))] {
		u := d.localUser(name)
		if u.State != Online {
			u.State = Reconnecting
		}
		answer.Users = append(answer.Users, u)
	}
	if len(names) > limit {
		at.after = names[limit-1]
		answer.Next = at.String()
	}
	return answer
}

// firstUsers are the first users by name after another, with sockets here or in their grace. It keeps no more
// than twice as many at a time, however many users there are.
func (s *Sockets) firstUsers(after string, count int) []string {
	first, full := make([]string, 0, 2*count), false
	keep := func() {
		slices.Sort(first)
		full = len(first) >= count
		first = first[:min(count, len(first))]
	}
	for i := range s.stripes {
		stripe := &s.stripes[i]
		stripe.mu.RLock()
		for user := range stripe.users {
			if user <= after || full && user >= first[count-1] {
				continue
			}
			if first = append(first, user); len(first) == cap(first) {
				keep()
			}
		}
		stripe.mu.RUnlock()
	}
	keep()
	return first
}
