package uaa

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"rolecall/internal/fault"
)

// choose returns the resources with some of their attributes, each under the name by which it was asked for, as the UAA
// does. A dot leads into an attribute: emails.value are the addresses alone.
func choose[T any](resources []T, asked []string) ([]map[string]any, error) {
	paths := map[string][]string{}
	for _, name := range asked {
		name = strings.TrimSpace(name)
		path, ok := attributePath(reflect.TypeFor[T](), strings.Split(name, "."))
		if !ok {
			return nil, fault.New(fault.Malformed, "There is no attribute %.80q to show.", name)
		}
		paths[name] = path
	}
	chosen := make([]map[string]any, len(resources))
	for n, resource := range resources {
		text, err := json.Marshal(resource)
		if err != nil {
			return nil, err
		}
		var whole any
		if err := json.Unmarshal(text, &whole); err != nil {
			return nil, err
		}
		chosen[n] = map[string]any{}
		for name, path := range paths {
			if value := follow(whole, path); value != nil {
				chosen[n][name] = value
			}
		}
	}
	return chosen, nil
}

// attributePath finds the exact names of a path that is written in any case, by the tags of a type.
func attributePath(t reflect.Type, asked []string) (path []string, ok bool) {
	for t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if len(asked) == 0 {
		return nil, true
	}
	if t.Kind() != reflect.Struct {
		return nil, false
	}
	for _, field := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if strings.EqualFold(name, asked[0]) {
			rest, ok := attributePath(field.Type, asked[1:])
			return slices.Insert(rest, 0, name), ok
		}
	}
	return nil, false
}

func follow(v any, path []string) any {
	switch v := v.(type) {
	case map[string]any:
		if len(path) > 0 {
			return follow(v[path[0]], path[1:])
		}
	case []any:
		if len(path) > 0 {
			parts := make([]any, len(v))
			for n, part := range v {
				parts[n] = follow(part, path)
			}
			return parts
		}
	}
	return v
}
