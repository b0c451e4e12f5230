package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"sync"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/olahol/melody"
)

const (
	localBody = 64 << 10 // the longest body of a push that serveLocal reads
	gcPercent = 400      // what an instance with so few sockets sets for itself
)

// serveLocal is the floor of a push: a server that does what an instance does for one, except ask Redis. It checks the key, reads the
// JSON, makes an id and a frame, hands it to the user's socket, and answers. It can only serve sockets of its own.
func serveLocal() error {
	debug.SetGCPercent(gcPercent)
	sockets := melody.New()
	var sessions sync.Map // user → *melody.Session
	sockets.HandleConnect(func(session *melody.Session) {
		user, _ := session.Get("user")
		sessions.Store(user, session)
		_ = session.Write([]byte(welcomeFrame))
	})
	e := echo.New()
	e.GET("/readyz", func(c echo.Context) error { return c.NoContent(http.StatusOK) })
	e.GET("/ws", func(c echo.Context) error {
		user, err := localUser(c.Request())
		if err != nil {
			return err
		}

		defer func() { c.Response().Committed = true }()
		return sockets.HandleRequestWithKeys(c.Response().Writer, c.Request(), map[string]any{"user": user})
	})
	e.POST("/push/:user", func(c echo.Context) error { return pushLocally(c, &sessions) })
	return serveAsFloor(e)
}

// localUser reads the user of a token, and trusts it.
func localUser(r *http.Request) (string, error) {
	var claims jwt.RegisteredClaims
	_, _, err := jwt.NewParser().ParseUnverified(bearer(r), &claims)
	return claims.Subject, err
}

func bearer(r *http.Request) string {
	const scheme = "Bearer "
	value := r.Header.Get("Authorization")
	return value[min(len(scheme), len(value)):]
}

func pushLocally(c echo.Context, sessions *sync.Map) error {
	user := c.Param("user")
	session, ok := sessions.Load(user)
	if !ok || bearer(c.Request()) == "" {
		return echo.ErrUnauthorized
	}
	text, err := io.ReadAll(http.MaxBytesReader(c.Response(), c.Request().Body, localBody))
	if err != nil {
		return err
	}
	var body struct {
		Event string          `json:"event"`
		Data  json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(text, &body); err != nil {
		return err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	frame := fmt.Appendf(nil, `{"event":%q,"data":%s,"id":"%s"}`, body.Event, body.Data, id)
	if err := session.(*melody.Session).Write(frame); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, struct {
		ID        uuid.UUID `json:"id"`
		User      string    `json:"user"`
		State     string    `json:"state"`
		Instances int       `json:"instances"`
	}{id, user, "online", 1})
}
