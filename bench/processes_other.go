//go:build !linux

package main

import (
	"errors"
	"syscall"

	"github.com/gorilla/websocket"
)

// childAttributes only lets this package compile: settings.validate wants Linux.
func childAttributes() *syscall.SysProcAttr { return nil }

// poll only lets this package compile, too.
type poll struct{}

func startPoll() (*poll, error) { return nil, errors.ErrUnsupported }

func (*poll) add(*websocket.Conn, *inbox) error { return errors.ErrUnsupported }
