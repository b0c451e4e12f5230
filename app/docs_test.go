package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// documents reads all documents, by their path from the root of the repository.
func documents(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{"../*.md", "../docs/*.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			texts[strings.TrimPrefix(filepath.ToSlash(path), "../")] = readText(t, path)
		}
	}
	for _, name := range []string{"README.md", "CONTRIBUTING.md", "docs/api.md", "docs/protocol.md",
		"docs/limits.md"} {
		if texts[name] == "" {
			t.Fatalf("there is no %s", name)
		}
	}
	return texts
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var (
	fences   = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	codeSpan = regexp.MustCompile("`[^`\n]*`")
	links    = regexp.MustCompile(`\]\(([^()\s]*)\)`)
	headings = regexp.MustCompile(`(?m)^#{1,6} +(.+)$`)
	linkText = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

func TestDocs_EveryLinkLeadsToAFileAndAHeading(t *testing.T) {
	t.Parallel()
	texts := documents(t)
	found := 0
	for name, text := range texts {
		prose := codeSpan.ReplaceAllString(fences.ReplaceAllString(text, ""), "code")
		for _, link := range links.FindAllStringSubmatch(prose, -1) {
			target, anchor, _ := strings.Cut(link[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			found++
			place := name
			if target != "" {
				place = filepath.ToSlash(filepath.Join(filepath.Dir(name), target))
			}
			if _, err := os.Stat(filepath.Join("..", place)); err != nil || strings.HasPrefix(place, "..") {
				t.Errorf("%s links to %s, which is not there", name, link[1])
				continue
			}
			if other, isDocument := texts[place]; anchor != "" && (!isDocument || !anchors(other)[anchor]) {
				t.Errorf("%s links to %s, and there is no such heading", name, link[1])
			}
		}
	}
	if found < 50 {
		t.Errorf("found %d links: this test has gone blind", found)
	}
}

// anchors returns the anchors that GitHub makes of a document's headings.
func anchors(text string) map[string]bool {
	made := map[string]bool{}
	for _, heading := range headings.FindAllStringSubmatch(fences.ReplaceAllString(text, ""), -1) {
		words := linkText.ReplaceAllString(heading[1], "$1")
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(words))
		unique := anchor
		for n := 1; made[unique]; n++ {
			unique = anchor + "-" + strconv.Itoa(n)
		}
		made[unique] = true
	}
	return made
}

func TestDocs_READMEIsReadInThreeMinutes(t *testing.T) {
	t.Parallel()
	if lines := strings.Count(documents(t)["README.md"], "\n"); lines > 130 {
		t.Errorf("the README has %d lines, want at most 130", lines)
	}
}

// Lines of tables and code may be longer.
func TestDocs_ProseHas110Columns(t *testing.T) {
	t.Parallel()
	for name, text := range documents(t) {
		for line := range strings.Lines(fences.ReplaceAllString(text, "")) {
			line = strings.TrimRight(line, "\n")
			if utf8.RuneCountInString(line) > 110 && !strings.HasPrefix(strings.TrimSpace(line), "|") {
				t.Errorf("%s: %q has %d columns", name, line, utf8.RuneCountInString(line))
			}
		}
	}
}

func TestDocs_EveryRouteErrorCodeAndDropIsDocumented(t *testing.T) {
	t.Parallel()
	texts := documents(t)
	for _, is := range []struct {
		what, in, sources string
		named             *regexp.Regexp
		least             int // so that the expression does not go blind
	}{
		{"route", "docs/api.md", "../handlers/*.go",
			regexp.MustCompile(`(?:\be\.(?:GET|POST|DELETE)|\bs\.get)\("(/[a-z/:]*[a-z])"`), 13},
		{"error code", "docs/api.md", "../handlers/*.go",
			regexp.MustCompile(`\bproblem\(\s*[\w.()]+,\s*"(\w+)"`), 30},
		{"error code", "docs/protocol.md", "../handlers/sockets/frame.go",
			regexp.MustCompile(`(?m)^\s+code\w+ += "(\w+)"`), 10},
		{"reason of a drop", "docs/limits.md", "../app/metrics*.go",
			regexp.MustCompile(`m\.drops\("(\w+)"`), 14},
	} {
		paths, err := filepath.Glob(is.sources)
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			for _, name := range is.named.FindAllStringSubmatch(readText(t, path), -1) {
				found[name[1]] = true
			}
		}
		if len(found) < is.least {
			t.Errorf("found %d of every %s in %s, want at least %d: this test has gone blind",
				len(found), is.what, is.sources, is.least)
		}
		for name := range found {
			quoted := regexp.MustCompile("[` ]" + regexp.QuoteMeta(name) + "[`?]")
			if !quoted.MatchString(texts[is.in]) {
				t.Errorf("the %s %s is not in %s", is.what, name, is.in)
			}
		}
	}
}

// A token function that takes the page of an error for a token is refused again and again, and nobody sees
// why.
func TestDocs_EveryTokenFunctionChecksItsAnswer(t *testing.T) {
	t.Parallel()
	shown := 0
	for path, text := range documents(t) {
		for _, block := range fences.FindAllString(text, -1) {
			if !strings.Contains(block, "new Rollcall(") || !strings.Contains(block, "fetch(") {
				continue
			}
			if shown++; !strings.Contains(block, "response.ok") {
				t.Errorf("%s: a token function does not look at response.ok", path)
			}
		}
	}
	if shown < 2 { // in the README and in docs/protocol.md
		t.Errorf("%d token functions are shown", shown)
	}
}
