package sockets

import "time"

const (
	// rateBurst is how long a quiet client saves up for a burst: it may send twice its rate at once.
	rateBurst = 2 * time.Second
	// bytesPerToken: a frame costs one token, and one more for each 16 KiB that it had on the wire. No frame
	// costs more than a whole bucket, so a client that was quiet may send any frame that --max-message-bytes
	// allows.
	bytesPerToken = 16 << 10
	// A client is closed when its frames were refused for floodTime, without a pause of floodPause between
	// two refusals.
	floodTime  = 10 * time.Second
	floodPause = 5 * time.Second
)

// bucket is the token bucket of one socket. It keeps its tokens as the time at which it is full again, so
// that it needs 24 bytes; a rate.Limiter needs 80. All times are since the server started.
type bucket struct {
	full                      time.Duration // when it is full again
	firstRefused, lastRefused time.Duration // of refusals without a pause between them
}

// take takes the cost of so many bytes in one frame, at a rate of frames a second; 0: without limit. If there
// is not enough, it takes nothing, and returns how long it takes until there is.
func (b *bucket) take(now time.Duration, rate int, bytes int64) (wait time.Duration) {
	if rate == 0 {
		return 0
	}
	cost := min(time.Second/time.Duration(rate)*time.Duration(1+bytes/bytesPerToken), rateBurst)
	full := max(b.full, now) + cost
	if wait := full - now - rateBurst; wait > 0 {
		return wait
	}
	b.full = full
	return 0
}

// refuse notes that a frame was refused. It says whether this goes on for too long.
func (b *bucket) refuse(now time.Duration) (flood bool) {
	if b.lastRefused == 0 || now-b.lastRefused > floodPause {
		b.firstRefused = now
	}
	b.lastRefused = now
	return now-b.firstRefused >= floodTime
}
