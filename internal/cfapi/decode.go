package cfapi

import (
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/label"
	"rolecall/internal/web"
)

// maxBody leaves room for as many and as long annotations as a user may have, in UTF-8, and for escapes in many of them.
const maxBody = 8 << 20

// readBody reads the body as an object. A missing body is an empty object. Any other value is, as in the reference, an
// object with the one unknown field _json.
func readBody(w http.ResponseWriter, r *http.Request) (*web.Object, error) {
	if !web.HasBody(r) {
		return &web.Object{}, nil
	}
	v, err := web.Body(w, r, maxBody)
	if err != nil {
		return nil, err
	}
	if o, ok := v.(*web.Object); ok {
		return o, nil
	}
	return &web.Object{Keys: []string{"_json"}, Values: map[string]any{"_json": v}}, nil
}

// problems are all mistakes in a request. The caller gets them in one message.
type problems []string

func (ps *problems) add(format string, args ...any) { *ps = append(*ps, fmt.Sprintf(format, args...)) }

// check adds an Invalid fault's message behind a prefix.
func (ps *problems) check(prefix string, err error) {
	if err != nil {
		ps.add("%s%s", prefix, fault.Of(err).Message)
	}
}

func (ps problems) fault() error {
	if ps == nil {
		return nil
	}
	return fault.New(fault.Invalid, "%s", strings.Join(ps, ", "))
}

// unknown names the fields that are not accepted.
func (ps *problems) unknown(fields []string) {
	if len(fields) > 0 {
		ps.add("Unknown field(s): '%s'", strings.Join(fields, "', '"))
	}
}

const (
	maxGUID = 200
	maxName = 255
)

// decodeNew reads a user to create. null is the same as absent.
func decodeNew(body *web.Object) (n account.NewPlatformUser, err error) {
	var ps problems
	var unknown []string
	n.Labels, n.Annotations = ps.metadata(body)
	given := map[string]bool{}
	for _, key := range body.Keys {
		switch key {
		case "metadata":
		case "guid", "username", "origin":
			given[key] = body.Values[key] != nil
		default:
			unknown = append(unknown, key)
		}
	}
	if given["guid"] {
		var ok bool
		if n.GUID, ok = body.Values["guid"].(string); !ok {
			ps.add("Guid must be a string")
		}
		ps.length("Guid", n.GUID, maxGUID)
		if given["username"] {
			ps.add("Username cannot be provided with 'guid'")
		}
		if given["origin"] {
			ps.add("Origin cannot be provided with 'guid'")
		}
	} else {
		if given["username"] {
			n.Username = ps.text("Username", body.Values["username"])
		}
		if given["origin"] {
			n.Origin = ps.text("Origin", body.Values["origin"])
		}
		switch {
		case !given["username"] && !given["origin"]:
			ps.add("Guid or 'username' and 'origin' must be provided")
		case !given["username"]:
			ps.add(originAlone)
		case !given["origin"]:
			ps.add(usernameAlone)
		case n.Origin == account.LocalOrigin:
			ps.add("Origin cannot be 'uaa' when creating a user by username")
		}
	}
	ps.unknown(unknown)
	return n, ps.fault()
}

// decodeChange reads a change of a user. Fields that cannot be changed may be sent back as they were read; links are
// ignored.
func decodeChange(body *web.Object) (c account.PlatformChange, err error) {
	var ps problems
	var unknown []string
	c.Labels, c.Annotations = ps.metadata(body)
	for _, key := range body.Keys {
		v := body.Values[key]
		known := true
		switch key {
		case "metadata", "links":
		case "username":
			c.Username, c.Expected.NoUsername = ps.name("Username", v)
		case "origin":
			c.Origin, c.Expected.NoOrigin = ps.name("Origin", v)
		case "presentation_name":
			name := ""
			if v != nil {
				name = ps.text("Presentation name", v)
			}
			c.PresentationName = &name
		case "guid":
			var guid string
			guid, known = v.(string)
			c.Expected.GUID = &guid
		case "created_at":
			c.Expected.CreatedAt, known = stamped(v)
		case "updated_at":
			c.Expected.UpdatedAt, known = stamped(v)
		default:
			known = false
		}
		if !known {
			unknown = append(unknown, key)
		}
	}
	ps.unknown(unknown)
	return c, ps.fault()
}

// differing names the fields that a change may not change. The reference calls them unknown.
func differing(d account.Differences) error {
	var ps problems
	if d.Username {
		ps.add(notString, "Username")
	}
	if d.Origin {
		ps.add(notString, "Origin")
	}
	var unknown []string
	for _, field := range []struct {
		name    string
		differs bool
	}{{"guid", d.GUID}, {"created_at", d.CreatedAt}, {"updated_at", d.UpdatedAt}} {
		if field.differs {
			unknown = append(unknown, field.name)
		}
	}
	ps.unknown(unknown)
	return ps.fault()
}

// stamped reads a time, in any zone.
func stamped(v any) (*time.Time, bool) {
	s, _ := v.(string)
	t, err := time.Parse(time.RFC3339, s)
	return &t, err == nil
}

// name reads a username or origin. null stands for a user that has none.
func (ps *problems) name(title string, v any) (name *string, none bool) {
	if v == nil {
		return nil, true
	}
	text := ps.text(title, v)
	return &text, false
}

const notString = "%s must be a string"

// text reads a string of 1 to maxName characters.
func (ps *problems) text(title string, v any) string {
	s, ok := v.(string)
	if !ok {
		ps.add(notString, title)
		return ""
	}
	ps.length(title, s, maxName)
	return s
}

func (ps *problems) length(title, s string, most int) {
	if n := utf8.RuneCountInString(s); n < 1 || n > most {
		ps.add("%s must be between 1 and %d characters", title, most)
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		ps.add("%s cannot contain control characters", title)
	}
}

// metadata reads the labels and annotations of a body. Values are pointers: nil for null.
func (ps *problems) metadata(body *web.Object) (labels, annotations map[string]*string) {
	v, given := body.Get("metadata")
	if !given {
		return nil, nil
	}
	o, ok := v.(*web.Object)
	if !ok {
		ps.add("Metadata must be an object")
		return nil, nil
	}
	var unexpected []string
	for _, key := range o.Keys {
		if key != "labels" && key != "annotations" {
			unexpected = append(unexpected, "'"+key+"'")
		}
	}
	if unexpected != nil {
		ps.add("Metadata has unexpected field(s): %s", strings.Join(unexpected, " "))
	}
	return ps.entries(o, "label", label.CheckValue), ps.entries(o, "annotation", label.CheckAnnotation)
}

// entries reads one section of the metadata. null is the same as absent: one client always sends both sections.
func (ps *problems) entries(metadata *web.Object, kind string, checkValue func(string) error) map[string]*string {
	v := metadata.Values[kind+"s"]
	if v == nil {
		return nil
	}
	o, ok := v.(*web.Object)
	if !ok {
		ps.add("Metadata '%ss' is not an object", kind)
		return nil
	}
	entries := make(map[string]*string, len(o.Keys))
	for _, key := range o.Keys {
		v := o.Values[key]
		// An annotation that is older than the rules for its key can still be removed.
		if kind == "label" || v != nil {
			ps.check("Metadata "+kind+" key error: ", label.CheckKey(key))
		}
		switch v := v.(type) {
		case nil:
			entries[key] = nil
		case string:
			ps.check("Metadata "+kind+" value error: ", checkValue(v))
			entries[key] = &v
		default:
			ps.add("Metadata %s value error: the value of '%s' must be a string or null, not %s", kind, key, web.TypeName(v))
		}
	}
	return entries
}
