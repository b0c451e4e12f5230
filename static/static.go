// Package static is the page at / and the browser client, embedded in the
// binary.
//
// The files are what the browser gets: no build step, nothing from elsewhere.
// They refer to each other by name, so all are served from one folder, with
// index.html as its root. The page has no rights of its own. Its left half is
// an ordinary client on /ws, its right half an ordinary backend with an API
// key; only in dev mode does it get a token and the key for the asking.
// rollcall.js depends on none of the others: copy it, or import it from here.
package static

import "embed"

// Files holds the page and the client, all at the top level.
//
//go:embed *.html *.css *.js *.svg
var Files embed.FS
