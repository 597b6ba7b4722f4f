package identity

import (
	"net/http"

	"rolecall/internal/account"
	"rolecall/internal/web"
)

// Enter signs a request in that may come with a password as well as with a token, within the limits of its address and of
// its account, and returns it with its principal. One that another site has a browser make is refused.
func (s *Service) Enter(r *http.Request, perAddress, perPrincipal *web.Limiter) (*http.Request, error) {
	info := web.InfoOf(r.Context())
	p, err := s.SignIn(r.Context(), r.Header.Get("Authorization"), info.Address)
	if err != nil {
		if limited := perAddress.Take(Network(info.Address)); limited != nil {
			return nil, limited
		}
		return nil, err
	}
	p.RequestID, p.Address = info.ID, info.Address
	info.Account = p.GUID
	if err := perPrincipal.Take(p.GUID); err != nil {
		return nil, err
	}
	if err := web.SameOrigin(r); err != nil {
		return nil, err
	}
	return r.WithContext(account.WithPrincipal(r.Context(), p)), nil
}
