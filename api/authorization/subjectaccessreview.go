package authorization

import (
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/skiff-sh/skiff/api"
)

var subjectAccessReview = &api.Kind{
	Group: "authorization.k8s.io", Version: "v1", Kind: "SubjectAccessReview",
	Plural: "subjectaccessreviews", Singular: "subjectaccessreview",
	Verbs: []string{"create"},
	New:   api.New[authorizationv1.SubjectAccessReview],
}
