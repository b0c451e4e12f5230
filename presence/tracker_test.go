package presence

import (
	"testing"

	"github.com/google/uuid"
)

func TestTracker_IsDoneOnceWhenAllResultsAreThere(t *testing.T) {
	for name, c := range map[string]struct {
		ack     uuid.UUID
		results []DeliveryResult // of three sockets
		done    bool             // before it expires
		want    Counts           // when it has expired
	}{
		"written, closed, too slow": {uuid.Nil, []DeliveryResult{Written, Closed, Dropped}, true,
			Counts{Written: 1, Gone: 1, Dropped: 1}},
		"confirmed or not": {uuid.New(), []DeliveryResult{Written, Acked, Written, Unconfirmed, Closed}, true,
			Counts{Written: 2, Acked: 1, Gone: 1, Unanswered: 1}},
		"one never answers": {uuid.Nil, []DeliveryResult{Written, Written}, false,
			Counts{Written: 2, Unanswered: 1}},
		"one is written and never confirmed": {uuid.New(), []DeliveryResult{Closed, Closed, Written}, false,
			Counts{Written: 1, Gone: 2, Unanswered: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			var done []Counts
			tracker := NewTracker(c.ack, func(counts Counts) { done = append(done, counts) })
			for range 3 {
				tracker.add()
			}
			tracker.sent()
			for _, result := range c.results {
				tracker.Report(result)
			}
			if tracker.Done() != c.done {
				t.Errorf("done before it expires: %v", !c.done)
			}
			tracker.Expire()
			tracker.Report(Written) // too late
			if len(done) != 1 || done[0] != c.want {
				t.Errorf("done with %+v, want once %+v", done, c.want)
			}
		})
	}
}

func TestTracker_ThatIsNilCountsNothing(t *testing.T) {
	var none *Tracker
	none.add()
	none.Report(Written)
	none.sent()
}
