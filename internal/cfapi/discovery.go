package cfapi

import (
	"math"
	"net/http"
	"net/url"
	"strings"

	"rolecall/internal/account"
	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/web"
)

// apiVersion is the version of the Cloud Foundry API that this dialect follows. Clients warn about an older version than
// they need, and choose features by it.
const apiVersion = "3.195.0"

type link struct {
	Href string `json:"href"`
}

type versionedLink struct {
	Href string      `json:"href"`
	Meta versionMeta `json:"meta"`
}

type versionMeta struct {
	Version string `json:"version"`
}

type rootResponse struct {
	Links rootLinks `json:"links"`
}

// rootLinks has all links that clients look for. A link to a service that does not exist is null.
type rootLinks struct {
	Self              link          `json:"self"`
	CloudControllerV3 versionedLink `json:"cloud_controller_v3"`
	Login             link          `json:"login"`
	UAA               link          `json:"uaa"`
	NetworkPolicyV0   *link         `json:"network_policy_v0"`
	NetworkPolicyV1   *link         `json:"network_policy_v1"`
	Credhub           *link         `json:"credhub"`
	Routing           *link         `json:"routing"`
	Logging           *link         `json:"logging"`
	LogCache          *link         `json:"log_cache"`
	LogStream         *link         `json:"log_stream"`
	AppSSH            *link         `json:"app_ssh"`
}

// root is the document that points clients to the API. A person with a browser is led to the console.
func (a *API) root(w http.ResponseWriter, r *http.Request, _ *account.Principal) error {
	w.Header().Add("Vary", "Accept")
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		http.Redirect(w, r, "/console/", http.StatusSeeOther)
		return nil
	}
	uaa := link{a.PublicURL + "/uaa"}
	web.JSON(w, http.StatusOK, jsonType, rootResponse{rootLinks{
		Self:              link{a.PublicURL},
		CloudControllerV3: versionedLink{a.PublicURL + Prefix, versionMeta{apiVersion}},
		Login:             uaa,
		UAA:               uaa,
	}})
	return nil
}

type indexResponse struct {
	Links indexLinks `json:"links"`
}

type indexLinks struct {
	Self          link `json:"self"`
	Organizations link `json:"organizations"`
	Spaces        link `json:"spaces"`
	Roles         link `json:"roles"`
	Users         link `json:"users"`
}

func (a *API) index(w http.ResponseWriter, _ *http.Request, _ *account.Principal) error {
	base := a.PublicURL + Prefix
	web.JSON(w, http.StatusOK, jsonType, indexResponse{indexLinks{
		Self:          link{base},
		Organizations: link{base + "/organizations"},
		Spaces:        link{base + "/spaces"},
		Roles:         link{base + "/roles"},
		Users:         link{base + "/users"},
	}})
	return nil
}

type infoResponse struct {
	Build         string     `json:"build"`
	CLIVersion    cliVersion `json:"cli_version"`
	Custom        struct{}   `json:"custom"`
	Description   string     `json:"description"`
	Name          string     `json:"name"`
	Version       int        `json:"version"`
	OSBAPIVersion string     `json:"osbapi_version"`
	RateLimits    rateLimits `json:"rate_limits"`
	Links         infoLinks  `json:"links"`
}

type cliVersion struct {
	Minimum     string `json:"minimum"`
	Recommended string `json:"recommended"`
}

// rateLimits are always numbers: one client fails on anything else.
type rateLimits struct {
	Enabled                bool `json:"enabled"`
	GeneralLimit           int  `json:"general_limit"`
	ResetIntervalInMinutes int  `json:"reset_interval_in_minutes"`
}

type infoLinks struct {
	Self    link `json:"self"`
	Support link `json:"support"`
}

func (a *API) info(w http.ResponseWriter, _ *http.Request, _ *account.Principal) error {
	perSecond := a.Door.PerAccount.PerSecond
	web.JSON(w, http.StatusOK, jsonType, infoResponse{
		Description: "PostgreSQL users as a service",
		Name:        "Rolecall",
		RateLimits:  rateLimits{perSecond > 0, int(math.Max(0, perSecond*60)), 1},
		Links:       infoLinks{link{a.PublicURL + Prefix + "/info"}, link{a.PublicURL + "/docs"}},
	})
	return nil
}

// noResources is the list of organizations or spaces, which clients read when they sign in. It is always empty.
func (a *API) noResources(w http.ResponseWriter, r *http.Request, _ *account.Principal) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	var problems problems
	page, perPage := q.page(&problems)
	if err := problems.fault(); err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, jsonType, emptyList{a.pagination(r.URL.Path, nil, page, perPage, 0), []struct{}{}})
	return nil
}

// noRoles is the list of roles in organizations and spaces. With include=user clients read the users of the roles, too.
func (a *API) noRoles(w http.ResponseWriter, r *http.Request, _ *account.Principal) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	var problems problems
	page, perPage := q.page(&problems)
	list := roleList{Resources: []struct{}{}}
	if q.Has("include") {
		list.Included = &included{}
		for _, what := range q.values("include") {
			switch what {
			case "user":
				list.Included.Users = &[]struct{}{}
			case "organization":
				list.Included.Organizations = &[]struct{}{}
			case "space":
				list.Included.Spaces = &[]struct{}{}
			default:
				problems.add("Include has an invalid resource: '%.80s'. Valid ones are: 'user', 'organization', 'space'", what)
			}
		}
	}
	if err := problems.fault(); err != nil {
		return err
	}
	shown := url.Values{}
	if q.Has("include") {
		shown.Set("include", q.Get("include"))
	}
	list.Pagination = a.pagination(r.URL.Path, shown, page, perPage, 0)
	web.JSON(w, http.StatusOK, jsonType, list)
	return nil
}

type roleList struct {
	Pagination pagination `json:"pagination"`
	Resources  []struct{} `json:"resources"`
	Included   *included  `json:"included,omitempty"`
}

type included struct {
	Users         *[]struct{} `json:"users,omitempty"`
	Organizations *[]struct{} `json:"organizations,omitempty"`
	Spaces        *[]struct{} `json:"spaces,omitempty"`
}

func (a *API) createRole(http.ResponseWriter, *http.Request, *account.Principal) error {
	return fault.New(fault.Invalid, "Roles are not offered here: there are no organizations and spaces")
}

type emptyList struct {
	Pagination pagination `json:"pagination"`
	Resources  []struct{} `json:"resources"`
}

func missing(detail string) door.HandlerFunc {
	return func(http.ResponseWriter, *http.Request, *account.Principal) error {
		return fault.New(fault.NotFound, "%s", detail)
	}
}
