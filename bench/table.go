package main

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// row is one line of the table.
type row struct {
	what    string
	found   quantity
	floor   quantity // without a unit: there is none
	ofFloor string   // what the floor is
	text    string   // instead of a quantity
}

// quantity is a number and its unit.
type quantity struct {
	value float64
	unit  string
}

// against makes rows whose quantities are compared to a floor.
func against(ofFloor string) func(what string, found, floor quantity) row {
	return func(what string, found, floor quantity) row {
		return row{what: what, found: found, floor: floor, ofFloor: ofFloor}
	}
}

func seconds(d time.Duration) quantity { return quantity{d.Seconds(), " s"} }

func millis(d time.Duration) quantity { return quantity{float64(d.Microseconds()) / 1000, " ms"} }

// quantile is the value below which a share q of a sorted list lies.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// String gives three significant digits: no measurement here is better than that.
func (q quantity) String() string {
	switch {
	case q.value == 0:
		return "0" + q.unit
	case math.Abs(q.value) >= 100:
		step := math.Pow(10, math.Floor(math.Log10(math.Abs(q.value)))-2)
		return thousands(int64(math.Round(q.value/step)*step)) + q.unit
	default:
		return fmt.Sprintf("%.3g", q.value) + q.unit
	}
}

// thousands writes a number with commas.
func thousands(n int64) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func table(rows []row) string {
	var b strings.Builder
	b.WriteString("| | measured | floor | ÷ floor |\n|---|---:|---:|---:|\n")
	for _, r := range rows {
		found, floor, ratio := r.text, "", ""
		if found == "" {
			found = r.found.String()
		}
		if r.floor.unit != "" {
			floor = r.floor.String() + ", " + r.ofFloor
			ratio = quantity{r.found.value / r.floor.value, ""}.String()
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.what, found, floor, ratio)
	}
	return b.String()
}
