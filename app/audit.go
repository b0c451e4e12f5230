package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"rollcall/presence"
)

// auditCommand asks a running instance for an audit of all instances, and prints it.
type auditCommand struct {
	URL    string `default:"http://127.0.0.1:8080" help:"Address of any instance."`
	APIKey string `name:"api-key" required:"" placeholder:"KEY" help:"One of its keys. Better in the variable: others here can see flags."`
}

func (a *auditCommand) run(out io.Writer) error {
	request, err := http.NewRequest(http.MethodGet, strings.TrimSuffix(a.URL, "/")+"/audit", nil)
	if err != nil {
		return fmt.Errorf("--url (ROLLCALL_URL): %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+a.APIKey)
	client := http.Client{Timeout: requestTimeout}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer struct {
		Instances  []presence.Audit
		Unanswered []string
		Detail     string
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s did not answer like Rollcall: %w", a.URL, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers: %s", a.URL, answer.Detail)
	}
	return printAudits(out, answer.Instances, answer.Unanswered)
}

// printAudits prints a table. It returns an error if there are differences, or instances that did not answer.
func printAudits(out io.Writer, audits []presence.Audit, unanswered []string) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "INSTANCE\tUSERS\tENTRIES\tMISSING\tGHOSTS\tOLDEST")
	differences := 0
	for _, audit := range audits {
		oldest := time.Duration(audit.OldestSeconds * float64(time.Second)).Round(time.Millisecond)
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%v\n",
			audit.Instance, audit.Users, audit.Entries, audit.Missing, audit.Ghosts, oldest)
		differences += audit.Missing + audit.Ghosts
	}
	for _, instance := range unanswered {
		fmt.Fprintf(table, "%s\tdid not answer\n", instance)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	var faults []string
	if differences > 0 {
		faults = append(faults, fmt.Sprintf("differences, which are being mended: %d", differences))
	}
	if len(unanswered) > 0 {
		faults = append(faults, fmt.Sprintf("instances that did not answer: %d", len(unanswered)))
	}
	if len(faults) > 0 {
		return fmt.Errorf("%s; ask again", strings.Join(faults, "; "))
	}
	return nil
}
