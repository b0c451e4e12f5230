package sockets

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
)

// talker is a client whose frames are read all the time.
type talker struct {
	*websocket.Conn
	t      *testing.T
	frames chan struct{ Event, Code, Ref string }
	ended  error // why, when frames is closed
}

// talkTo connects a client to sockets that know no events, so that what is handled is answered with
// unknown_event.
func talkTo(t *testing.T, s *Server) *talker {
	t.Helper()
	c := &talker{Conn: connectTo(t, s), t: t, frames: make(chan struct{ Event, Code, Ref string }, 10_000)}
	go func() {
		defer close(c.frames)
		for {
			var f struct {
				Event, Ref string
				Data       struct{ Code string }
			}
			_, text, err := c.ReadMessage()
			if err != nil {
				c.ended = err
				return
			}
			if err := json.Unmarshal(text, &f); err != nil {
				t.Error(err)
			}
			c.frames <- struct{ Event, Code, Ref string }{f.Event, f.Data.Code, f.Ref}
		}
	}()
	if first := <-c.frames; first.Event != eventWelcome {
		t.Fatalf("the first frame is %+v", first)
	}
	return c
}

// send sends a frame. An error, if the connection has ended, is for who reads to see.
func (c *talker) send(ref string) { _ = c.WriteMessage(websocket.TextMessage, frameWith(ref)) }

func frameWith(ref string) []byte { return fmt.Appendf(nil, `{"event":"x","ref":%q}`, ref) }

func (c *talker) wantAnswer(code, ref string) {
	c.t.Helper()
	if f := <-c.frames; f.Code != code || f.Ref != ref {
		c.t.Fatalf("got %+v (the connection ended with %v), want %s for %s", f, c.ended, code, ref)
	}
}

// wantClose wants the connection to end with a close code, and returns how many frames with each code came
// before.
func (c *talker) wantClose(code int) map[string]int {
	c.t.Helper()
	codes := map[string]int{}
	for f := range c.frames {
		codes[f.Code]++
	}
	if !websocket.IsCloseError(c.ended, code) {
		c.t.Errorf("the connection ended with %v, want %d", c.ended, code)
	}
	return codes
}

func TestSocket_EndsWhenAMessageIsNotFinishedInTimeWhateverComesBetween(t *testing.T) {
	control := map[string]int{"pongs": websocket.PongMessage, "pings": websocket.PingMessage}
	for name, between := range control {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := startServer(t, 64<<10)
				client := talkTo(t, s)
				began := time.Now()
				part, err := client.NextWriter(websocket.TextMessage)
				if err != nil {
					t.Fatal(err)
				}
				go func() {
					_, _ = part.Write(make([]byte, 5000)) // more than the client's buffer: a part of it goes
					for time.Since(began) < 10*messageTime {
						if client.WriteControl(between, nil, time.Time{}) != nil {
							return
						}
						time.Sleep(time.Second / 3)
					}
				}()
				client.wantClose(websocket.ClosePolicyViolation)
				client.Close()
				if took := time.Since(began); took != messageTime {
					t.Errorf("it was closed after %v", took)
				}
				s.conns.Wait()
				time.Sleep(time.Second) // for who writes to notice
				if cut := s.Counts.Unfinished.Load(); cut != 1 {
					t.Errorf("%d were counted", cut)
				}
			})
		})
	}
}

func TestSocket_HandlesAMessageThatArrivesSlowlyButInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, 64<<10)
		client := talkTo(t, s)
		for range 3 { // the time of one is not that of the next
			message, err := client.NextWriter(websocket.TextMessage)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := message.Write(frameWith("slow")); err != nil {
				t.Fatal(err)
			}
			for range 9 {
				if _, err := message.Write([]byte(strings.Repeat(" ", 5000))); err != nil {
					t.Fatal(err)
				}
				time.Sleep(messageTime / 10)
			}
			if err := message.Close(); err != nil {
				t.Fatal(err)
			}
			client.wantAnswer(codeUnknownEvent, "slow")
		}
	})
}

func TestServer_EndsTheSocketOfTheOldestUnfinishedMessageWhenThereIsNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, 64<<10)
		s.conns.Limits.UnfinishedBytes = 3 * (64<<10 + 1) / 2
		alice, mallory := talkTo(t, s), talkTo(t, s)
		for _, client := range []*talker{mallory, alice} {
			part, err := client.NextWriter(websocket.TextMessage)
			if err == nil {
				_, err = part.Write([]byte(`{"event":"x","data":"` + strings.Repeat("x", 60<<10)))
			}
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if client == alice {
				began := time.Now()
				mallory.wantClose(websocket.ClosePolicyViolation)
				if took := time.Since(began); took > 0 {
					t.Errorf("room was made after %v", took)
				}
				if _, err := part.Write([]byte(`","ref":"1"}`)); err != nil || part.Close() != nil {
					t.Fatal(err)
				}
			}
		}
		alice.wantAnswer(codeUnknownEvent, "1")
	})
}

func TestSocket_RefusesALargeFrameInWordsAndEndsForOneFarBeyond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, 1000)
		client := talkTo(t, s)
		most := readSlack * s.options.MaxMessageBytes
		if err := client.WriteMessage(websocket.TextMessage, make([]byte, most)); err != nil {
			t.Fatal(err)
		}
		client.wantAnswer(codeFrameTooLarge, "")
		_ = client.WriteMessage(websocket.TextMessage, make([]byte, most+1)) // is not read to its end
		client.wantClose(websocket.CloseMessageTooBig)
	})
}

func TestSocket_EndsWhenAMessageHasFarTooManyFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, 1000)
		client := talkTo(t, s)
		began := time.Now()
		empty := []byte{0, 0x80, 0, 0, 0, 0} // a continuation: not final, masked, without data
		_, err := client.NetConn().Write([]byte{websocket.TextMessage, 0x80, 0, 0, 0, 0})
		for err == nil { // as fast as it can, until it is cut
			_, err = client.NetConn().Write(empty)
		}
		if client.wantClose(websocket.CloseMessageTooBig); time.Since(began) > closePatience {
			t.Errorf("it was closed after %v", time.Since(began))
		}
	})
}

func TestSocket_EndsWhenATextFrameIsNotUTF8(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := talkTo(t, startServer(t, 1000))
		if err := client.WriteMessage(websocket.TextMessage, []byte("\"\xff\"")); err != nil {
			t.Fatal(err)
		}
		client.wantClose(websocket.CloseInvalidFramePayloadData)
	})
}

func TestSocket_HandlesNothingMoreWhenItWasToldToGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startServer(t, 1000)
		client := talkTo(t, s)
		client.SetCloseHandler(func(int, string) error { return nil }) // it does not answer, and goes on
		socket := s.registry.all()[0]
		handled := 0
		s.dispatcher.handlers = map[string]Handler{
			"x": func(_ context.Context, _ Request, res *Responder) error {
				handled++
				return res.ReplyOnly(1)
			},
		}
		socket.Close(4003, "kicked")
		for range 20 {
			client.send("1")
		}
		client.wantClose(4003)
		if handled > 0 {
			t.Errorf("%d frames were handled after the kick", handled)
		}
	})
}

func TestServer_PingsNoClientThatTalks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := connectTo(t, startServer(t, 1000))
		go func() {
			for range 600 {
				time.Sleep(5 * time.Second)
				_ = client.WriteMessage(websocket.PongMessage, nil)
			}
			client.Close()
		}()
		if pings := countUntilEnd(client, false); pings > 1 { // one may come before it has said anything
			t.Errorf("%d pings", pings)
		}
	})
}

func TestSocket_IsClosedWhenItEndsWithinAMessage(t *testing.T) {
	for name, end := range map[string]func(client *websocket.Conn) error{
		"the connection breaks": func(client *websocket.Conn) error { return client.NetConn().Close() },
		"a close frame": func(client *websocket.Conn) error {
			return client.WriteControl(websocket.CloseMessage, nil, time.Time{})
		},
		"a frame that breaks the rules": func(client *websocket.Conn) error {
			_, err := client.NetConn().Write([]byte{0xf3, 0x80, 0, 0, 0, 0})
			return err
		},
		"too many bytes": func(client *websocket.Conn) error {
			_, err := client.NetConn().Write([]byte{0, 0xff, 0, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0})
			return err
		},
		"too many frames": func(client *websocket.Conn) error {
			empty := strings.Repeat("\x00\x80\x00\x00\x00\x00", 100)
			for {
				if _, err := io.WriteString(client.NetConn(), empty); err != nil {
					return nil // it is cut
				}
			}
		},
		"nothing": func(*websocket.Conn) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := startServer(t, 64<<10)
				client := talkTo(t, s)
				part, err := client.NextWriter(websocket.TextMessage)
				if err == nil {
					_, err = part.Write(make([]byte, 20<<10))
				}
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				closed := s.registry.all()[0].conn.Done() // which gives the room of the message back
				if err := end(client.Conn); err != nil {
					t.Fatal(err)
				}
				for range client.frames {
				}
				client.Close()
				<-closed
				if s.conns.Wait(); s.Number() != 0 {
					t.Errorf("%d sockets are still counted", s.Number())
				}
			})
		})
	}
}
