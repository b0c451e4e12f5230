package main

// Of the files that the process may open, a twentieth is for itself: Redis, the log, profiles. Of few it is
// more, so that there are enough. As many again are for connections that are no sockets: probes and backends.
// The rest is for sockets.

// ownFiles are kept for the process itself.
func ownFiles(limit int) int { return max(limit/20, min(64, limit*3/8)) }

// mostConnections are sockets and all other connections together; 0: no limit is known.
func mostConnections(limit int) int { return limit - ownFiles(limit) }

// mostSockets is as many sockets as the files allow; 0: no limit is known.
func mostSockets(limit int) int { return limit - 2*ownFiles(limit) }
