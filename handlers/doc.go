// Package handlers answers HTTP: backends push events, ask who is present and kick; operators look at health
// and metrics. Clients come with GET /ws; package sockets serves them from then on, and describes their
// protocol. Nothing here speaks with Redis.
//
// # A request
//
// routes.go lists all routes. Each request passes observe, which counts it, recoverPanics, and a check that
// its query can be parsed. Most routes then want an API key, and refuse query parameters that they do not
// take. A push or an emit with an Idempotency-Key is done at most once: see idempotent.
//
// Whatever a handler reads, it reads strictly. An unknown field or parameter is refused, and so is one that
// comes twice: a misspelt "exclude" would otherwise push to one socket too many. A handler answers 200, or
// returns an error. problemOf maps each error, ours and those of other packages, to one answer: a status, a
// code for programs, and a detail that says what is wrong and how to fix it.
//
// What a handler needs of presence, fanout and sockets is an interface of one to four methods, declared
// beside the handler that uses it. So the tests of requests need no Redis: server_test.go has fakes.
//
// # A push
//
// push.go reads the body and makes the frame that clients will get, once for all of them. The bus (package
// fanout) brings it to the instances that own sockets of the user, and the answer says what became of it.
// With POST /push of application/x-ndjson, a stream, each line is a push: see stream.go.
package handlers
