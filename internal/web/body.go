package web

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"rolecall/internal/fault"
)

// maxDepth is how deep a body may nest. The deepest that any of our documents describes is four.
const maxDepth = 32

// maxValues is how many values a body may hold, keys not counted. A list of ones takes thirty times its length in memory.
const maxValues = 10_000

// Body reads the request's body as JSON: at most limit bytes of UTF-8, one value, no key twice in an object. A body
// without a Content-Type is taken as JSON. The result is nil, bool, string, json.Number, []any or *Object.
//
// It is decoded into values instead of structs because encoding/json matches field names in any case, lets the last of
// two equal keys win, and cannot tell an absent field from a null one.
func Body(w http.ResponseWriter, r *http.Request, limit int64) (any, error) {
	if err := checkMediaType(r.Header.Get("Content-Type")); err != nil {
		return nil, err
	}
	data, err := readBody(w, r, limit)
	if err != nil {
		return nil, err
	}
	return ParseJSON(data)
}

// ReadAhead returns the request's body, at most limit bytes, and leaves it to be read again.
func ReadAhead(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	data, err := readBody(w, r, limit)
	r.Body = io.NopCloser(bytes.NewReader(data))
	return data, err
}

func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	data, err := read(r.Context(), http.MaxBytesReader(w, r.Body, limit))
	if err == nil {
		return data, nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return nil, err
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, fault.New(fault.TooLarge, "The body is larger than %d bytes.", limit)
	}
	return nil, fault.New(fault.Malformed, "The body could not be read.").Because(err)
}

// read reads a small body at once, and the rest of a large one when it has a slot.
func read(ctx context.Context, body io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(body, small))
	if err != nil || len(data) < small {
		return data, err
	}
	if err := InfoOf(ctx).takeLargeBodySlot(ctx); err != nil {
		return nil, err
	}
	rest, err := io.ReadAll(body)
	return append(data, rest...), err
}

// ObjectBody is Body for a request whose body must be an object.
func ObjectBody(w http.ResponseWriter, r *http.Request, limit int64) (*Object, error) {
	body, err := Body(w, r, limit)
	if err != nil {
		return nil, err
	}
	o, ok := body.(*Object)
	if !ok {
		return nil, fault.New(fault.Invalid, "The body must be an object, not %s.", TypeName(body))
	}
	return o, nil
}

// HasBody reports whether a request has a body, of which it reads ahead: a chunked one may be empty.
func HasBody(r *http.Request) bool {
	buffered := bufio.NewReader(r.Body)
	_, err := buffered.Peek(1)
	r.Body = struct {
		io.Reader
		io.Closer
	}{buffered, r.Body}
	return err != io.EOF
}

func checkMediaType(contentType string) error {
	if contentType == "" {
		return nil
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err == nil && (media == "application/json" || media == "text/json" ||
		strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+json")) {
		return nil
	}
	return fault.New(fault.MediaType, "Unsupported Content-Type %q; send application/json (with curl: --json).",
		contentType)
}

// Object is a JSON object with its keys in the order in which they were sent.
type Object struct {
	Keys   []string
	Values map[string]any
}

// Get returns the value of a key, and whether the key is there: null is there.
func (o *Object) Get(key string) (any, bool) {
	v, ok := o.Values[key]
	return v, ok
}

// ParseJSON is Body for bytes that are in memory.
func ParseJSON(data []byte) (any, error) {
	// Editors on Windows write a byte order mark. It shows in none of them.
	for _, mark := range []string{"\ufeff", "\xff\xfe", "\xfe\xff"} {
		if bytes.HasPrefix(data, []byte(mark)) {
			return nil, fault.New(fault.Malformed, "The body begins with a byte order mark (BOM). Send it as UTF-8 without one.")
		}
	}
	if !utf8.Valid(data) {
		return nil, fault.New(fault.Malformed, "The body is not valid UTF-8.")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	left := maxValues
	v, err := value(d, 0, &left)
	if err == nil {
		if _, err = d.Token(); err == io.EOF {
			err = checkSurrogates(data)
		} else {
			err = fault.New(fault.Malformed, "The body holds more than one JSON value.")
		}
	}
	if err == nil {
		return v, nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return nil, err
	}
	if err == io.EOF && len(bytes.TrimSpace(data)) == 0 {
		return nil, fault.New(fault.Malformed, "The body is empty; JSON is expected.")
	}
	return nil, fault.New(fault.Malformed, "The body is not valid JSON, at byte %d of %d.", d.InputOffset(), len(data))
}

// value reads one value, and counts it off from left.
func value(d *json.Decoder, depth int, left *int) (any, error) {
	if depth > maxDepth {
		return nil, fault.New(fault.Malformed, "The body nests deeper than %d levels.", maxDepth)
	}
	if *left--; *left < 0 {
		return nil, fault.New(fault.Malformed, "The body holds more than %d values.", maxValues)
	}
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		o := &Object{Values: map[string]any{}}
		for d.More() {
			k, err := d.Token()
			if err != nil {
				return nil, err
			}
			key := k.(string)
			if _, twice := o.Values[key]; twice {
				// Not named: what a caller took for a key may be anything, a password too, and the message is logged.
				return nil, fault.New(fault.Malformed, "The body holds a key twice in one object, at byte %d.", d.InputOffset())
			}
			v, err := value(d, depth+1, left)
			if err != nil {
				return nil, err
			}
			o.Keys = append(o.Keys, key)
			o.Values[key] = v
		}
		_, err = d.Token()
		return o, err
	case json.Delim('['):
		a := []any{}
		for d.More() {
			v, err := value(d, depth+1, left)
			if err != nil {
				return nil, err
			}
			a = append(a, v)
		}
		_, err = d.Token()
		return a, err
	}
	return t, nil
}

// checkSurrogates refuses a lone UTF-16 surrogate escape (\ud83d without its pair): encoding/json turns it into U+FFFD,
// and a password would silently become another one.
func checkSurrogates(data []byte) error {
	for i := 0; i+1 < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		i++
		hi, ok := escape(data[i:])
		if !ok || hi < 0xd800 || hi > 0xdfff {
			continue
		}
		if hi < 0xdc00 && len(data) > i+6 && data[i+5] == '\\' {
			if lo, ok := escape(data[i+6:]); ok && 0xdc00 <= lo && lo <= 0xdfff {
				i += 10
				continue
			}
		}
		return fault.New(fault.Malformed, "The body holds half of a surrogate pair (\\u%04x), which is no character.", hi)
	}
	return nil
}

// escape reads `uXXXX`.
func escape(b []byte) (rune, bool) {
	if len(b) < 5 || b[0] != 'u' {
		return 0, false
	}
	r, err := strconv.ParseUint(string(b[1:5]), 16, 16)
	return rune(r), err == nil
}

// TypeName is what a decoded value is called in a message.
func TypeName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case string:
		return "a string"
	case json.Number:
		return "a number"
	case []any:
		return "an array"
	}
	return "an object"
}
