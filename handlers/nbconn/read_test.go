package nbconn

import (
	"errors"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

const text = 1 // the opcode of a text frame

// send writes to the server's side, for which a pipe waits until it is read.
func send(t *testing.T, client net.Conn, p []byte) {
	if _, err := client.Write(p); err != nil {
		t.Error(err)
	}
}

// readUntilError returns the error that ends reading.
func (c *Conn) readUntilError() error {
	read := make([]byte, 1000)
	for {
		if _, err := c.Read(read); err != nil {
			return err
		}
	}
}

// held is how much the group counts now, and of how many messages.
func (g *Group) held() (bytes, messages int) {
	g.unfinished.mu.Lock()
	defer g.unfinished.mu.Unlock()
	return g.unfinished.bytes, g.unfinished.begun.Len()
}

func TestConn_GivesAMessageItsTimeWhateverComesBetweenItsFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer here.Close()
		c, _ := wrap(there)
		began, ended := time.Now(), make(chan struct{})
		go func() {
			defer close(ended)
			send(t, here, frameOf(false, text, true, 0, 5))
			for pong := frameOf(true, 10, true, 0, 0); ; time.Sleep(time.Second) {
				if _, err := here.Write(pong); err != nil {
					return
				}
			}
		}()
		read, err := make([]byte, 1000), error(nil)
		for err == nil {
			_ = c.SetReadDeadline(time.Now().Add(time.Hour)) // as Melody does with each pong
			_, err = c.Read(read)
		}
		if took := time.Since(began); !errors.Is(err, ErrTooLate) || took != limits().MessageTime {
			t.Errorf("%v after %v", err, took)
		}
		c.Close()
		<-ended
	})
}

func TestConn_GivesAMessageBehindOneThatIsHandledSlowlyItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer here.Close()
		c, _ := wrap(there)
		messageTime := limits().MessageTime
		message := frameOf(true, text, true, 0, 100)
		go func() {
			send(t, here, slices.Concat(message, message[:50]))
			time.Sleep(2*messageTime + messageTime/2)
			send(t, here, message[50:])
		}()
		read := make([]byte, 1000)
		if n, err := c.Read(read); n != len(message)+50 || err != nil {
			t.Fatal(n, err)
		}
		time.Sleep(2 * messageTime) // the first is handled
		c.ExtendDeadline()
		if n, err := c.Read(read); n != len(message)-50 || err != nil || c.follower.inMessage {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}

func TestConn_RefusesAMessageInFarTooManyFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		c, _ := wrap(there)
		c.group.Limits.MessageBytes = 1000
		go func() {
			frame := frameOf(false, text, true, 0, 0)
			for {
				if _, err := here.Write(frame); err != nil {
					return
				}
				frame = frameOf(false, 0, true, 0, 0) // a continuation without data
			}
		}()
		if err := c.readUntilError(); !errors.Is(err, ErrTooLarge) || c.Received() > 2000 {
			t.Errorf("%v after %d bytes", err, c.Received())
		}
		c.Close()
	})
}

func TestGroup_TakesTheRoomOfTheMessageThatWasBegunFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		group := &Group{Limits: limits()}
		group.Limits.UnfinishedBytes = 100 << 10
		conns, ends := [2]Conn{}, [2]chan error{}
		for n := range conns {
			here, there := net.Pipe()
			defer here.Close()
			conns[n].Open(there, group, &watcher{})
			ends[n] = make(chan error, 1)
			go func() { ends[n] <- conns[n].readUntilError() }()
			frame := frameOf(true, text, true, 8, 70<<10)
			send(t, here, frame[:60<<10])
			synctest.Wait()
		}
		if err := <-ends[0]; !errors.Is(err, ErrNoRoom) {
			t.Errorf("the first ended with %v", err)
		}
		if bytes, messages := group.held(); messages != 1 || bytes < 60<<10 || bytes > 80<<10 {
			t.Errorf("%d bytes of %d messages are counted", bytes, messages)
		}
	})
}

func TestConn_GivesItsRoomBackWhenItEndsWithinAMessage(t *testing.T) {
	for name, end := range map[string]func(c *Conn, client net.Conn){
		"the connection breaks": func(c *Conn, client net.Conn) {
			client.Close()
			_ = c.readUntilError()
			c.Close()
		},
		"the owner closes it": func(c *Conn, _ net.Conn) { c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			here, there := net.Pipe()
			c, _ := wrap(there)
			go send(t, here, frameOf(true, text, true, 8, 70<<10)[:60<<10])
			read := make([]byte, 60<<10)
			if n, err := c.Read(read); n != len(read) || err != nil {
				t.Fatal(n, err)
			}
			if bytes, _ := c.group.held(); bytes == 0 {
				t.Fatal("it takes no room")
			}
			end(c, here)
			if bytes, messages := c.group.held(); bytes != 0 || messages != 0 {
				t.Errorf("%d bytes of %d messages are still counted", bytes, messages)
			}
		})
	}
}

func TestConn_GivesItsRoomBackWhenAMessageEnds(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	c, _ := wrap(there)
	frame := frameOf(true, text, true, 8, 20<<10)
	go send(t, here, frame)
	for c.Received() < int64(len(frame)) {
		if _, err := c.Read(make([]byte, 6000)); err != nil {
			t.Fatal(err)
		}
	}
	if bytes, messages := c.group.held(); bytes != 0 || messages != 0 {
		t.Errorf("%d bytes of %d messages are still counted", bytes, messages)
	}
}
