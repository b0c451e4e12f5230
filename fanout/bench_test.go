package fanout

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"rollcall/lua/redistest"
	"rollcall/presence"
)

const benchUsers = 1000

type counter struct{ frames atomic.Int64 }

func (c *counter) Send(messages ...presence.Message) bool {
	c.frames.Add(int64(len(messages)))
	return true
}

func (*counter) Close(int, string) {}

func (*counter) Reachable() {}

func benchNodes(b *testing.B) (sender *node, came *counter) {
	o := options(redistest.Start(b), 1)
	sender, owner := startNode(b, "sender", o), startNode(b, "owner", o)
	came = &counter{}
	var last *presence.Socket
	for n := range benchUsers {
		last = &presence.Socket{ID: uuid.New(), User: userOf(n), Conn: came}
		if n < benchUsers-1 {
			owner.sockets.Add(last)
		}
	}
	if !owner.mirror.Join(b.Context(), last) {
		b.Fatal("not reachable")
	}
	return sender, came
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func BenchmarkBus_PushesToAnotherInstance(b *testing.B) {
	for _, together := range []int{1, 1000} {
		b.Run(fmt.Sprintf("%d together", together), func(b *testing.B) {
			sender, came := benchNodes(b)
			var number atomic.Int64
			frame := []byte(fmt.Sprintf(`{"event":"bench","data":%0128d}`, 1))
			callers := 32
			if together > 1 {
				callers = 2
			}
			b.SetParallelism(callers)
			b.ReportAllocs()
			before := cpuTime()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				pushes := make([]Push, 0, together)
				for more := true; more; {
					for pushes = pushes[:0]; len(pushes) < together; {
						if more = pb.Next(); !more {
							break
						}
						user := userOf(int(number.Add(1) % benchUsers))
						pushes = append(pushes, Push{User: user, Frame: frame})
					}
					if len(pushes) == 0 {
						return
					}
					for _, got := range sender.bus.Begin(pushes, time.Now().Add(MaxWait)).Wait(b.Context()) {
						if got.Err != nil || got.Instances != 1 {
							b.Errorf("%+v", got)
						}
					}
				}
			})
			redistest.Await(b, "all frames to come", func() bool { return came.frames.Load() >= int64(b.N) })
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pushes/s")
			b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}
