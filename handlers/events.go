package handlers

import "context"

// events answers 1, 2 and 3: what the page sends to show that every answer reaches all of a user's sockets.
func events(_ context.Context, _ Request, a *Responder) error {
	for n := 1; n <= 3; n++ {
		if err := a.Send(n); err != nil {
			return err
		}
	}
	return nil
}
