// Command bench measures Rollcall and prints one Markdown table.
//
// It measures the real thing. It builds the binary, starts it with its default settings beside a redis-server
// of its own, and drives it over loopback. Only "reads" and "recovery" wire presence by hand in this process,
// because nobody can open a million sockets on one machine. Nothing is asserted about speed. But a push that
// is lost, doubled or brought to the wrong user makes the run fail.
//
// Everything shares one machine: instances, Redis, clients and callers. So a rate tells as much about the
// machine as about Rollcall. Trust what can be compared: the processor time of the instances for each push,
// and the ratio to a floor. A floor is the least that could do the same job (see floor.go). It is measured in
// the same run by the same callers and clients, in turn, a second each.
//
// To compare two versions, build the older one and give its binary:
//
//	go run ./bench -only pushes,streams                             # this version
//	go run ./bench -only pushes,streams -program /tmp/rollcall-old  # the other one, with the same bench
//
// A [measurement] is a function that starts what it needs in an [env] and returns [row]s. The env ends every
// process when the measurement is over, however it ended. The benchmarks of the packages measure what parts
// cost without HTTP and sockets: go test -bench . ./fanout ./presence ./lua
package main
