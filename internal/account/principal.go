package account

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/audit"
	"rolecall/internal/fault"
)

// The scopes of the platform. Their names are Cloud Foundry's.
const (
	ScopeAdmin         = "cloud_controller.admin"
	ScopeAdminReadOnly = "cloud_controller.admin_read_only"
	ScopeAuditor       = "cloud_controller.global_auditor"
	ScopeRead          = "cloud_controller.read"
	ScopeWrite         = "cloud_controller.write"
	ScopeSCIMRead      = "scim.read"
	ScopeSCIMWrite     = "scim.write"
)

// AdminScopes are the scopes of an account that may do everything.
var AdminScopes = []string{ScopeAdmin, ScopeRead, ScopeWrite, ScopeSCIMRead, ScopeSCIMWrite}

// Scopes are all scopes that there are, in the order in which they are shown.
var Scopes = []string{ScopeAdmin, ScopeAdminReadOnly, ScopeAuditor, ScopeRead, ScopeWrite, ScopeSCIMRead, ScopeSCIMWrite}

// DefaultScopes are those of a new person. By themselves they open nothing but what labels give.
var DefaultScopes = []string{ScopeRead, ScopeWrite}

// Principal is the authenticated account of one request, with the scopes that its credential carries.
type Principal struct {
	GUID, Username, Origin string
	Scopes                 []string
	Labels, LabelSources   map[string]string
	// Epoch is the account's when the credential was last verified.
	Epoch uuid.UUID
	// Token is the personal access token that the request came with; zero: another credential.
	Token uuid.UUID
	// AccessToken is the id of the access token of this server that the request came with; zero: another credential.
	AccessToken uuid.UUID
	// Family is that of the refresh token that AccessToken came with; zero: it came with none.
	Family uuid.UUID
	// Session is that of the person's browser, and AccessToken is its id as well; zero: the request came with a token. Proven
	// is when the person last proved who they are in it.
	Session uuid.UUID
	Proven  time.Time
	// ReadOnly says that the token changes nothing. No scope to change with is among Scopes then; CouldWrite says that one
	// would be, so that the token reads what its account may read because it manages it.
	ReadOnly, CouldWrite bool
	// Clusters are the only ones that the token reaches; nil: no limit. A token with a limit opens nothing beyond them, so
	// the scopes that would are not among Scopes: ClusterScopes has them, and HasOn counts them on these clusters alone.
	Clusters      []uuid.UUID
	ClusterScopes []string
	// Credentials are the only stored credentials that the token reads, and it does nothing else: <id of the cluster>/<name>;
	// nil: no limit. Package door refuses every other operation.
	Credentials []string
	// Operation is that which it carries out in the background, not in a request; zero: none.
	Operation uuid.UUID
	// Issued and Expires are those of the token; zero: it is none, or does not expire.
	Issued, Expires time.Time
	// RequestID, Trace and Address say where the request came from, for the audit log. Trace is the id of its trace; "": it is
	// known to nobody else.
	RequestID, Trace, Address string
}

// Has reports whether the principal has one of the scopes.
func (p *Principal) Has(scopes ...string) bool {
	return slices.ContainsFunc(scopes, func(s string) bool { return slices.Contains(p.Scopes, s) })
}

// Reaches reports whether the principal's credential is valid for the cluster at all.
func (p *Principal) Reaches(cluster uuid.UUID) bool {
	return p.Clusters == nil || slices.Contains(p.Clusters, cluster)
}

// ReachesCredential reports whether the principal's credential is valid for a stored credential of the cluster at all.
func (p *Principal) ReachesCredential(cluster uuid.UUID, name string) bool {
	return p.Reaches(cluster) && (p.Credentials == nil || slices.Contains(p.Credentials, cluster.String()+"/"+name))
}

// HasOn is Has for what is done on one cluster.
func (p *Principal) HasOn(cluster uuid.UUID, scopes ...string) bool {
	if !p.Reaches(cluster) {
		return false
	}
	return p.Has(scopes...) || slices.ContainsFunc(scopes, func(s string) bool { return slices.Contains(p.ClusterScopes, s) })
}

// Limit makes the principal that of a personal access token. It keeps the scopes that the limits leave, so that a check
// of a scope need not know of tokens.
func (p *Principal) Limit(token uuid.UUID, readOnly bool, clusters []uuid.UUID) {
	p.Token, p.ReadOnly, p.Clusters = token, readOnly, clusters
	if readOnly {
		p.CouldWrite = p.Has(ScopeAdmin, ScopeWrite)
		var reads []string
		for _, s := range p.Scopes {
			switch s {
			case ScopeAdmin:
				reads = append(reads, ScopeAdminReadOnly)
			case ScopeWrite, ScopeSCIMWrite:
			default:
				reads = append(reads, s)
			}
		}
		p.Scopes = inOrder(reads)
	}
	if clusters != nil {
		p.ClusterScopes = p.Scopes
		p.Scopes = slices.DeleteFunc(slices.Clone(p.Scopes), func(s string) bool { return !slices.Contains(DefaultScopes, s) })
	}
}

// Entry is what the audit log is told of something that the principal does.
func (p *Principal) Entry(action, target string, detail any) audit.Entry {
	return audit.Entry{
		Action:      action,
		AccountGUID: p.GUID,
		AccountName: shownName(p.Username, p.Origin),
		Token:       p.Token,
		Session:     p.Session,
		Operation:   p.Operation,
		Target:      target,
		RequestID:   p.RequestID,
		Trace:       p.Trace,
		Address:     p.Address,
		Detail:      detail,
	}
}

// seesAll reports whether the principal sees every account.
func seesAll(p *Principal) bool { return p.Has(ScopeAdmin, ScopeAdminReadOnly, ScopeAuditor) }

// errTokenIdentity keeps a personal access token, which may have leaked, from becoming another way to sign in.
var errTokenIdentity = fault.New(fault.Forbidden,
	"A personal access token may not change identities, user names, passwords, scopes or clients. Sign in for that.")

// Identities manage other accounts by scim.write. So that this is no way to become an admin, whatever gives, takes or
// uses more than the default scopes needs cloud_controller.admin as well: to change them, and to change an account that
// has them, its password first of all.

// mayChange says whether the principal may do everything to an identity with these scopes.
func (p *Principal) mayChange(scopes []string) error {
	if !p.Has(ScopeSCIMWrite) {
		return fault.New(fault.Forbidden, "This needs the scope %s.", ScopeSCIMWrite)
	}
	for _, scope := range scopes {
		if !slices.Contains(DefaultScopes, scope) && !p.Has(ScopeAdmin) {
			return fault.New(fault.Forbidden, "This concerns the scope %s, so it requires the scope %s as well as %s.",
				scope, ScopeAdmin, ScopeSCIMWrite)
		}
	}
	return nil
}

// mayChangeIdentity is mayChange for what no personal access token changes.
func (p *Principal) mayChangeIdentity(scopes []string) error {
	if p.Token != uuid.Nil {
		return errTokenIdentity
	}
	return p.mayChange(scopes)
}

// mayOpen says whether the principal may open the way to an account: setting its password or making it active lets others
// sign in as it. Its labels are rights, too, which only admins give.
func (p *Principal) mayOpen(a *Profile) error {
	if len(a.Labels) == 0 || p.Has(ScopeAdmin) {
		return nil
	}
	return fault.New(fault.Forbidden,
		"This account has labels that give it access to clusters, so it requires the scope %s as well as %s.",
		ScopeAdmin, ScopeSCIMWrite)
}

// mayRead says whether the principal may see an identity; "" stands for all of them.
func (p *Principal) mayRead(guid string) error {
	if p.Has(ScopeSCIMRead) || guid != "" && p.GUID == guid {
		return nil
	}
	return fault.New(fault.Forbidden, "This needs the scope %s.", ScopeSCIMRead)
}

// MayReadIdentities says whether the principal may read users, groups and clients at all.
func (p *Principal) MayReadIdentities() error { return p.mayRead("") }

// inOrder returns the scopes in the order in which they are shown, each once. Those that do not exist come last.
func inOrder(scopes []string) []string {
	ordered, left := []string{}, make(map[string]bool, len(scopes)) // a request may hold thousands
	for _, scope := range scopes {
		left[scope] = true
	}
	for _, scope := range append(slices.Clone(Scopes), scopes...) {
		if left[scope] {
			ordered, left[scope] = append(ordered, scope), false
		}
	}
	return ordered
}
