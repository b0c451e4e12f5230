package fanout

import "context"

// signal tells a loop that there is something to do. Its capacity is 1, because one signal stands for
// everything that has come by then. It is never closed.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

// set never blocks.
func (s signal) set() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// loop calls do for each signal until the context ends.
func (s signal) loop(ctx context.Context, do func()) {
	for {
		select {
		case <-s:
			do()
		case <-ctx.Done():
			return
		}
	}
}
