// Package handlers answers HTTP, mostly for backends: pushes, emits, presence. Clients come with GET /ws, and package
// sockets serves them from then on. It never speaks with Redis.
package handlers
