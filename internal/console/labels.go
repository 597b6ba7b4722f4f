package console

import (
	"regexp"
	"strconv"
)

// fieldLabels are the labels that forms give to fields of the API. A message of the domain names the field of the API.
var fieldLabels = map[string]string{
	"displayName":                 "Name",
	"location":                    "Location",
	"access.manage":               "May manage",
	"access.view":                 "May view",
	"grantable":                   "Roles that users may be given",
	"memberOf":                    "Roles that every new user gets",
	"systemRoles":                 "Protected roles",
	"leases.defaultTtl":           "A lease without a duration lasts",
	"leases.maxTtl":               "The longest lease",
	"leases.maxPerAccount":        "Leases of one account at a time",
	"synchronousCommit":           "synchronous_commit",
	"connection.systemIdentifier": "System identifier",
	"rotateEvery":                 "Replace the password every",
	"overlap":                     "Accept the replaced one for",
	"users.after":                 "After",
}

// A field is named as "The field NAME", with [N] for an element of a list, or by a name that is no word of English.
var apiField = regexp.MustCompile(`(?:The field ([A-Za-z.]+)|\b(leases\.maxTtl|rotateEvery))\b(?:\[(\d+)\])?`)

// withLabels is a message in which fields of the API have the labels of the form.
func withLabels(message string) string {
	return apiField.ReplaceAllStringFunc(message, func(found string) string {
		parts := apiField.FindStringSubmatch(found)
		label, known := fieldLabels[parts[1]+parts[2]]
		if !known {
			return found
		}
		if element, err := strconv.Atoi(parts[3]); err == nil {
			return "Line " + strconv.Itoa(element+1) + " of “" + label + "”"
		}
		return "“" + label + "”"
	})
}
