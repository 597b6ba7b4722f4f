package cfapi

import (
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/label"
	"rolecall/internal/web"
)

type userList struct {
	Pagination pagination `json:"pagination"`
	Resources  []user     `json:"resources"`
}

type pagination struct {
	TotalResults int64 `json:"total_results"`
	TotalPages   int64 `json:"total_pages"`
	First        link  `json:"first"`
	Last         link  `json:"last"`
	Next         *link `json:"next"`
	Previous     *link `json:"previous"`
}

func (a *API) listUsers(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	l, err := q.list()
	if err != nil {
		return err
	}
	users, total, err := a.Accounts.ListPlatform(r.Context(), p, l.filter)
	if err != nil {
		return err
	}
	list := userList{a.pagination(Prefix+"/users", l.shown, l.page, l.perPage, total), make([]user, len(users))}
	for i, u := range users {
		list.Resources[i] = a.present(u)
	}
	web.JSON(w, http.StatusOK, jsonType, list)
	return nil
}

// pagination makes the links of a page, which contain the requested filters and order. There is at least one page. A page
// past the end is empty, and its previous page is the last.
func (a *API) pagination(path string, shown url.Values, page, perPage, total int64) pagination {
	pages := max(1, (total+perPage-1)/perPage)
	at := func(page int64) *link {
		values := url.Values{"page": {strconv.FormatInt(page, 10)}, "per_page": {strconv.FormatInt(perPage, 10)}}
		for name, value := range shown {
			values[name] = value
		}
		return &link{a.PublicURL + path + "?" + values.Encode()}
	}
	pg := pagination{TotalResults: total, TotalPages: pages, First: *at(1), Last: *at(pages)}
	if page < pages {
		pg.Next = at(page + 1)
	}
	if page > 1 {
		pg.Previous = at(min(page-1, pages))
	}
	return pg
}

// query is the query string of one request.
type query struct{ url.Values }

func parseQuery(r *http.Request) (query, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return query{}, fault.New(fault.Malformed, "The query string cannot be decoded.").Because(errQuery)
	}
	return query{values}, nil
}

const (
	defaultPerPage = 50
	maxPerPage     = 5000
)

// page reads the number of the requested page and the length of pages.
func (q query) page(ps *problems) (page, perPage int64) {
	page, perPage = 1, defaultPerPage
	if q.Has("page") {
		page = positive(q.Get("page"))
	}
	if q.Has("per_page") {
		perPage = positive(q.Get("per_page"))
	}
	switch {
	case page == 0:
		ps.add("Page must be a positive integer")
	case perPage == 0:
		ps.add("Per page must be a positive integer")
	case perPage > maxPerPage:
		ps.add("Per page must be between 1 and %d", maxPerPage)
	case page > math.MaxInt64/perPage:
		ps.add("Maximum result (page * per_page) must be less than %d", math.MaxInt64)
	}
	return page, perPage
}

// positive is the integer, or 0. One that is too large becomes the largest.
func positive(s string) int64 {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0
	}
	n, _ := strconv.ParseInt(s, 10, 64) // what is out of range comes back as the largest
	return n
}

// list is a request for a list of users.
type list struct {
	page, perPage int64
	filter        account.PlatformFilter
	// shown are the parameters that the links to other pages contain.
	shown url.Values
}

// listParameters are all parameters of a list. Those of times may have an operator, as in created_ats[lt].
var listParameters = []string{"page", "per_page", "order_by", "created_ats", "updated_ats", "guids", "usernames",
	"partial_usernames", "origins", "label_selector"}

func (q query) list() (*list, error) {
	var ps problems
	l := &list{shown: url.Values{}}
	q.checkNames(&ps)
	l.page, l.perPage = q.page(&ps)
	l.filter.OrderBy, l.filter.Descending = q.order(&ps)
	f := &l.filter
	f.Created = q.times("Created ats", "created_ats", &ps)
	f.Updated = q.times("Updated ats", "updated_ats", &ps)
	f.GUIDs, f.Usernames = q.filter("guids", maxValues, &ps), q.filter("usernames", maxValues, &ps)
	f.PartialUsernames, f.Origins = q.filter("partial_usernames", maxPatterns, &ps), q.filter("origins", maxValues, &ps)
	if f.Usernames != nil && f.PartialUsernames != nil {
		ps.add("Usernames filter cannot be provided with both usernames and partial_usernames filter.")
	}
	if f.Origins != nil && f.Usernames == nil && f.PartialUsernames == nil {
		ps.add("Origins filter cannot be provided without usernames or partial_usernames filter.")
	}
	if q.Has("label_selector") {
		var err error
		f.Selector, err = label.Parse(q.Get("label_selector"))
		ps.check("", err)
		values := 0
		for _, r := range f.Selector {
			values += len(r.Values)
		}
		ps.most("label_selector", values, maxValues)
	}
	if err := ps.fault(); err != nil {
		return nil, err
	}
	f.Offset, f.Limit = (l.page-1)*l.perPage, l.perPage
	for name, values := range q.Values {
		if name != "page" && name != "per_page" {
			l.shown[name] = values
		}
	}
	if f.OrderBy != "" {
		sign := "+"
		if f.Descending {
			sign = "-"
		}
		l.shown.Set("order_by", sign+string(f.OrderBy))
	}
	return l, nil
}

// checkNames refuses unknown parameters, so that a filter with a typing error in its name is not ignored silently.
func (q query) checkNames(ps *problems) {
	var unknown []string
	for name, values := range q.Values {
		plain, operator, bracketed := strings.Cut(name, "[")
		switch {
		case !slices.Contains(listParameters, plain):
			unknown = append(unknown, "'"+name+"'")
			continue
		case bracketed && (plain == "created_ats" || plain == "updated_ats"):
			if operator = strings.TrimSuffix(operator, "]"); !slices.Contains(operators, operator) {
				ps.add("%s Invalid relational operator: '%s'", title(plain), operator)
			}
		case bracketed && plain == "page" || bracketed && plain == "per_page":
			ps.add("%s must be a positive integer", title(plain))
		case bracketed:
			ps.add("%s must be an array", title(plain))
		}
		if len(values) > 1 {
			ps.add("%s can only be provided once", title(name))
		}
	}
	slices.Sort(*ps)
	if unknown != nil {
		slices.Sort(unknown)
		ps.add("Unknown query parameter(s): %s. Valid parameters are: '%s'", strings.Join(unknown, ", "),
			strings.Join(listParameters, "', '"))
	}
}

// title is a parameter's name in a message: "Created ats".
func title(name string) string {
	return strings.ToUpper(name[:1]) + strings.ReplaceAll(name[1:], "_", " ")
}

// order reads order_by. A plus sign that the client left as it is has become a space.
func (q query) order(ps *problems) (by account.PlatformOrder, descending bool) {
	if !q.Has("order_by") {
		return "", false
	}
	value := q.Get("order_by")
	name, descending := strings.CutPrefix(value, "-")
	if !descending && value != "" && strings.ContainsRune("+ ", rune(value[0])) {
		name = value[1:]
	}
	by = account.PlatformOrder(name)
	if by != account.OrderByCreated && by != account.OrderByUpdated {
		ps.add("Order by can only be: '%s', '%s'", account.OrderByCreated, account.OrderByUpdated)
	}
	return by, descending
}

// values reads a list of values, nil if there is none. A comma within a value is encoded twice, so each value is decoded
// once more if that is possible.
func (q query) values(name string) []string {
	if !q.Has(name) {
		return nil
	}
	values := strings.Split(q.Get(name), ",")
	for i, v := range values {
		if decoded, err := url.PathUnescape(v); err == nil {
			values[i] = decoded
		}
	}
	return values
}

// The limits of values in a parameter of a list of users. An index finds exact values; a part of a name is searched in the
// name of each user.
const (
	maxValues   = 1000
	maxPatterns = 50
)

// filter reads a list of at most the given number of values.
func (q query) filter(name string, most int, ps *problems) []string {
	values := q.values(name)
	ps.most(name, len(values), most)
	return values
}

func (ps *problems) most(name string, n, most int) {
	if n > most {
		ps.add("%s can have at most %d values", title(name), most)
	}
}

// operators are those of times.
var operators = []string{"lt", "lte", "gt", "gte"}

// times reads a filter of times, which count whole seconds, as those that are shown: any of a list, or one or more
// limits.
func (q query) times(title, name string, ps *problems) []account.Span {
	var spans []account.Span
	if q.Has(name) {
		spans = []account.Span{}
		for _, v := range q.filter(name, maxValues, ps) {
			t := ps.second(title, v)
			spans = append(spans, account.Span{From: t, Until: t.Add(time.Second)})
		}
	}
	var limits account.Span
	limited := false
	for _, operator := range operators {
		parameter := name + "[" + operator + "]"
		if !q.Has(parameter) {
			continue
		}
		limited = true
		values := q.values(parameter)
		if len(values) > 1 || spans != nil {
			ps.add("%s only accepts one value when using a relational operator", title)
			return nil
		}
		t := ps.second(title, values[0])
		switch operator {
		case "lt":
			limits.Until = earlier(limits.Until, t)
		case "lte":
			limits.Until = earlier(limits.Until, t.Add(time.Second))
		case "gt":
			limits.From = later(limits.From, t.Add(time.Second))
		case "gte":
			limits.From = later(limits.From, t)
		}
	}
	if limited {
		return []account.Span{limits}
	}
	return spans
}

func earlier(limit, t time.Time) time.Time {
	if limit.IsZero() || t.Before(limit) {
		return t
	}
	return limit
}

func later(limit, t time.Time) time.Time {
	if t.After(limit) {
		return t
	}
	return limit
}

// second reads a time. The reference takes UTC only; one client sends its own zone.
func (ps *problems) second(title, s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		ps.add("%s has an invalid timestamp format. Timestamps should be formatted as 'YYYY-MM-DDThh:mm:ssZ'", title)
	}
	return t.Truncate(time.Second)
}
