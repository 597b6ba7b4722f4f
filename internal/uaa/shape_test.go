package uaa

import (
	"testing"

	"rolecall/internal/apitest"
	"rolecall/internal/fault"
)

func TestShapes(t *testing.T) {
	doc := apitest.Load(t, "uaa.yaml")
	for name, v := range map[string]any{
		"TokenResponse": tokenResponse{},
		"Info":          infoResponse{},
		"Keys":          jsonWebKeys{},
		"Discovery":     discoveryResponse{},
		"User":          userResource{},
		"UserList":      list[userResource]{},
		"Group":         groupResource{},
		"GroupList":     list[groupResource]{},
		"Members":       []member{},
		"EmptyList":     list[struct{}]{},
		"IDList":        list[userID]{},
		"UserInfo":      userInfo{},
		"LockStatus":    lockStatus{},
		"ClientMeta":    clientMeta{},
		"Client":        clientResource{},
		"ClientList":    list[clientResource]{},
		"Status":        statusResponse{},
		"Error":         errorResponse{},
	} {
		doc.Shape(t, name, v)
	}
}

// Every kind has an answer in each table, and every word is in the document.
func TestTablesAreComplete(t *testing.T) {
	words := map[any]bool{}
	for _, word := range apitest.Load(t, "uaa.yaml").Spec().Components.Schemas["Error"].Value.Properties["error"].Value.Enum {
		words[word] = true
	}
	for _, c := range causeWords {
		if !words[c.word] {
			t.Errorf("the document lacks the word %s of %q", c.word, c.cause)
		}
	}
	for name, table := range map[string]errorTable{"token": tokenErrors, "scim": scimErrors, "client": clientErrors} {
		for _, kind := range fault.Kinds() {
			a, ok := table.kinds[kind]
			if !ok || a.status < 400 || !words[a.word] {
				t.Errorf("%s: kind %d is answered by %v", name, kind, a)
			}
		}
	}
}
