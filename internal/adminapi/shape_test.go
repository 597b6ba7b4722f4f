package adminapi

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"rolecall/internal/apitest"
	"rolecall/internal/audit"
	"rolecall/internal/fault"
	"rolecall/internal/web"
)

func TestShape(t *testing.T) {
	d := apitest.Load(t, "rolecall.yaml")
	for schema, v := range map[string]any{
		"Cluster":     clusterResource{},
		"ClusterList": list[clusterResource]{},
		"Whoami":      whoami{},
		"Access":      accessOfAccount{},
		"Problem":     problem{},

		"User":           userResource{},
		"UserList":       list[userResource]{},
		"NewUser":        userWithPassword{},
		"UserAccess":     userAccess{},
		"Level":          accessResource{},
		"UserConnection": userConnection{},
		"DeletionPlan":   deletionPlan{},
		"DatabasePlan":   databasePlan{},

		"DatabaseList":         list[databaseResource]{},
		"AccessRoles":          accessRolesResource{},
		"CompletedAccessRoles": completedAccessRoles{},

		"PasswordProblemList": list[passwordProblem]{},

		"LeaseList":         list[leaseResource]{},
		"NewLease":          newLease{},
		"CredentialList":    list[credentialResource]{},
		"CurrentCredential": currentCredential{},

		"OperationList":       list[operationResource]{},
		"StartedOperation":    startedOperation{},
		"OperationPlan":       operationPlan{},
		"OperationResultList": list[operationResult]{},

		"AccountList":         list[accountResource]{},
		"AccountWithPassword": accountWithPassword{},

		"TokenList":   list[tokenResource]{},
		"NewToken":    newToken{},
		"KeyRotation": keyRotation{},

		"WebhookList":       list[webhookResource]{},
		"WebhookWithSecret": webhookWithSecret{},
		"WebhookTest":       webhookTest{},
	} {
		d.Shape(t, schema, v)
	}
}

// Every kind of failure has an answer, in the form of RFC 9457.
func TestErrorTable(t *testing.T) {
	for _, kind := range fault.Kinds() {
		a, ok := answers[kind]
		if !ok || a.status < 400 || a.title == "" {
			t.Errorf("the kind %d is answered with %+v", kind, a)
			continue
		}
		w := httptest.NewRecorder()
		web.Handle(w, httptest.NewRequest(http.MethodGet, "/", nil),
			func(http.ResponseWriter, *http.Request) error { return fault.New(kind, "why") }, fail)
		if w.Code != a.status || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("the kind %d is answered with %d %s", kind, w.Code, w.Header())
		}
	}
	if len(answers) != len(fault.Kinds()) {
		t.Errorf("%d answers for %d kinds", len(answers), len(fault.Kinds()))
	}
}

func TestAuditShape(t *testing.T) {
	d := apitest.Load(t, "rolecall.yaml")
	for schema, v := range map[string]any{
		"AuditList":         list[audit.Line]{},
		"AuditVerification": verification{},
		"FailedSignInList":  list[failedSignIns]{},
	} {
		d.Shape(t, schema, v)
	}
}
