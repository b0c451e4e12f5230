// Package nbconn is a net.Conn for the server's side of a WebSocket. Nobody who writes to it waits, and it
// knows of messages whose end has not come yet. It knows nothing of what the messages are about.
//
// # Writing
//
// A push must go to thousands of sockets without waiting for any of them, and without waking a goroutine for
// each. So [Conn.Write] asks the kernel, in a non-blocking system call, to take what it has room for. For a
// client that reads, this is everything, and the write is over: no queue, no goroutine, no copy.
//
// If the kernel takes only a part, even in the middle of a frame, Conn keeps the rest: its backlog. It starts
// a goroutine, the flusher, which sends the backlog with ordinary blocking writes and ends when nothing is
// left. While the flusher runs, further writes are appended to the backlog, so bytes stay in order and frames
// stay whole. The backlog is the Conn's own copy and is guarded by its mutex; the caller's slice is free when
// Write returns.
//
// The owner need not look into the backlog. It asks [Conn.Flushed] after a write, and if something is left,
// it is told later by [Owner.Flushed]. An owner that hands over the next frames only then keeps the backlog
// as small as one write. If the backlog grows past [Limits.Backlog] all the same, or if the client's side
// takes nothing for [Limits.Stall], the client does not read: the connection is closed, and the owner is told
// by [Owner.TooSlow].
//
// # Reading
//
// A WebSocket library hands on whole messages. While a message is still coming, only the library holds its
// bytes, and a client that begins messages and never ends them could fill our memory. So Conn follows the
// frames in what it reads, with a small state machine that looks only at their heads. From them it knows when
// a message begins and ends, and holds three limits: the time of one message ([Limits.MessageTime]: pings and
// pongs between its frames do not extend it), its bytes on the wire ([Limits.MessageBytes]), and the bytes of
// all unfinished messages of a [Group] together ([Limits.UnfinishedBytes]). When the last is exceeded, the
// message that was begun first goes: clients that send as fast as they can are done long before those that
// fill the budget on purpose. Read then returns [ErrNoRoom].
//
// # Life
//
// All goroutines and timers of a Conn are counted in its [Group], whose Wait returns when none is left. Close
// stops the timer and fails the write of the flusher, so that none outlives its connection for long.
//
// Locks: a Conn's mutex may be held when that of the group's budget is taken, never the other way round. The
// Conn's mutex may be held while Owner.TooSlow runs, and is not held while Owner.Flushed runs.
package nbconn
