package authorization

import (
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/skiff-sh/skiff/api"
)

var localSubjectAccessReview = &api.Kind{
	Group: "authorization.k8s.io", Version: "v1", Kind: "LocalSubjectAccessReview",
	Plural: "localsubjectaccessreviews", Singular: "localsubjectaccessreview", Namespaced: true,
	Verbs: []string{"create"},
	New:   api.New[authorizationv1.LocalSubjectAccessReview],
}
