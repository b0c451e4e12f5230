package main

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

const ourVariables = "ROLLCALL_" // the prefix of every setting's variable

// otherVariables match names that begin with the prefix and are no settings: those of container images and of
// our own tests, and those that Kubernetes sets for services called rollcall or rollcall-something.
var otherVariables = regexp.MustCompile(`^ROLLCALL_(VERSION|TEST_.*` +
	`|(.*_)?SERVICE_(HOST|PORT)(_.*)?|(.*_)?PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// mayBeEmpty are the settings for which empty means the same as not given, and allows nothing more.
var mayBeEmpty = []string{"allowed-origins", "pprof-addr"}

// checkEnvironment refuses variables that are misspelt, because they would be ignored. It also refuses those
// that are set and empty: something failed to fill them in, and what they should restrict would stay open.
func checkEnvironment(parser *kong.Kong, environment []string) error {
	settings := map[string]string{} // by variable
	collectVariables(parser.Model.Node, settings)
	for _, entry := range environment {
		variable, value, _ := strings.Cut(entry, "=")
		setting, known := settings[variable]
		switch {
		case !strings.HasPrefix(variable, ourVariables):
		case known && value == "" && !slices.Contains(mayBeEmpty, setting):
			return fmt.Errorf("%s is set, but empty: give it a value, or do not set it", variable)
		case !known && !otherVariables.MatchString(variable):
			return fmt.Errorf("%s is no setting of Rollcall: do you mean %s? --help lists all",
				variable, nearest(variable, settings))
		}
	}
	return nil
}

// checkAuditKey refuses ROLLCALL_API_KEY, the variable of the audit command, if an instance is to run that
// was given no API keys. ROLLCALL_API_KEYS must be meant; without it the instance would start in development
// mode.
func checkAuditKey(command *kong.Context, environment []string) error {
	given := func(variable string) bool {
		return slices.ContainsFunc(environment, func(entry string) bool {
			return strings.HasPrefix(entry, variable+"=")
		})
	}
	onFlag := slices.ContainsFunc(command.Path, func(p *kong.Path) bool {
		return p.Flag != nil && p.Flag.Name == "api-keys"
	})
	if command.Command() == "audit" || onFlag || given("ROLLCALL_API_KEYS") || !given("ROLLCALL_API_KEY") {
		return nil
	}
	return fmt.Errorf("ROLLCALL_API_KEY is a setting of rollcall audit only: do you mean ROLLCALL_API_KEYS?")
}

func collectVariables(node *kong.Node, settings map[string]string) {
	for _, flag := range node.Flags {
		for _, variable := range flag.Envs {
			settings[variable] = flag.Name
		}
	}
	for _, child := range node.Children {
		collectVariables(child, settings)
	}
}

// checkFlags refuses flags that are given and empty, as in --redis-url=$UNSET.
func checkFlags(command *kong.Context) error {
	for _, part := range command.Path {
		if part.Flag == nil || slices.Contains(mayBeEmpty, part.Flag.Name) {
			continue
		}
		switch value := part.Flag.Target; value.Kind() {
		case reflect.String, reflect.Slice:
			if value.Len() == 0 {
				return fmt.Errorf("--%s is given, but empty: give it a value, or leave it out",
					part.Flag.Name)
			}
		}
	}
	return nil
}

// nearest is the variable that takes the fewest changes of a letter, so the one that was probably meant.
func nearest(misspelt string, settings map[string]string) (found string) {
	fewest := -1
	for variable := range settings {
		changes := distance(misspelt, variable)
		if fewest < 0 || changes < fewest || changes == fewest && variable < found {
			found, fewest = variable, changes
		}
	}
	return found
}

// distance is the Levenshtein distance: how many letters must be put in, left out or changed to make a into
// b.
func distance(a, b string) int {
	row := make([]int, len(b)+1) // row[j]: the distance from a[:i] to b[:j]
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			changed := diagonal
			if a[i] != b[j] {
				changed++
			}
			diagonal = row[j+1]
			row[j+1] = min(changed, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
