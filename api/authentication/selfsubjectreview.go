package authentication

import (
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/skiff-sh/skiff/api"
)

var selfSubjectReview = &api.Kind{
	Group: "authentication.k8s.io", Version: "v1", Kind: "SelfSubjectReview",
	Plural: "selfsubjectreviews", Singular: "selfsubjectreview",
	Verbs: []string{"create"},
	New:   api.New[authenticationv1.SelfSubjectReview],
}
