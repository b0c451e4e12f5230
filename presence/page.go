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

// cursor is where a listing stands: before a step of HSCAN, or within one. A step that did not fit on a page
// is listed by name, so that the next page can take the same step again and go on after the last name.
type cursor struct {
	local bool   // Redis could not be asked: the listing is of this instance's own users, and only uses after
	shard int    // in which the step is
	step  uint64 // the cursor of HSCAN
	next  uint64 // where the step led when after was listed. If it leads elsewhere now, the hash was resized
	after string // the last user of this step who was listed; empty: none yet
}

func (c cursor) String() string {
	kind := "r"
	if c.local {
		kind = "l"
	}
	text := fmt.Appendf(nil, "%s:%d:%d:%d:%s", kind, c.shard, c.step, c.next, c.after)
	return base64.RawURLEncoding.EncodeToString(text)
}

// parseCursor reads what String wrote. An empty text is the beginning.
func parseCursor(text string, shards int) (cursor, error) {
	if text == "" {
		return cursor{}, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	words := strings.SplitN(string(raw), ":", 5)
	if err != nil || len(words) != 5 || (words[0] != "r" && words[0] != "l") {
		return cursor{}, ErrCursor
	}
	shard, err := strconv.Atoi(words[1])
	if err != nil || shard < 0 || shard >= shards {
		return cursor{}, ErrCursor
	}
	step, errStep := strconv.ParseUint(words[2], 10, 64)
	next, errNext := strconv.ParseUint(words[3], 10, 64)
	if errStep != nil || errNext != nil {
		return cursor{}, ErrCursor
	}
	return cursor{local: words[0] == "l", shard: shard, step: step, next: next, after: words[4]}, nil
}

// Page lists at most limit (1 to MaxPage) present users, from a cursor on. A page may be shorter than the
// limit; only a page without a next cursor is the last. A user who is present all the time is listed at least
// once. If Redis can't be asked, or does not hold this instance's lease, the answer is stale and lists this
// instance's own users. While Redis recovers from a loss of its data, the answer is stale and may lack users.
func (d *Directory) Page(ctx context.Context, from string, limit int) (Answer, error) {
	at, err := parseCursor(from, d.redis.Keys.Shards())
	if err != nil {
		return Answer{}, err
	}
	begin := at
	if begin.local {
		begin = cursor{} // Redis may be back: begin there again, rather than leave users out
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

// redisPage takes steps through the owners until the page is full or there is no more.
func (d *Directory) redisPage(ctx context.Context, at cursor, limit int) (Answer, error) {
	answer := Answer{Users: []User{}}
	count := limit
	if at.after != "" { // the page before ended within a step, and that step was this small
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
			at.after = "" // the step has other users now, some of whom were not listed
		}
		users := presentAfter(step.users, at.after)
		room := limit - len(answer.Users)
		wholeHash := at.step == 0 && step.next == 0
		switch {
		case len(users) <= room:
			answer.Users = append(answer.Users, users...)
			at = cursor{shard: at.shard, step: step.next}
			if step.next == 0 {
				at.shard++
			}
			count = limit - len(answer.Users)
		case wholeHash || count == 1: // there are no smaller steps: the page ends within this one
			answer.Users = append(answer.Users, users[:room]...)
			at.after, at.next = users[room-1].Name, step.next
		case len(answer.Users) > 0: // the next page begins with this step
			answer.Next = at.String()
			return answer, nil
		default: // take a smaller step
			count /= 2
		}
	}
	if at.shard < d.redis.Keys.Shards() {
		answer.Next = at.String()
	}
	return answer, nil
}

// presentAfter returns the users who are present and whose names come after a name, sorted by name.
func presentAfter(users []User, after string) []User {
	users = slices.DeleteFunc(users, func(u User) bool { return u.State == Offline || u.Name <= after })
	slices.SortFunc(users, func(a, b User) int { return strings.Compare(a.Name, b.Name) })
	return users
}

// localPage lists this instance's own users by name. It looks at all of them each time, which is acceptable
// because it is needed only while Redis is away.
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

// firstUsers returns the first users by name, after a name, of those with sockets here or in the grace. It
// never holds more than twice as many names, however many users there are.
func (s *Sockets) firstUsers(after string, count int) []string {
	first, full := make([]string, 0, 2*count), false
	trim := func() {
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
				trim()
			}
		}
		stripe.mu.RUnlock()
	}
	trim()
	return first
}
