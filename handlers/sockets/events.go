package sockets

import "context"

// events answers 1, 2 and 3. The page sends this event to show that every answer reaches all of a user's
// sockets.
func events(_ context.Context, _ Request, res *Responder) error {
	for n := 1; n <= 3; n++ {
		if err := res.Send(n); err != nil {
			return err
		}
	}
	return nil
}
