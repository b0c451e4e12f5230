package handlers

import (
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"rollcall/handlers/sockets"
)

const (
	maxUserBytes  = 128
	maxEventBytes = 64
)

// checkUser refuses what can't be a user id. where says, in the error, where it was given.
func checkUser(where, user string) *Problem {
	fault := nameFault(user, maxUserBytes)
	if fault == "" {
		return nil
	}
	return problem(http.StatusBadRequest, "bad_user",
		"%s: a user id is 1 to %d bytes of UTF-8 without control characters; this one %s",
		where, maxUserBytes, fault)
}

// checkEvent refuses what can't be the name of an event.
func checkEvent(event string) *Problem {
	fault := eventFault(event)
	if fault == "" {
		return nil
	}
	return problem(http.StatusBadRequest, "bad_event",
		"event: a name is 1 to %d bytes of UTF-8 without control characters and does not begin with %s; "+
			"this one %s",
		maxEventBytes, sockets.Reserved, fault)
}

// eventFault says why a string can't be the name of an event; empty if it can.
func eventFault(event string) string {
	if strings.HasPrefix(event, sockets.Reserved) {
		return "begins with " + sockets.Reserved + ", which is reserved"
	}
	return nameFault(event, maxEventBytes)
}

func nameFault(name string, maxBytes int) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > maxBytes:
		return "is too long"
	case !utf8.ValidString(name):
		return "is not UTF-8"
	case strings.ContainsFunc(name, unicode.IsControl):
		return "has a control character"
	}
	return ""
}
