package authentication

import (
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/skiff-sh/skiff/api"
)

var tokenReview = &api.Kind{
	Group: "authentication.k8s.io", Version: "v1", Kind: "TokenReview",
	Plural: "tokenreviews", Singular: "tokenreview",
	Verbs: []string{"create"},
	New:   api.New[authenticationv1.TokenReview],
}
