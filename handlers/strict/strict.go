// Package strict reads and writes JSON that no two programs can understand differently. What it reads is one
// object in UTF-8, and within it no field comes twice: one program would take the first of them, another the
// last.
package strict

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Decode reads one JSON object into v, and says what is wrong with any other text. No object in it may have a
// field twice: parsers differ in which of the two they take. Half of a surrogate pair passes, since data may
// have it.
func Decode(text []byte, v any, options ...json.Options) (fault string) {
	if len(bytes.TrimSpace(text)) == 0 {
		return "it is empty; want a JSON object"
	}
	if !utf8.Valid(text) {
		return "the JSON is not UTF-8"
	}
	if err := json.Unmarshal(text, v, append(options, jsontext.AllowInvalidUTF8(true))...); err != nil {
		return faultOf(err)
	}
	if jsontext.Value(text).Kind() != jsontext.KindBeginObject { // null
		return "want a JSON object, not null"
	}
	return ""
}

// jsonKinds are the kinds of JSON whose usual name is not that of the library.
var jsonKinds = map[jsontext.Kind]string{
	jsontext.KindBeginArray: "an array", jsontext.KindBeginObject: "an object",
	jsontext.KindTrue: "a boolean", jsontext.KindFalse: "a boolean",
}

// KindName is what people call a kind of JSON: "an array", "a string".
func KindName(kind jsontext.Kind) string { return cmp.Or(jsonKinds[kind], "a "+kind.String()) }

// faultOf says what is wrong with a JSON text, by the error of decoding it.
func faultOf(err error) string {
	var meaning *json.SemanticError
	var syntax *jsontext.SyntacticError
	switch {
	case errors.As(err, &meaning):
		return semanticFault(meaning)
	case errors.Is(err, jsontext.ErrDuplicateName) && errors.As(err, &syntax):
		return fmt.Sprintf("the field %q comes twice", syntax.JSONPointer.LastToken())
	case errors.As(err, &syntax):
		return fmt.Sprintf("not JSON: %v, at byte %d", syntax.Err, syntax.ByteOffset+1)
	}
	return err.Error()
}

func semanticFault(err *json.SemanticError) string {
	field, kind := strings.TrimPrefix(string(err.JSONPointer), "/"), KindName(err.JSONKind)
	want := "a " + fmt.Sprint(err.GoType)
	if err.GoType == reflect.TypeFor[*float64]() || err.GoType == reflect.TypeFor[float64]() {
		want = "a number"
	}
	switch {
	case errors.Is(err, json.ErrUnknownName):
		return fmt.Sprintf("unknown field %q", err.JSONPointer.LastToken())
	case field == "":
		return "want a JSON object, not " + kind
	}
	return fmt.Sprintf("%s: want %s, not %s", field, want, kind)
}

// Marshal writes values of our own types. It panics if there is one that no JSON can express.
func Marshal(v any) jsontext.Value {
	text, err := json.Marshal(v, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic(err)
	}
	return text
}

// AppendString appends a string as JSON. What is not UTF-8 is replaced.
func AppendString(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s)
	return b
}
