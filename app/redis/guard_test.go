package redis

import (
	"io"
	"net"
	"testing"
)

func TestGuardedConn_LetsCommandsThroughHoweverTheyAreCut(t *testing.T) {
	t.Parallel()
	commands := "*1\r\n$4\r\nPING\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n" +
		"*2\r\n$4\r\nECHO\r\n$10\r\n*0\r\n*-1\r\n$\r\n"
	for _, size := range []int{1, 2, 3, 7, 4096} {
		here, there := net.Pipe()
		go func() {
			defer there.Close()
			for rest := []byte(commands); len(rest) > 0; {
				n, err := there.Write(rest[:min(size, len(rest))])
				if rest = rest[n:]; err != nil {
					return
				}
			}
		}()
		got, err := io.ReadAll(guard(here))
		if err != nil || string(got) != commands {
			t.Errorf("in pieces of %d: %q, %v", size, got, err)
		}
		here.Close()
	}
}
