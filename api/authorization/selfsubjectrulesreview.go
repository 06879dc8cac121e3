package authorization

import (
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/skiff-sh/skiff/api"
)

var selfSubjectRulesReview = &api.Kind{
	Group: "authorization.k8s.io", Version: "v1", Kind: "SelfSubjectRulesReview",
	Plural: "selfsubjectrulesreviews", Singular: "selfsubjectrulesreview",
	Verbs: []string{"create"},
	New:   api.New[authorizationv1.SelfSubjectRulesReview],
}
