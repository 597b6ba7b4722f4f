package dbaas

import (
	"strconv"
	"time"

	"rolecall/internal/web"
)

// Resources and pages of them encode themselves: encoding/json takes longer for a page of users than PostgreSQL to find it.
// A test holds each to what encoding/json makes of the same struct.

// AppendJSON implements web.Appender.
func (r resource[P]) AppendJSON(b []byte) []byte {
	b = appendField(b, `{"type":`, r.Type)
	b = appendField(b, `,"id":`, r.ID)
	b = appendField(b, `,"href":`, r.Href)
	b = append(b, `,"metadata":`...)
	b = r.Metadata.appendJSON(b)
	b = append(b, `,"properties":`...)
	return append(r.Properties.appendJSON(b), '}')
}

func (p userProperties) appendJSON(b []byte) []byte {
	b = appendField(b, `{"username":`, p.Username)
	b = append(b, `,"system":`...)
	return append(strconv.AppendBool(b, p.System), '}')
}

func (p databaseProperties) appendJSON(b []byte) []byte {
	b = appendField(b, `{"name":`, p.Name)
	return append(appendField(b, `,"owner":`, p.Owner), '}')
}

func appendItems[P properties](b []byte, items []resource[P]) []byte {
	b = append(b, '[')
	for i, r := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = r.AppendJSON(b)
	}
	return append(b, ']')
}

// AppendJSON implements web.Appender.
func (l list[P]) AppendJSON(b []byte) []byte {
	b = appendField(b, `{"type":`, l.Type)
	b = appendField(b, `,"id":`, l.ID)
	b = appendField(b, `,"href":`, l.Href)
	b = append(b, `,"items":`...)
	if l.encoded != nil {
		b = append(b, l.encoded...)
	} else {
		b = appendItems(b, l.Items)
	}
	b = strconv.AppendInt(append(b, `,"offset":`...), int64(l.Offset), 10)
	b = strconv.AppendInt(append(b, `,"limit":`...), int64(l.Limit), 10)
	b = append(b, `,"_links":{`...)
	if l.Links.Prev != "" {
		b = append(appendField(b, `"prev":`, l.Links.Prev), ',')
	}
	b = appendField(b, `"self":`, l.Links.Self)
	if l.Links.Next != "" {
		b = appendField(b, `,"next":`, l.Links.Next)
	}
	return append(b, "}}"...)
}

func (m *metadata) appendJSON(b []byte) []byte {
	b = appendField(b, `{"createdBy":`, m.CreatedBy)
	if m.CreatedByUserID != "" {
		b = appendField(b, `,"createdByUserId":`, m.CreatedByUserID)
	}
	b = appendDate(b, `,"createdDate":"`, m.CreatedDate)
	if m.LastModifiedBy != "" {
		b = appendField(b, `,"lastModifiedBy":`, m.LastModifiedBy)
	}
	if m.LastModifiedByUserID != "" {
		b = appendField(b, `,"lastModifiedByUserId":`, m.LastModifiedByUserID)
	}
	b = appendDate(b, `,"lastModifiedDate":"`, m.LastModifiedDate)
	return append(appendField(b, `,"resourceURN":`, m.ResourceURN), '}')
}

func appendField(b []byte, key, value string) []byte {
	return web.AppendString(append(b, key...), value)
}

func appendDate(b []byte, key string, t *time.Time) []byte {
	if t == nil {
		return b
	}
	return append(t.AppendFormat(append(b, key...), time.RFC3339Nano), '"')
}
