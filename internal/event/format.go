package event

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"rolecall/internal/audit"
)

// Format is how an export writes events.
type Format string

// The formats.
const (
	JSON Format = "json" // as `rolecall audit export` has them
	OCSF Format = "ocsf" // https://schema.ocsf.io
)

// noticeLine is a notice in an export.
type noticeLine struct {
	Kind string    `json:"notice"`
	Time time.Time `json:"time"`
	*Notice
	audit.PointLine // where the export continues
}

// line is the event as an export in JSON has it. Each has seq and mac: they are how far the receiver is.
func (e *Event) line() any {
	if e.Row == nil {
		return noticeLine{e.Type, e.Time, e.Notice, e.Behind.Line()}
	}
	line := e.Row.Line()
	line.MAC = hex.EncodeToString(e.Row.MAC)
	return line
}

// encode writes events, each on a line.
func (f Format) encode(events []Event, version string) ([]byte, error) {
	var lines bytes.Buffer
	encoder := json.NewEncoder(&lines)
	encoder.SetEscapeHTML(false)
	for i := range events {
		v := events[i].line()
		if f == OCSF {
			v = ocsfOf(&events[i], version)
		}
		if err := encoder.Encode(v); err != nil {
			return nil, err
		}
	}
	return lines.Bytes(), nil
}

// cursorOf returns how far an export is whose last line this is, in whatever format.
func cursorOf(line []byte) (audit.Point, error) {
	var l struct {
		audit.PointLine
		Unmapped audit.PointLine `json:"unmapped"`
	}
	if err := json.Unmarshal(line, &l); err != nil {
		return audit.Point{}, err
	}
	place := l.PointLine
	if place.Seq == 0 {
		place = l.Unmapped
	}
	mac, err := hex.DecodeString(place.MAC)
	if err != nil || len(mac) == 0 || place.Seq < 1 {
		return audit.Point{}, fmt.Errorf("it has no seq and mac")
	}
	return audit.Point{Seq: place.Seq, MAC: mac}, nil
}
