// Command bench measures Rollcall and prints what it found as one Markdown table.
//
// It measures the real thing: it builds the binary, starts it with its default settings next to a redis-server of its own, and
// drives it over loopback from processes of its own. Only the measurements "router" and "mirror" wire the packages by hand, in
// this process, to see what they cost without HTTP and sockets around them, and "output" has leases that need no renewal, to see nothing
// but pushes. Nothing is asserted about speed; but a push that is
// lost, doubled or brought to the wrong user makes the run fail.
//
// Everything shares one machine: instances, Redis, and the processes that load them. So rates tell as much about the machine as
// about Rollcall. What can be compared is the processor time a push or a connection costs, and the ratio of a rate to its floor: the
// least that could do the job (an empty handler, a bare PUBLISH), measured in the same run by the same load: mostly in turn, a second
// each. A process with clients reads all their sockets in one goroutine, one after the other, which is part of every delay.
//
// To repeat it: make bench, on a Linux machine that does nothing else. For a part of it: go run ./bench -only pushes,router. Numbers
// from different machines, or from a busy one, say nothing about each other.
//
// A [measurement] is a function that starts what it needs on a [stage], drives it, and yields [row]s. The stage ends every process
// when the measurement is over, however it ended.
package main
