package main

import (
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rollcall/lua/redistest"
)

// mayImport is the import table. It says for each package, by its path below the module, which of our own
// packages it may import, and which of the libraries that shape the design. Tests may import anything, and so
// may packages that only tests use.
var mayImport = map[string][]string{
	"lua":                {"rueidis"},
	"presence":           {"lua", "rueidis"},
	"fanout":             {"presence", "lua", "rueidis"},
	"fanout/idempotency": {"presence", "lua"},
	"handlers": {
		"presence", "fanout", "fanout/idempotency",
		"handlers/panics", "handlers/sockets", "handlers/strict", "echo",
	},
	"handlers/sockets": {
		"presence", "fanout", "handlers/nbconn", "handlers/panics", "handlers/strict", "melody",
	},
	"handlers/nbconn": {},
	"handlers/panics": {},
	"handlers/strict": {},
	"static":          {},
	"app": {
		"presence", "fanout", "fanout/idempotency", "handlers", "handlers/sockets", "static",
		"app/gctune", "app/jwks", "app/redis",
	},
	"app/gctune": {},
	"app/jwks":   {"handlers"},
	"app/redis":  {"rueidis", "miniredis"},
	"bench":      {"presence", "rueidis", "echo"},
}

// shaping are the libraries that the table speaks of, by a part of their import path.
var shaping = map[string]string{
	"github.com/redis/rueidis":      "rueidis",
	"github.com/labstack/echo":      "echo",
	"github.com/olahol/melody":      "melody",
	"github.com/alicebob/miniredis": "miniredis",
}

// testsOnly are the packages that only tests use.
var testsOnly = map[string]bool{"lua/redistest": true}

func TestImports_GoOneWay(t *testing.T) {
	for folder, files := range sources(t) {
		allowed, known := mayImport[folder]
		if !known {
			t.Errorf("the folder %s is not in the table", folder)
			continue
		}
		for name, file := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			for _, spec := range file.Imports {
				path, _ := strconv.Unquote(spec.Path.Value)
				if imported := designed(path); imported != "" && !slices.Contains(allowed, imported) {
					t.Errorf("%s/%s imports %s", folder, name, path)
				}
			}
		}
	}
}

// designed is the name that the table has for an import; empty if the table says nothing about it.
func designed(path string) string {
	for prefix, name := range shaping {
		if strings.HasPrefix(path, prefix) {
			return name
		}
	}
	if ours, ok := strings.CutPrefix(path, "rollcall/"); ok {
		return ours
	}
	return ""
}

// The one file that knows Melody says in its comment what Melody does for us.
func TestMelody_StandsInOneFile(t *testing.T) {
	var files []string
	for folder, inFolder := range sources(t) {
		for name, file := range inFolder {
			for _, spec := range file.Imports {
				path, _ := strconv.Unquote(spec.Path.Value)
				if designed(path) == "melody" && !strings.HasSuffix(name, "_test.go") {
					files = append(files, folder+"/"+name)
				}
			}
		}
	}
	if !slices.Equal(files, []string{"handlers/sockets/melody.go"}) {
		t.Errorf("Melody is imported by %v", files)
	}
}

func TestPackages_HaveOneDocComment(t *testing.T) {
	for folder, files := range sources(t) {
		var documented []string
		for name, file := range files {
			if file.Doc == nil || strings.HasSuffix(name, "_test.go") {
				continue
			}
			documented = append(documented, name)
			if lines := strings.Count(file.Doc.Text(), "\n"); lines < 2 || lines > 15 && name != "doc.go" {
				t.Errorf("%s/%s has a doc comment of %d lines: want the model, and over 15 lines a doc.go",
					folder, name, lines)
			}
		}
		if len(documented) != 1 {
			t.Errorf("%s is documented in %v, want one file", folder, documented)
		}
	}
}

func TestPackages_AreInTheLayoutOfTheDocuments(t *testing.T) {
	layout := readText(t, "../docs/architecture.md")
	for folder := range mayImport {
		if !strings.Contains(layout, "[`"+folder+"`](") {
			t.Errorf("docs/architecture.md does not say what %s is for", folder)
		}
	}
}

func TestFolders_AreThoseOfTheDesign(t *testing.T) {
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		_, known := mayImport[entry.Name()]
		if entry.IsDir() && !known && entry.Name() != "docs" && !strings.HasPrefix(entry.Name(), ".") {
			t.Errorf("there is a folder %s", entry.Name())
		}
	}
}

func TestDocuments_HaveAHandlerThatCompiles(t *testing.T) {
	redistest.StartsProcess(t, "go build")
	_, after, ok := strings.Cut(readText(t, "../CONTRIBUTING.md"), "```go\n")
	code, _, closed := strings.Cut(after, "```")
	if !ok || !closed {
		t.Fatal("CONTRIBUTING.md shows no handler")
	}
	dir := t.TempDir()
	file, overlay := filepath.Join(dir, "whoami.go"), filepath.Join(dir, "overlay.json")
	place, _ := filepath.Abs("../handlers/sockets/whoami.go")
	for path, text := range map[string][]byte{file: []byte(code),
		overlay: marshal(t, map[string]any{"Replace": map[string]string{place: file}})} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("go", "build", "-overlay", overlay,
		"../handlers").CombinedOutput(); err != nil {
		t.Errorf("%s", out)
	}
}

// sources parses all Go files, by the path of their package and then by their name.
func sources(t *testing.T) map[string]map[string]*ast.File {
	t.Helper()
	folders := map[string]map[string]*ast.File{}
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" {
			return err
		}
		rel, _ := filepath.Rel("..", filepath.Dir(path))
		folder, name := filepath.ToSlash(rel), filepath.Base(path)
		if testsOnly[folder] {
			return nil
		}
		file, err := parser.ParseFile(gotoken.NewFileSet(), path, nil,
			parser.ParseComments|parser.ImportsOnly)
		if err != nil {
			return err
		}
		if folders[folder] == nil {
			folders[folder] = map[string]*ast.File{}
		}
		folders[folder][name] = file
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return folders
}
