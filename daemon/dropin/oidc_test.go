package dropin

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/apis/apiserver"

	"github.com/skiff-sh/skiff/daemon"
)

func oidc(t *testing.T, args ...string) (*daemon.APIServer, error) {
	p, _, _ := call("kube-apiserver", args...)
	f, o := p.apiFlags()
	if err := f.parse(); err != nil {
		t.Fatal(err)
	}
	a := &daemon.APIServer{}
	a.Server.Issuer = "https://taken.example"
	return a, o.oidc.authentication(f, a)
}

func TestOIDCFlags(t *testing.T) {
	for _, c := range []struct {
		flags  []string
		prefix string
	}{
		{nil, "https://x.example#"},
		{[]string{"--oidc-username-claim=email"}, ""},
		{[]string{"--oidc-username-prefix=-"}, ""},
		{[]string{"--oidc-username-prefix=x:"}, "x:"},
	} {
		a, err := oidc(t, append(c.flags, "--oidc-issuer-url=https://x.example", "--oidc-client-id=me", "--oidc-groups-claim=roles",
			"--oidc-groups-prefix=g:", "--oidc-required-claim=a=b=c", "--oidc-signing-algs=ES256,RS256")...)
		if err != nil {
			t.Fatal(err)
		}
		got := a.Server.Authentication
		j := got.Fixed.JWT[0]
		if *j.ClaimMappings.Username.Prefix != c.prefix || j.ClaimMappings.Groups.Claim != "roles" || *j.ClaimMappings.Groups.Prefix != "g:" {
			t.Errorf("%v: %+v", c.flags, j.ClaimMappings)
		}
		if !reflect.DeepEqual(j.Issuer, apiserver.Issuer{URL: "https://x.example", Audiences: []string{"me"}}) ||
			!reflect.DeepEqual(j.ClaimValidationRules, []apiserver.ClaimValidationRule{{Claim: "a", RequiredValue: "b=c"}}) ||
			!reflect.DeepEqual(got.Algorithms, []string{"ES256", "RS256"}) {
			t.Errorf("%v: %+v", c.flags, got)
		}
	}
	if a, err := oidc(t); err != nil || a.Server.Authentication != nil {
		t.Errorf("without flags: %v, %v", a.Server.Authentication, err)
	}
	anonymous := filepath.Join(t.TempDir(), "anonymous.yaml")
	write(t, anonymous, "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: []\nanonymous: {enabled: true}\n")
	for want, flags := range map[string][]string{
		"must be specified together": {"--oidc-issuer-url=https://x.example"},
		"URL scheme must be https":   {"--oidc-issuer-url=http://x.example", "--oidc-client-id=me"},
		"URL must not overlap":       {"--oidc-issuer-url=https://taken.example", "--oidc-client-id=me"},
		"unsupported signing alg":    {"--oidc-issuer-url=https://x.example", "--oidc-client-id=me", "--oidc-signing-algs=none"},
		"mutually exclusive":         {"--authentication-config=" + anonymous, "--oidc-client-id=me"},
		"no such file":               {"--authentication-config=/nowhere"},
		"flag cannot be set when":    {"--authentication-config=" + anonymous, "--anonymous-auth=true"},
		"must be claim=value":        {"--oidc-issuer-url=https://x.example", "--oidc-client-id=me", "--oidc-required-claim=x"},
	} {
		if _, err := oidc(t, flags...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: want %q, got %v", flags, want, err)
		}
	}
}
