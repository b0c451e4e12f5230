package main

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"rollcall/lua/redistest"
)

func TestPush_EverySocketOfAUserGetsItExactlyOnceAndOthersDoNot(t *testing.T) {
	t.Parallel()
	apps := startThree(t)
	var alices, bobs []*socket
	for _, a := range apps {
		alices = append(alices, connect(t, a, "alice"), connect(t, a, "alice"))
		bobs = append(bobs, connect(t, a, "bob"))
	}
	nobody := connect(t, apps[0], "")
	const pushes = 50
	for n := range pushes {
		push(t, apps[n%3], "alice", fmt.Sprintf(`{"event":"n","data":%d}`, n), "online", 3)
	}
	for _, a := range alices {
		got, ids := map[string]int{}, map[string]bool{} // in any order: different instances took them
		for range pushes {
			f := a.next()
			got[string(f.Data)]++
			ids[f.ID] = true
		}
		if len(got) != pushes || len(ids) != pushes || ids[""] {
			t.Errorf("of %d pushes one socket got %v, with %d ids", pushes, got, len(ids))
		}
	}
	// anything else that they got would come before this
	if got := ask(t, apps[1], "POST", "/emit/all", `{"event":"last"}`); got.Body["instances"] != 3.0 {
		t.Errorf("emit: %s", got.text)
	}
	for _, s := range append(append(alices, bobs...), nobody) {
		s.wantFrame("last", "null")
	}
}

func TestPush_LeavesOutTheExcludedSocketAlone(t *testing.T) {
	t.Parallel()
	apps := startThree(t)
	here, sibling, there := connect(t, apps[0], "alice"), connect(t, apps[0], "alice"),
		connect(t, apps[1], "alice")
	for _, a := range apps {
		push(t, a, "alice", `{"event":"x","exclude":"`+here.id+`"}`, "online", 2)
	}
	push(t, apps[0], "alice", `{"event":"last"}`, "online", 2)
	here.wantFrame("last", "null")
	for _, s := range []*socket{sibling, there} {
		got := map[string]int{} // in any order: different instances took them
		for range 4 {
			got[s.next().Event]++
		}
		if got["x"] != 3 || got["last"] != 1 {
			t.Errorf("a socket that was not excluded got %v", got)
		}
	}
}

func TestPush_SaysWhoIsNotThere(t *testing.T) {
	t.Parallel()
	apps := startThree(t)
	push(t, apps[0], "alice", `{"event":"x"}`, "offline", 0)
	alice := connect(t, apps[1], "alice")
	push(t, apps[0], "alice", `{"event":"x"}`, "online", 1)
	alice.drop()
	wantState(t, apps[0], "alice", "reconnecting", 0)
	push(t, apps[0], "alice", `{"event":"x"}`, "reconnecting", 0)
	alice = connect(t, apps[2], "alice")
	push(t, apps[0], "alice", `{"event":"x"}`, "online", 1)
	alice.leave()
	wantState(t, apps[0], "alice", "offline", 0)
}

func TestPush_ToManyAnswersForEachInTheOrderAsked(t *testing.T) {
	t.Parallel()
	apps := startThree(t)
	alice, bob := connect(t, apps[0], "alice"), connect(t, apps[1], "bob")
	got := ask(t, apps[2], "POST", "/push",
		`{"users":["bob","nobody","alice","bob"],"event":"x","data":{"a":[1]}}`)
	want := `[{"user":"bob","state":"online","instances":1},{"user":"nobody","state":"offline","instances":0},
		{"user":"alice","state":"online","instances":1},{"user":"bob","state":"online","instances":1}]`
	if got.Status != http.StatusOK || got.Body["id"] == "" ||
		!sameJSON(string(marshal(t, got.Body["results"])), want) {
		t.Errorf("got %d %s", got.Status, got.text)
	}
	alice.wantFrame("x", `{"a":[1]}`)
	bob.wantFrame("x", `{"a":[1]}`)
	push(t, apps[2], "bob", `{"event":"y"}`, "online", 1)
	bob.wantFrame("y", "null") // who is named twice gets it once
}

func TestPresence_AThousandUsersWithLongNamesCanBeAskedAboutAtOnce(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	connect(t, a, "alice")
	var users []string
	for n := range 999 {
		users = append(users, fmt.Sprintf("%04d", n)+strings.Repeat("é", 62)) // of 128 bytes
	}
	users = append(users, "alice")
	plain := string(marshal(t, map[string]any{"users": users}))
	for spelling, body := range map[string]string{"in UTF-8": plain,
		"with escapes": strings.ReplaceAll(plain, "é", `\u00e9`)} {
		got := ask(t, a, "POST", "/presence", body)
		listed, _ := got.Body["users"].([]any)
		if got.Status != http.StatusOK || len(listed) != len(users) || got.Body["stale"] != false {
			t.Fatalf("%s: %d, %d users, %.200s", spelling, got.Status, len(listed), got.text)
		}
		for n, state := range map[int]string{0: "offline", len(users) - 1: "online"} {
			if one := listed[n].(map[string]any); one["user"] != users[n] || one["state"] != state {
				t.Errorf("%s: number %d is %v", spelling, n, one)
			}
		}
	}
}

func TestPresence_AQuestionAboutUsersHasTheSameAnswerInTheAddressAndInTheBody(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	connect(t, a, "alice")
	wantState(t, a, "alice", "online", 1)
	const headRoom = 14 << 10 // of 16 KiB: the rest is for headers
	users, query := []string{"alice"}, "user=alice"
	for n := 0; len(query) < headRoom; n++ {
		users = append(users, fmt.Sprintf("user-%d/é", n))
		query += "&user=" + url.QueryEscape(users[len(users)-1])
	}
	inAddress := ask(t, a, "GET", "/presence?"+query, "")
	inBody := ask(t, a, "POST", "/presence", string(marshal(t, map[string]any{"users": users})))
	for _, got := range []answer{inAddress, inBody} {
		listed, _ := got.Body["users"].([]any)
		if got.Status != http.StatusOK || len(listed) != len(users) {
			t.Fatalf("%d, %d users", got.Status, len(listed))
		}
		delete(listed[0].(map[string]any), "lastSeen") // of who is online it is now
	}
	if !sameJSON(string(marshal(t, inAddress.Body["users"])), string(marshal(t, inBody.Body["users"]))) {
		t.Errorf("GET: %.500s\nPOST: %.500s", inAddress.text, inBody.text)
	}
}

func TestHTTP_HEADIsAnsweredWhereGETIs(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	for _, path := range []string{"/", "/rollcall.js", "/healthz", "/readyz", "/presence", "/presence/alice",
		"/instances", "/metrics"} {
		if got := ask(t, a, "HEAD", path, ""); got.Status != http.StatusOK || got.text != "" {
			t.Errorf("%s: %d %q", path, got.Status, got.text)
		}
	}
}

func TestHTTP_PagesElsewhereMayLoadTheClientAndReadWhyASocketWasRefused(t *testing.T) {
	t.Parallel()
	const elsewhere = "https://app.example"
	a := startApp(t, "--allowed-origins="+elsewhere)
	if got := ask(t, a, "GET", "/rollcall.js", ""); got.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("the client: %v", got.Header)
	}
	got := ask(t, a, "GET", "/ws?token=garbage", "", http.Header{"Origin": {elsewhere}, "Authorization": nil})
	wantProblem(t, got, 401, "bad_token")
	if got.Header.Get("Access-Control-Allow-Origin") != elsewhere || got.Header.Get("Vary") != "Origin" {
		t.Errorf("a refusal: %v", got.Header)
	}
	got = ask(t, a, "GET", "/ws", "", http.Header{"Origin": {"https://evil.example"}, "Authorization": nil})
	wantProblem(t, got, 403, "bad_origin")
	if got.Header.Get("Access-Control-Allow-Origin") != "https://evil.example" ||
		got.Header.Get("Vary") != "Origin" {
		t.Errorf("a page can't read that its origin is not allowed: %v", got.Header)
	}
	if credentials := got.Header.Get("Access-Control-Allow-Credentials"); credentials != "" {
		t.Errorf("a page elsewhere may send credentials: %s", credentials)
	}
}

func TestEmit_ToAuthenticatedReachesEveryDeviceOfEveryUserAndNoOther(t *testing.T) {
	t.Parallel()
	apps := startThree(t)
	var users, anonymous []*socket
	for _, a := range apps {
		users = append(users, connect(t, a, "alice"), connect(t, a, "alice"), connect(t, a, "bob"))
		anonymous = append(anonymous, connect(t, a, ""))
	}
	for _, a := range apps {
		if got := ask(t, a, "POST", "/emit/authenticated?wait=written",
			`{"event":"secret","data":1}`); got.Body["instances"] != 3.0 || got.Body["id"] == "" {
			t.Errorf("emit: %d %s", got.Status, got.text)
		}
	}
	ask(t, apps[0], "POST", "/emit/all", `{"event":"last"}`)
	for _, s := range users {
		for range apps {
			s.wantFrame("secret", "1")
		}
	}
	for _, s := range append(users, anonymous...) {
		s.wantFrame("last", "null")
	}
}

func TestPush_StrangeUserIDsArePushedToAndListedLikeAnyOther(t *testing.T) {
	redistest.Each(t, func(t *testing.T, redis *redistest.Server) {
		a, b := startApp(t, "--dev", "--redis-url="+redis.URL()),
			startApp(t, "--dev", "--redis-url="+redis.URL())
		names := []string{"a/b", "50%", "%2F", "a:b", "{x}", "a b", " ", "a+b", "🦊", "<img src=x>", `"\`,
			"..", "?q=1&user=#", "count"}
		for _, name := range names {
			s := connect(t, b, name)
			// HTTP clients clean up such a path before it gets here; POST /push can push to this user
			if name != ".." {
				push(t, a, name, `{"event":"x"}`, "online", 1)
				s.wantFrame("x", "null")
			}
			ask(t, a, "POST", "/push", `{"event":"y","users":[`+string(marshal(t, name))+`]}`)
			s.wantFrame("y", "null")
			got := ask(t, a, "GET", "/presence?user="+url.QueryEscape(name), "")
			if !sameJSON(string(marshal(t, got.Body["users"].([]any)[0].(map[string]any)["user"])),
				string(marshal(t, name))) {
				t.Errorf("asked for %q, got %s", name, got.text)
			}
			if name != ".." && name != "count" { // which is a path of its own
				wantState(t, a, name, "online", 1)
			}
		}
		inOrder := slices.Sorted(slices.Values(names))
		if got := listed(t, a, 3); !slices.Equal(got, inOrder) {
			t.Errorf("listed %q, want %q", got, inOrder)
		}
		for _, name := range names {
			if name == ".." {
				continue
			}
			if got := ask(t, a, "DELETE", "/presence/"+url.PathEscape(name), ""); got.Body["closed"] != 1.0 {
				t.Errorf("kicked %q: %s", name, got.text)
			}
		}
	})
}

func TestPush_PassesHalfOfASurrogatePair(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	alice := connect(t, a, "alice")
	const data = `"cut: \ud83d"` // as JSON.stringify writes it
	push(t, a, "alice", `{"event":"x","data":`+data+`}`, "online", 1)
	alice.wantFrame("x", data)
}
