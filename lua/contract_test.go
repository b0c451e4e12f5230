package lua

import (
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"rollcall/lua/redistest"
)

// fileNames returns the names of the scripts, and of the files that are put before scripts.
func fileNames(t *testing.T) (scripts, preludes []string) {
	t.Helper()
	paths, err := fs.Glob(files, "*.lua")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, path := range paths {
		if name := strings.TrimSuffix(path, ".lua"); strings.Contains(read(name), "\n-- Uses: ") {
			scripts = append(scripts, name)
		} else {
			preludes = append(preludes, name)
		}
	}
	return scripts, preludes
}

func scriptNames(t *testing.T) []string {
	t.Helper()
	scripts, _ := fileNames(t)
	return scripts
}

var (
	argument = regexp.MustCompile(`(?:KEYS|ARGV)\[\d+…?\]`)
	keyTypes = regexp.MustCompile(`^-- KEYS\[\d+\] +\w+ +(HASH|STREAM|ZSET|STRING)\b`)
)

// listedIn returns the arguments that a header lists, each on a line of its own, and the last of them if it
// stands for any number.
func listedIn(t *testing.T, name, header string) (arguments []string, repeated string) {
	t.Helper()
	for line := range strings.Lines(header) {
		switch {
		case !strings.HasPrefix(line, "--"):
			t.Errorf("%s.lua: header line %q is not a comment", name, line)
		case strings.HasPrefix(line, "-- KEYS[") && !keyTypes.MatchString(line):
			t.Errorf("%s.lua: no type in %q", name, line)
		case strings.HasPrefix(line, "-- KEYS[") || strings.HasPrefix(line, "-- ARGV["):
			if found := argument.FindString(line); strings.Contains(found, "…") {
				repeated = found
			} else {
				arguments = append(arguments, found)
			}
		}
	}
	return arguments, repeated
}

func TestScripts_HaveHeadersThatListExactlyWhatTheirBodiesTake(t *testing.T) {
	for _, name := range scriptNames(t) {
		header, body, ok := strings.Cut(read(name), "\n\n")
		if !ok || !strings.Contains(header, "\n-- Returns ") {
			t.Errorf("%s.lua: the header does not say what it returns, or no empty line follows it", name)
		}
		listed, repeated := listedIn(t, name, header)
		if used := argument.FindAllString(body, -1); !slices.Equal(used, listed) {
			t.Errorf("%s.lua: the header lists %v, the body uses %v", name, listed, used)
		}
		takesMore := strings.Contains(body, "#ARGV") || strings.Contains(body, "unpack(ARGV")
		fixed := strings.Count(strings.Join(listed, ""), "ARGV")
		want := ""
		if takesMore {
			want = fmt.Sprintf("ARGV[%d…]", fixed+1)
		}
		if repeated != want {
			t.Errorf("%s.lua: the header lists %q after %d arguments, the body takes more: %v",
				name, repeated, fixed, takesMore)
		}
	}
}

func TestScripts_AreShortAndReadTheirArgumentsOnce(t *testing.T) {
	scripts, preludes := fileNames(t)
	for _, name := range slices.Concat(scripts, preludes) {
		_, body, _ := strings.Cut(read(name), "\n\n")
		if lines := strings.Count(body, "\n"); lines > 60 {
			t.Errorf("%s.lua has %d lines below its header", name, lines)
		}
		for i, line := range strings.Split(read(name), "\n") {
			if utf8.RuneCountInString(line) > 110 {
				t.Errorf("%s.lua:%d has more than 110 columns", name, i+1)
			}
		}
		for _, found := range argument.FindAllString(body, -1) {
			if strings.Count(body, found) > 1 {
				t.Errorf("%s.lua reads %s more than once; name it", name, found)
			}
		}
	}
}

var (
	comment = regexp.MustCompile(`(?m)--.*$`)
	word    = regexp.MustCompile(`[A-Za-z_]+`)
	defined = regexp.MustCompile(`(?m)^local (?:function ([a-z_]+)|([A-Z_, ]+) =)`)
)

// wordsOf returns the words in the code of a file.
func wordsOf(name string) []string {
	return word.FindAllString(comment.ReplaceAllString(read(name), ""), -1)
}

// definitionsOf returns the functions and constants that a prelude defines for others.
func definitionsOf(prelude string) (names []string) {
	for _, match := range defined.FindAllStringSubmatch(read(prelude), -1) {
		names = append(names, word.FindAllString(match[1]+match[2], -1)...)
	}
	return names
}

func TestScripts_NameExactlyThePreludesThatTheyUse(t *testing.T) {
	scripts, preludes := fileNames(t)
	definedIn := map[string]string{}
	for _, prelude := range preludes {
		for _, name := range definitionsOf(prelude) {
			definedIn[name] = prelude
		}
	}
	for _, script := range scripts {
		named, used := uses(script), map[string]bool{}
		for i, prelude := range append(named, script) {
			for _, word := range wordsOf(prelude) {
				in := definedIn[word]
				if in == "" || in == prelude {
					continue
				}
				used[in] = true
				if !slices.Contains(named[:min(i, len(named))], in) {
					t.Errorf("%s.lua does not name %s.lua, which has %s", script, in, word)
				}
			}
		}
		for _, prelude := range named {
			if !used[prelude] {
				t.Errorf("%s.lua names %s.lua and uses nothing of it", script, prelude)
			}
		}
	}
}

func TestScripts_Load(t *testing.T) {
	redistest.Each(t, func(t *testing.T, server *redistest.Server) {
		client := server.Client()
		for _, name := range scriptNames(t) {
			server.Do(client, "SCRIPT", "LOAD", source(name))
		}
	})
}
