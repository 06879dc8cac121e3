package core

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/api"
)

// mountableSecrets limits which Secrets the account's pods may mount.
const mountableSecrets = "kubernetes.io/enforce-mountable-secrets"

var serviceAccount = &api.Kind{
	Version: "v1", Kind: "ServiceAccount",
	Plural: "serviceaccounts", Singular: "serviceaccount", ShortNames: []string{"sa"}, Namespaced: true,
	StoragePath: "serviceaccounts",
	New:         api.New[corev1.ServiceAccount], NewList: api.NewList[corev1.ServiceAccountList],
	Columns: []api.Column{
		api.NameColumn(),
		api.AgeColumn(),
	},
	Warnings: func(obj, old api.Object) []string {
		if obj.GetAnnotations()[mountableSecrets] == "" || old != nil && old.GetAnnotations()[mountableSecrets] != "" {
			return nil
		}
		return []string{"metadata.annotations[" + mountableSecrets + "]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"}
	},
	Subresources: []api.Subresource{
		api.Action[authenticationv1.TokenRequest]("token", "authentication.k8s.io", "v1", "TokenRequest"),
	},
}
