package jwt

import (
	"encoding/json"
	"reflect"
	"testing"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/cel"
)

// FuzzClaims makes users of whatever a provider signs: an error or a user with a name, but nothing else, and the same again
// the next time.
func FuzzClaims(f *testing.F) {
	for _, s := range []string{`{"sub":"a"}`, `{"sub":"a","groups":["b"],"n":{"x":[1,2]}}`, `{"sub":1}`, `{"sub":"a","groups":null,"jti":"x"}`,
		`{"sub":"a","groups":[["b"]],"email":"a","email_verified":[]}`, `{"sub":"","n":1e400}`, `[]`, `null`} {
		f.Add([]byte(s))
	}
	var all []*Issuer
	prefix := "p:"
	for _, m := range []apiserver.ClaimMappings{
		{Username: apiserver.PrefixedClaimOrExpression{Claim: "sub", Prefix: &prefix}, Groups: apiserver.PrefixedClaimOrExpression{Claim: "groups", Prefix: &prefix},
			UID: apiserver.ClaimOrExpression{Claim: "uid"}},
		{Username: apiserver.PrefixedClaimOrExpression{Expression: "claims.sub"}, Groups: apiserver.PrefixedClaimOrExpression{Expression: "claims.?groups.orValue([])"},
			UID: apiserver.ClaimOrExpression{Expression: "claims.?n.x[0].orValue('')"}, Extra: []apiserver.ExtraMapping{{Key: "example.com/n", ValueExpression: "claims.?n.orValue('')"}}},
	} {
		i, err := New(Config{JWTAuthenticator: apiserver.JWTAuthenticator{Issuer: apiserver.Issuer{URL: "https://x", Audiences: []string{"a"}}, ClaimMappings: m},
			Compiler: cel.NewDefaultCompiler()})
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, i)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = claimedIssuer(string(b))
		var c claims
		if json.Unmarshal(b, &c) != nil {
			return
		}
		for n, i := range all {
			u, err := i.user(t.Context(), c)
			if err != nil {
				continue
			}
			if u.Name == "" || n == 0 && len(u.Name) < len(prefix) {
				t.Errorf("%s makes %+v", b, u)
			}
			if again, err := i.user(t.Context(), c); err != nil || !reflect.DeepEqual(u, again) {
				t.Errorf("%s makes %+v, then %+v, %v", b, u, again, err)
			}
		}
	})
}
