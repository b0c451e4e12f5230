// Package handlers speaks with the outside: HTTP with backends, WebSockets with clients. It never speaks with Redis.
//
// # The protocol on /ws
//
// Every frame is text and holds one JSON object. From the server:
//
//	{"event": string, "data": any, "id"?: string, "ref"?: string}
//
// id names a push or emit; ref is the one that the client gave to the message that this answers. From the client:
//
//	{"event": string, "data"?: any, "ref"?: string}
//
// Names that begin with "rollcall:" belong to the protocol. The server sends
//
//	rollcall:welcome    first of all: {"socket", "user" (null: anonymous), "instance", "reachable", "limits"}.
//	                    limits is {"messageBytes", "heartbeatMs"}: the largest frame, and the silence after which to ping
//	rollcall:reachable  after a welcome that said reachable: false. From now on pushes from every instance find this socket
//	rollcall:error      {"code", "message"}: what was wrong with a frame; the socket stays open
//	rollcall:goaway     {"reconnect"}: this socket is about to be closed; come back after so many milliseconds
//	rollcall:pong       {}: the answer to rollcall:ping, with its ref
//
// and takes
//
//	rollcall:ack        {"id"}: the client confirms a push. Somebody may wait for that; if not it does no harm
//	rollcall:ping       the client asks whether the path still carries. The answer comes at once, also while a handler works on a frame
//
// A WebSocket has pings of its own, and the server sends those, but a page never sees them: to a page a dead path looks just like a
// quiet server. So a client that has heard nothing for heartbeatMs sends rollcall:ping, say {"event":"rollcall:ping","ref":"1"}, and
// connects anew if nothing at all comes in the next five seconds.
//
// Every other event goes to the [Handler] of its name. Each of its answers goes to the socket that asked and, without the ref, to
// all other sockets of the same user, on every instance.
//
// # Close codes
//
// 1012: the instance is leaving, come back when rollcall:goaway said. 4000–4099: do not come back, of which 4003: kicked. 4100–4199: come back after a
// pause, of which 4102: this client sent too many frames for too long. 4200–4299: come back at once, of which 4290: this client reads too
// slowly, and what waited for it is lost. 1007: a frame was not UTF-8. 1008: a message did not arrive whole in time. 1009: it was far too large.
// A client that closes with 1000 says that it will not be back.
package handlers
