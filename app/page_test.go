package main

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"rollcall/lua/redistest"
)

func TestPage_ShowsAnAnswerOnceInEachOfTheUsersTabs(t *testing.T) {
	t.Parallel()
	a, b := startApp(t), startBrowser(t)
	asker, other := b.openAs(a, "alice"), b.openAs(a, "alice")
	asker.send("events", `{"test": true}`)
	withRef, without := []string{"events 1 ref 1", "events 2 ref 1", "events 3 ref 1"},
		[]string{"events 1", "events 2", "events 3"}
	asker.wantLog(withRef...)
	other.wantLog(without...)
	// anything else that they got would come before this
	asker.push("alice", "last", "", "alice is online, taken by 1 instance")
	asker.wantLog(append(withRef, "last null")...)
	other.wantLog(append(without, "last null")...)
}

func TestPage_PushesToEveryTabOfAUserButTheExcludedOne(t *testing.T) {
	t.Parallel()
	a, b := startApp(t), startBrowser(t)
	here, there, bob := b.openAs(a, "alice"), b.openAs(a, "alice"), b.openAs(a, "bob")
	here.push("alice", "order.paid", `{"id": 7}`, "alice is online, taken by 1 instance")
	here.exclude(true)
	here.push("alice", "order.sent", `{"id": 7}`, "alice is online, taken by 1 instance")
	here.exclude(false)
	here.push("cathy", "order.paid", `{"id": 8}`, "cathy is offline")
	here.emit("all", "last", "", "taken by 1 instance")
	here.wantLog(`order.paid {"id":7}`, "last null")
	there.wantLog(`order.paid {"id":7}`, `order.sent {"id":7}`, "last null")
	bob.wantLog("last null")
}

func TestPage_ShowsWhoComesLeavesAndIsCutOff(t *testing.T) {
	t.Parallel()
	a, b := startApp(t, "--grace=1h"), startBrowser(t)
	alice, bob := b.openAs(a, "alice"), b.open(a, "/")
	bob.fill("user", "bob")
	bob.press("connect")
	bob.wantWelcome(a, "bob")
	alice.wantListed("bob", "online", 1)
	bob.wantListed("bob", "online", 1)
	cathy := b.openAs(a, "cathy")
	alice.wantListed("cathy", "online", 1)

	bob.press("disconnect") // on purpose, so no grace
	bob.wantStatus("Not connected")
	alice.wantUnlisted("bob")
	bob.wantUnlisted("bob")
	cathy.close()
	alice.wantListed("cathy", "reconnecting", 0)
	alice.await("a count of 2", `() => $("count").textContent === "2"`)
}

func TestPage_ShowsAHostileUserIDAsText(t *testing.T) {
	t.Parallel()
	const hostile = `<img src=x onerror=alert(1)>/%:{} 🦊`
	a, b := startApp(t), startBrowser(t)
	alice, fox := b.openAs(a, "alice"), b.openAs(a, hostile)
	alice.wantListed(hostile, "online", 1)
	alice.see(`(user) => { rows("online").find((li) => li.dataset.user === user).firstChild.click(); }`,
		hostile)
	alice.await("the user to push to", `(user) => $("push-user").value === user`, hostile)
	alice.pushAs("push", "<b>hi</b>", `{"html": "<img src=x onerror=alert(2)>"}`,
		hostile+" is online, taken by 1 instance")
	fox.wantLog(`<b>hi</b> {"html":"<img src=x onerror=alert(2)>"}`)
	for _, p := range []*tab{alice, fox} {
		p.await("no more markup than the page's own",
			`() => document.images.length === 1 && !document.querySelector("b")`)
	}
}

func TestPage_GivesAnAnonymousTabItsAnswersAlone(t *testing.T) {
	t.Parallel()
	a, b := startApp(t), startBrowser(t)
	asker, other, alice := b.openAs(a, ""), b.openAs(a, ""), b.openAs(a, "alice")
	asker.send("events", "")
	answers := []string{"events 1 ref 1", "events 2 ref 1", "events 3 ref 1"}
	asker.wantLog(answers...)
	asker.emit("authenticated", "users", "", "taken by 1 instance")
	asker.emit("all", "last", "", "taken by 1 instance")
	asker.wantLog(append(answers, "last null")...)
	other.wantLog("last null")
	alice.wantLog("users null", "last null")
}

func TestPage_ReachesTabsOnAnotherInstance(t *testing.T) {
	t.Parallel()
	a := startApp(t)
	a2, b := startApp(t, "--dev", "--redis-url="+a.RedisURL), startBrowser(t)
	here, there, bob := b.openAs(a, "alice"), b.openAs(a2, "alice"), b.openAs(a2, "bob")
	here.push("bob", "hello", `"bob"`, "bob is online, taken by 1 instance")
	bob.wantLog(`hello "bob"`)
	there.send("events", "")
	here.wantLog("events 1", "events 2", "events 3")
	there.push("alice", "last", "", "alice is online, taken by 2 instances")
	here.wantLog("events 1", "events 2", "events 3", "last null")
	there.wantLog("events 1 ref 1", "events 2 ref 1", "events 3 ref 1", "last null")
	here.wantListed("alice", "online", 2)
	for p, instance := range map[*tab]string{here: a.Instance, there: a2.Instance} {
		p.await("both instances live, and this tab's marked", `(instance) => rows("instances").length === 2 &&
			rows("instances").every((li) => li.dataset.state === "live" &&
				li.hasAttribute("data-here") === (li.dataset.instance === instance))`, instance)
	}
}

func TestPage_ComesBackWithItsInstance(t *testing.T) {
	t.Parallel()
	b := startBrowser(t)
	a, err := tryApp(t)
	if err != nil {
		t.Fatal(err)
	}
	alice := b.openAs(a, "alice")
	alice.allowRefusals()
	a.Close()
	alice.wantStatus("Coming back")
	again := startApp(t, "--addr="+a.Addr)
	alice.wantWelcome(again, "alice")
	alice.push("alice", "again", "", "alice is online, taken by 1 instance")
	alice.wantLog("again null")
}

func TestPage_SaysThatRedisIsOutOfReachAndGoesOn(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	a, b := startApp(t, "--dev", "--redis-url="+redis.URL()), startBrowser(t)
	here, there := b.openAs(a, "alice"), b.openAs(a, "alice")
	here.allowRefusals() // it asks for what only Redis knows
	there.allowRefusals()
	redis.Kill()
	here.await("the news about Redis",
		`() => $("online-note").textContent.includes("out of reach") &&
			$("count").hasAttribute("data-stale")`)
	here.wantListed("alice", "online", 2)
	here.push("alice", "order.paid", "7",
		"the state of alice is unknown, taken by 1 instance, only this instance could be reached")
	here.wantLog("order.paid 7")
	there.wantLog("order.paid 7")
}

func TestPage_TakesATokenAndAKeyOutsideDevMode(t *testing.T) {
	t.Parallel()
	a, b := startApp(t, "--redis-url="+startApp(t).RedisURL), startBrowser(t)
	p := b.open(a, "/")
	p.allowRefusals()
	p.fill("token", "not a token")
	p.press("connect")
	p.await("the reason for the refusal", `() => $("why").textContent.includes("is not a JWT")`)
	p.wantStatus("Not connected") // and will not try again
	p.fill("token", token(t, "alice"))
	p.press("connect")
	p.wantWelcome(a, "alice")
	p.fill("api-key", "wrong")
	p.await("the reason for the refusal", `() => $("online-note").textContent.includes("API key")`)
	p.fill("api-key", testKey)
	p.wantListed("alice", "online", 1)
	p.push("alice", "order.paid", "7", "alice is online, taken by 1 instance")
	p.wantLog("order.paid 7")
}

func TestPage_SaysHowManySocketsAPushWasWrittenToAndHowManyConfirmed(t *testing.T) {
	t.Parallel()
	a, b := startApp(t), startBrowser(t)
	here, there, bob := b.openAs(a, "alice"), b.openAs(a, "alice"), b.openAs(a, "bob")
	here.fill("push-wait", "written")
	here.push("alice", "one", "", "alice is online, taken by 1 instance, written to 2 sockets")
	here.emit("all", "two", "", "taken by 1 instance, written to 3 sockets")
	here.push("cathy", "none", "", "cathy is offline")
	here.fill("push-wait", "acked")
	here.push("alice", "three", "", "alice is online, taken by 1 instance, written to 2 sockets, 2 confirmed")
	here.emit("authenticated", "last", "", "taken by 1 instance, written to 3 sockets, 3 confirmed")
	here.wantLog("one null", "two null", "three null", "last null")
	there.wantLog("one null", "two null", "three null", "last null")
	bob.wantLog("two null", "last null")
}

// kick kicks a user with the page's form, confirms it, and checks what the page then says about it.
func (p *tab) kick(user, want string) {
	p.t.Helper()
	p.fill("push-user", user)
	p.press("kick")
	p.await("to be asked whether to kick "+user,
		`(user) => $("kick-sure").open && $("kick-user").textContent === user`, user)
	p.wantAnswer("kick-yes", want)
}

func TestPage_ThatIsKickedSaysSoAndDoesNotComeBack(t *testing.T) {
	t.Parallel()
	a, b := startApp(t), startBrowser(t)
	kicker, kicked, bob := b.openAs(a, "alice"), b.openAs(a, "alice"), b.openAs(a, "bob")
	for _, p := range []*tab{kicked, bob} {
		p.see(`() => {
			window.statuses = [];
			new MutationObserver(() => statuses.push($("status").dataset.status))
				.observe($("status"), { attributeFilter: ["data-status"] });
		}`)
	}
	kicker.exclude(true)
	kicker.kick("alice", "1 socket of alice closed")
	kicker.kick("bob", "1 socket of bob closed")
	kicker.wantUnlisted("bob") // no grace: nobody expects him
	kicker.wantListed("alice", "online", 1)
	kicker.kick("bob", "bob had no socket to close")
	for p, user := range map[*tab]string{kicked: "alice", bob: "bob"} {
		p.wantStatus("Not connected")
		p.await("the reason", `() => $("why").textContent ===
			"The server closed this socket for good (4003): kicked from Rollcall's page."`)
		p.press("connect") // by hand it may
		p.wantWelcome(a, user)
		if got := p.see(`() => statuses.join(" ")`); got != "closed connecting open" {
			t.Errorf("%s: went through %s", p.name, got)
		}
	}
	kicker.press("kick")
	kicker.see(`() => { $("kick-sure").querySelector("button").click(); }`) // no
	kicker.push("bob", "still", "", "bob is online, taken by 1 instance")
	bob.wantLog("still null")
}

func TestPage_ConfirmsAPushOnceItsListenersTookIt(t *testing.T) {
	t.Parallel()
	a, b := startApp(t), startBrowser(t)
	p := b.open(a, "/")
	p.see(`async () => {
		const { Rollcall } = await import("/rollcall.js");
		const { token } = await (await fetch("/dev/token?user=alice")).json();
		const log = (words) => {
			document.body.dataset.log = (document.body.dataset.log ?? " ") + words + " ";
		};
		const send = WebSocket.prototype.send;
		WebSocket.prototype.send = function (text) {
			const { event, data } = JSON.parse(text);
			log(event + ":" + events[data.id]);
			send.call(this, text);
		};
		const events = {};
		addEventListener("error", (error) => {
			error.preventDefault(); // or it would be a fault of the page
			log(error.message);
		});
		for (const [ack, name] of [[true, "a"], [false, "b"]]) {
			const client = new Rollcall({ token, ack });
			client.addEventListener("frame", ({ detail }) => { events[detail.id] = detail.event; });
			const never = client.on("good", () => { throw new Error("taken off, and called"); });
			never();
			if (ack) {
				client.on("bad", () => { throw "thrown"; });
				client.on("bad", () => log("second"));
				client.on("broken", async () => { await null; throw "broken"; });
				client.on("good", async () => { await null; log("took"); });
			}
			client.on("last", () => log(name));
			client.connect();
			await new Promise((resolve) => client.on("rollcall:welcome", resolve));
		}
	}`)
	wantState(t, a, "alice", "online", 2)
	for _, event := range []string{"bad", "broken", "good", "unheard", "last"} {
		push(t, a, "alice", `{"event":"`+event+`"}`, "online", 1)
	}
	p.await("the last of both clients", `() =>
		[" b ", "rollcall:ack:last"].every((words) => document.body.dataset.log?.includes(words))`)
	got := strings.Replace(p.see(`() => document.body.dataset.log`), " b ", " ", 1)
	want := "Uncaught thrown second Uncaught broken took " +
		"rollcall:ack:good rollcall:ack:unheard a rollcall:ack:last"
	if strings.TrimSpace(got) != want {
		t.Errorf("the client did %s\nwant %s", got, want)
	}
}

func TestPage_FitsAPhone(t *testing.T) {
	t.Parallel()
	a, b := startApp(t), startBrowser(t)
	long := strings.Repeat("W", 128)
	p := b.open(a, "/?user="+long, chromedp.EmulateViewport(390, 844, chromedp.EmulateMobile,
		chromedp.EmulateTouch))
	p.wantWelcome(a, long)
	p.wantListed(long, "online", 1)
	p.push(long, long[:64], `"`+long+long+`"`, long+" is online, taken by 1 instance")
	p.wantLog(long[:64] + ` "` + long + long + `"`)
	p.send(long, "")
	p.await("an error", `() => $("log").querySelector("[data-event='rollcall:error']")`)
	if wide := p.see(`() => [document.documentElement, ...document.querySelectorAll("body *")]
		.filter((e) => e.getBoundingClientRect().left < 0 || e.getBoundingClientRect().right > 390 ||
			e === document.documentElement && e.scrollWidth > 390)
		.map((e) => e.outerHTML.slice(0, 60)).join("\n")`); wide != "" {
		t.Errorf("wider than the phone:\n%s", wide)
	}
}

func TestPage_MayConnectToNoOtherServer(t *testing.T) {
	t.Parallel()
	a, b := startApp(t), startBrowser(t)
	elsewhere := startApp(t, "--allowed-origins=*")
	p := b.openAs(a, "alice") // to its own it may, which the welcome shows
	for _, address := range []string{"ws://" + elsewhere.Addr + "/ws",
		"http://" + elsewhere.Addr + "/healthz"} {
		got := p.see(`(address) => new Promise((resolve) => {
			addEventListener("securitypolicyviolation", (e) => resolve(e.effectiveDirective), { once: true });
			if (address.startsWith("ws")) new WebSocket(address)
				.addEventListener("open", () => resolve("open"));
			else fetch(address, { mode: "no-cors" }).then(() => resolve("fetched"), () => {});
		})`, address)
		if got != "connect-src" {
			t.Errorf("%s: %s, want connect-src to forbid it", address, got)
		}
	}
	p.closed = true // what it tried is a fault of a page, and was the test
	p.leave()
}

func TestPage_SaysWhyItWaitsAndUntilWhen(t *testing.T) {
	t.Parallel()
	a, b := startApp(t), startBrowser(t)
	alice := b.open(a, "/")
	alice.allowRefusals()
	alice.see(`() => { // a server that is full, and says so when it is asked why
		window.WebSocket = class extends WebSocket {
			constructor(url) { super(new URL("/ws?token=bad", url)); }
		};
		const plain = window.fetch;
		window.fetch = (what, ...more) => new URL(what.url ?? what).pathname !== "/ws" ? plain(what, ...more)
			: Promise.resolve(new Response('{"detail":"this instance is full"}',
				{ status: 503, headers: { "Retry-After": "60" } }));
	}`)
	alice.fill("user", "alice")
	alice.press("connect")
	alice.wantStatus("Coming back at ")
	if why := alice.see(`() => $("why").textContent`); why != "This instance is full." {
		t.Errorf("the page says %q", why)
	}
	alice.press("disconnect")
	alice.wantStatus("Not connected")
}
