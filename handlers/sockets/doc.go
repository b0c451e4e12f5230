// Package sockets serves the WebSockets of one instance: the handshake, what clients send, what waits for
// them, pings, and the end. It knows the other instances only through [Mirror] and [Bus].
//
// # A socket's life
//
// [Server.Serve] upgrades a request; its comment shows how two goroutines hand over. From then on a socket
// has one goroutine: its reader, which Melody runs. Whoever sends to a socket writes by itself. What the
// client has not taken yet waits in the socket's outbox, with a cap; at the cap the client is too slow, and
// its socket is closed with 4290. The connection under it, package nbconn, never lets a writer wait. Nothing
// else costs an idle socket anything, besides a ping in every period: see [Server.Run].
//
// What the reader gets, it handles or refuses on a goroutine that ends with the message; a [Handler] works on
// one of its own, while the next message is read. The reader waits for all of these before it ends, and
// [Server.Drain] waits for all readers.
//
// # Locks
//
// In this order, each of them only for a moment, except the first:
//
//	socket.handling     while a handler works on a message
//	outbox.mu           while messages are queued or handed over; the sender may hold locks of presence or
//	                    fanout, which therefore come before this one
//	gorilla/websocket   while a frame is written
//	nbconn.Conn         see there
//
// The registry's lock is never held together with another. No lock of ours is held when a tracker is called.
//
// # The protocol on /ws
//
// Every frame is text and holds one JSON object. From the server:
//
//	{"event": string, "data": any, "id"?: string, "ref"?: string}
//
// id names a push or emit; ref is the one that the client gave to the message that this answers. From the
// client:
//
//	{"event": string, "data"?: any, "ref"?: string}
//
// Names that begin with "rollcall:" belong to the protocol. The server sends
//
//	rollcall:welcome    first of all: {"socket", "user", "instance", "reachable", "limits"}. user is null
//	                    for an anonymous client. limits is {"messageBytes", "heartbeatMs"}: the largest
//	                    frame, and the silence after which to ping
//	rollcall:reachable  after a welcome that said reachable: false. From now on pushes from every instance
//	                    find this socket
//	rollcall:error      {"code", "message"}: what was wrong with a frame; the socket stays open
//	rollcall:goaway     {"reconnect"}: this socket is about to be closed; come back after so many ms
//	rollcall:pong       {}: the answer to rollcall:ping, with its ref
//
// and takes
//
//	rollcall:ack        {"id"}: the client confirms a push. If nobody waits for that, it does no harm
//	rollcall:ping       the client asks whether the path still works. The answer comes at once, also while a
//	                    handler works on a frame
//
// A WebSocket has pings of its own, and the server sends those, but a page never sees them: to a page a dead
// path looks just like a quiet server. So a client that has heard nothing for heartbeatMs sends
// rollcall:ping, for example {"event":"rollcall:ping","ref":"1"}. It connects anew if nothing at all comes in
// the next five seconds.
//
// Every other event goes to the [Handler] of its name. Each of its answers goes to the socket that asked and,
// without the ref, to all other sockets of the same user, on every instance.
//
// # Close codes
//
//	1000        from the client: it will not be back
//	1007        a frame was not UTF-8
//	1008        a message did not arrive whole in time
//	1009        a message was far too large
//	1012        the instance is leaving: come back when rollcall:goaway said
//	4000–4099   do not come back; 4003: kicked
//	4100–4199   come back after a pause; 4102: this client sent too many frames for too long
//	4200–4299   come back at once; 4290: this client reads too slowly, and what waited for it is lost
package sockets
