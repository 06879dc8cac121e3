package dropin

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/apis/apiserver"

	"github.com/skiff-sh/skiff/daemon"
	"github.com/skiff-sh/skiff/server/authn"
)

// oidcFlags are the flags of kube-apiserver about the tokens of OpenID Connect providers.
type oidcFlags struct {
	file                       string
	issuer, client, ca         string
	userClaim, userPrefix      string
	groupsClaim, groupsPrefix  string
	requiredClaims, algorithms []string
	names                      []string
}

func (o *oidcFlags) define(f *flags) {
	f.StringVar(&o.file, "authentication-config", "", "an AuthenticationConfiguration: whose tokens are believed, and who may come without credentials; read again when it changes")
	f.StringVar(&o.issuer, "oidc-issuer-url", "", "the OpenID Connect provider whose tokens are believed")
	f.StringVar(&o.client, "oidc-client-id", "", "who its tokens must be made for")
	f.StringVar(&o.ca, "oidc-ca-file", "", "who signs its certificate (default: whom this machine believes)")
	f.StringVar(&o.userClaim, "oidc-username-claim", "sub", "the claim that names the user")
	f.StringVar(&o.userPrefix, "oidc-username-prefix", "", "what comes before it (default: the issuer's URL and #, but nothing before an email; - for nothing)")
	f.StringVar(&o.groupsClaim, "oidc-groups-claim", "", "the claim that names the user's groups")
	f.StringVar(&o.groupsPrefix, "oidc-groups-prefix", "", "what comes before each of them")
	f.StringArrayVar(&o.requiredClaims, "oidc-required-claim", nil, "claim=value that a token must hold; may be repeated")
	f.StringSliceVar(&o.algorithms, "oidc-signing-algs", []string{"RS256"}, "the signatures that are believed")
	o.names = []string{"oidc-issuer-url", "oidc-client-id", "oidc-ca-file", "oidc-username-claim", "oidc-username-prefix", "oidc-groups-claim",
		"oidc-groups-prefix", "oidc-required-claim", "oidc-signing-algs"}
}

// authentication makes one configuration of the file or of the flags.
func (o *oidcFlags) authentication(f *flags, a *daemon.APIServer) error {
	if err := o.configure(f, a); err != nil || a.Server.Authentication == nil {
		return err
	}
	c := *a.Server.Authentication
	c.Taken = append([]string{a.Server.Issuer}, a.Server.OtherIssuers...)
	_, err := authn.NewStructured(c) // what is wrong is said before anything starts
	return err
}

func (o *oidcFlags) configure(f *flags, a *daemon.APIServer) error {
	flagged := slices.ContainsFunc(o.names, f.Changed)
	switch {
	case o.file != "" && flagged:
		return errors.New("authentication-config file and oidc-* flags are mutually exclusive")
	case o.file != "":
		a.Server.Authentication = &authn.StructuredConfig{File: o.file, AnonymousSettled: f.Changed("anonymous-auth")}
		return nil
	case !flagged:
		return nil
	case o.issuer == "" || o.client == "":
		return errors.New("oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set")
	}
	j := apiserver.JWTAuthenticator{Issuer: apiserver.Issuer{URL: o.issuer, Audiences: []string{o.client}}}
	if o.ca != "" {
		b, err := os.ReadFile(o.ca)
		if err != nil {
			return fmt.Errorf("--oidc-ca-file: %w", err)
		}
		j.Issuer.CertificateAuthority = string(b)
	}
	prefix := o.userPrefix
	switch {
	case prefix == "-":
		prefix = ""
	case prefix == "" && o.userClaim != "email":
		prefix = o.issuer + "#"
	}
	j.ClaimMappings.Username = apiserver.PrefixedClaimOrExpression{Claim: o.userClaim, Prefix: &prefix}
	if o.groupsClaim != "" {
		j.ClaimMappings.Groups = apiserver.PrefixedClaimOrExpression{Claim: o.groupsClaim, Prefix: &o.groupsPrefix}
	}
	for _, c := range o.requiredClaims {
		name, value, ok := strings.Cut(c, "=")
		if !ok {
			return fmt.Errorf("--oidc-required-claim %q must be claim=value", c)
		}
		j.ClaimValidationRules = append(j.ClaimValidationRules, apiserver.ClaimValidationRule{Claim: name, RequiredValue: value})
	}
	a.Server.Authentication = &authn.StructuredConfig{Algorithms: o.algorithms,
		Fixed: &apiserver.AuthenticationConfiguration{JWT: []apiserver.JWTAuthenticator{j}}}
	return nil
}
