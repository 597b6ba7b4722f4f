package dbaas

import (
	"net/http/httptest"
	"testing"

	"rolecall/internal/apitest"
	"rolecall/internal/fault"
)

func TestShape(t *testing.T) {
	d := apitest.Load(t, "dbaas.yaml")
	for schema, v := range map[string]any{
		"UserResource":        userResource{},
		"UserList":            userList{},
		"ClusterResource":     clusterResource{},
		"ClusterList":         clusterList{},
		"DatabaseResource":    resource[databaseProperties]{},
		"DatabaseList":        list[databaseProperties]{},
		"PostgresVersionList": versionList{},
		"ApiVersion":          apiVersion{},
		"BackupList":          backupList{},
		"ClusterLogs":         clusterLogs{},
		"ErrorResponse":       errorResponse{},
	} {
		d.Shape(t, schema, v)
	}
}

// Every kind of failure has an answer, and the document has its code.
func TestErrorTable(t *testing.T) {
	codes := map[any]bool{}
	schemas := apitest.Load(t, "dbaas.yaml").Spec().Components.Schemas
	for _, code := range schemas["ErrorMessage"].Value.Properties["errorCode"].Value.Enum {
		codes[code] = false
	}
	for _, kind := range fault.Kinds() {
		a, ok := answers[kind]
		if _, documented := codes[a.code]; !ok || !documented || a.status < 400 {
			t.Errorf("the kind %d is answered with %+v", kind, a)
			continue
		}
		codes[a.code] = true
		w := httptest.NewRecorder()
		fail(w, httptest.NewRequest("GET", "/", nil), fault.New(kind, "why"))
		if w.Code != a.status || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("the kind %d is answered with %d %s", kind, w.Code, w.Header())
		}
	}
	for code, used := range codes {
		if !used {
			t.Errorf("nothing is answered with the code %s of the document", code)
		}
	}
	if len(answers) != len(fault.Kinds()) {
		t.Errorf("%d answers for %d kinds", len(answers), len(fault.Kinds()))
	}
}
