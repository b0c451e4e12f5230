package main

// A socket is an open file, and so is every other connection. Of the files that the process may open, a
// twentieth is for the process itself: Redis, the log, profiles. If there are few, the share is larger, so
// that there are enough. As many again are for connections that are no sockets: probes and backends. The rest
// is for sockets.

// ownFiles is how many files are kept for the process itself.
func ownFiles(limit int) int { return max(limit/20, min(64, limit*3/8)) }

// mostConnections is how many connections there may be, sockets and others; 0: no limit is known.
func mostConnections(limit int) int { return limit - ownFiles(limit) }

// mostSockets is how many sockets there may be; 0: no limit is known.
func mostSockets(limit int) int { return limit - 2*ownFiles(limit) }
