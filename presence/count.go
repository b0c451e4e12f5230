package presence

import "strconv"

// Count is what this instance has of a user.
type Count struct {
	Kind    Kind
	Sockets int // above 0 if the kind is HasSockets, else 0
}

// Kind says what an instance has of a user. Sockets knows the first three. The others are what Redis is told
// when there is more to say. HasSockets is written as the number. The other kinds are words of mirror.lua,
// whose header explains them with examples.
type Kind string

const (
	HasSockets Kind = ""
	InGrace    Kind = "grace" // no sockets, but the time to come back is not over
	Gone       Kind = "gone"  // neither sockets nor a grace

	left           Kind = "left"             // gone on purpose: graces on other instances end too
	graceIfPresent Kind = "grace-if-present" // in a grace, unless Redis says that the user is offline
	leftEarly      Kind = "left-early"       // the same, but left on purpose: graces on other instances end
)

// String is the count as mirror.lua takes it: 3, grace, gone.
func (c Count) String() string {
	if c.Kind == HasSockets {
		return strconv.Itoa(c.Sockets)
	}
	return string(c.Kind)
}
