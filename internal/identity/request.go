package identity

import (
	"context"
	"net/http"
	"strings"

	"rolecall/internal/account"
	"rolecall/internal/web"
)

// Enter signs a request in that may come with a password as well as with a token, within the limits of its address and of
// its account, and returns it with its principal. One that another site has a browser make is refused.
func (s *Service) Enter(r *http.Request, perAddress, perPrincipal *web.Limiter) (*http.Request, error) {
	info := web.InfoOf(r.Context())
	authorization := r.Header.Get("Authorization")
	if err := s.Admit(r.Context(), authorization, info.Address, perAddress); err != nil {
		return nil, err
	}
	p, err := s.SignIn(r.Context(), authorization, info.Address)
	if err != nil {
		return nil, err
	}
	p.RequestID, p.Address = info.ID, info.Address
	if err := info.SignedIn(p.GUID); err != nil {
		return nil, err
	}
	if err := perPrincipal.Take(p.GUID); err != nil {
		return nil, err
	}
	if err := web.SameOrigin(r); err != nil {
		return nil, err
	}
	return r.WithContext(account.WithPrincipal(r.Context(), p)), nil
}

// Admit counts a request against the limit of its address, unless it comes with a credential that was verified lately, or with
// a token that was made here: to find out what any other is worth takes work, which a stranger is not to have done without
// end, and one who is known is not to be taken for a stranger because of others at the same address.
func (s *Service) Admit(ctx context.Context, authorization, address string, perAddress *web.Limiter) error {
	scheme, credential, _ := strings.Cut(authorization, " ")
	credential = strings.TrimSpace(credential)
	if _, known := s.known.get(s.known.key(scheme, credential), s.now()); known {
		return nil
	}
	if strings.EqualFold(scheme, "bearer") && !strings.HasPrefix(credential, personalPrefix) {
		if _, err := s.claims(ctx, credential); err == nil {
			return nil
		}
	}
	return perAddress.Take(Network(address))
}
