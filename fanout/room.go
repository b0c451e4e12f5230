package fanout

import (
	"sync/atomic"
	"time"

	"rollcall/presence"
)

// The caps of what other instances have sent and what waits for the sockets here. What finds no room is
// dropped and counted: to wait for room would stall the subscription, and with it everybody. All users
// together may have receiveBytes. One user may have at most as many bytes as are free. So a user to whom too
// much is pushed loses pushes of their own, and however many such users there are, some room stays free for
// the others.
//
// Why a push waits in a shardQueue where it is accepted, and once more at its owner: the first queue waits
// for Redis and is one for all users of a shard, because they share a call. The second waits for sockets and
// is one for each user, because only there a single user can be slow.
const (
	receiveBytes = 64 << 20
	userJobs     = 8192 // of one user, besides kicks
	jobBytes     = 256  // what a job needs besides its frame and its user
)

// job is a push or a kick that waits for the sockets of one user.
type job struct {
	envelope
	until time.Time        // when the sender's wait for a report ends; zero if it wants none
	from  *sharedFrame     // where the frame comes from; nil: it is the job's own
	only  *presence.Socket // of kindKickSocket
	mark  *mark            // set if this is no push or kick but a mark
}

// sharedFrame is a frame that came once for the pushes of many users. It counts once, until the last of them
// is done.
type sharedFrame struct {
	presence.Shared
	frame   []byte
	holders atomic.Int64
}

// size is what a job counts for its user.
func (j *job) size() int64 { return jobBytes + int64(len(j.user)+len(j.frame)) }

// ownSize is the part of the size that the job shares with no other.
func (j *job) ownSize() int64 {
	if j.from != nil {
		return j.size() - int64(len(j.frame))
	}
	return j.size()
}

func (j *job) isKick() bool { return j.kind == kindKickUser || j.kind == kindKickSocket }

// room counts what waits for all workers.
type room struct{ jobs, bytes atomic.Int64 }

func (r *room) add(j *job) {
	r.jobs.Add(1)
	r.bytes.Add(j.ownSize())
	r.hold(j.from)
}

func (r *room) remove(j *job) {
	r.jobs.Add(-1)
	r.bytes.Add(-j.ownSize())
	r.release(j.from)
}

// hold counts a shared frame, if nobody else holds it.
func (r *room) hold(shared *sharedFrame) {
	if shared != nil && shared.holders.Add(1) == 1 {
		r.bytes.Add(int64(len(shared.frame)))
	}
}

func (r *room) release(shared *sharedFrame) {
	if shared != nil && shared.holders.Add(-1) == 0 {
		r.bytes.Add(-int64(len(shared.frame)))
	}
}
