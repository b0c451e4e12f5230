package main

import (
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// wallClock are the methods that tell the date from a time.Time. All others, such as Sub and Before, compare
// two readings of the monotonic clock, and do not change if somebody sets the clock of the machine.
var wallClock = []string{
	"Unix", "UnixMilli", "UnixMicro", "UnixNano", "UTC", "Local", "Round", "Truncate",
	"Format", "AppendFormat", "MarshalJSON", "MarshalText",
}

// TestClock_OfAnInstanceMeasuresDurationsOnly holds that an instance whose clock is an hour fast changes
// nothing: what it tells Redis and other instances is how long ago something was, and Redis makes a date of
// that. The scripts read only Redis' TIME, which the tests of package lua hold.
func TestClock_OfAnInstanceMeasuresDurationsOnly(t *testing.T) {
	allowed := map[string]string{
		"../presence/mirror.go: UTC":         "when an instance started, which /instances shows to people",
		"../presence/mirror.go: Truncate":    "the same",
		"../presence/state.go: UnixMilli":    "the date of a stale answer: Redis cannot be asked",
		"../presence/state.go: UTC":          "shows a date that Redis made",
		"../presence/state.go: AppendFormat": "the same",
	}
	read := map[string]bool{}
	for _, folder := range []string{"../lua", "../presence", "../fanout"} {
		err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
			if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") ||
				strings.Contains(path, "redistest") {
				return err
			}
			file, err := parser.ParseFile(gotoken.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if method, ok := n.(*ast.SelectorExpr); ok && slices.Contains(wallClock, method.Sel.Name) {
					read[filepath.ToSlash(path)+": "+method.Sel.Name] = true
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, place := range slices.Sorted(maps.Keys(read)) {
		if allowed[place] == "" {
			t.Errorf("%s reads the date of this machine's clock", place)
		}
	}
}
