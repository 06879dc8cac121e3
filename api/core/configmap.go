package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var configMap = &api.Kind{
	Version: "v1", Kind: "ConfigMap",
	Plural: "configmaps", Singular: "configmap", ShortNames: []string{"cm"}, Namespaced: true,
	StoragePath: "configmaps",
	New:         api.New[corev1.ConfigMap], NewList: api.NewList[corev1.ConfigMapList],
	Validate:       api.Check(validateConfigMap),
	ValidateUpdate: api.CheckUpdate(validateConfigMapUpdate),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Data", "string", func(x *corev1.ConfigMap) any { return int64(len(x.Data) + len(x.BinaryData)) }),
		api.AgeColumn(),
	},
	UnconditionalUpdate: true,
}

func validateConfigMap(x *corev1.ConfigMap) field.ErrorList {
	var errs field.ErrorList
	size := 0
	for k, s := range x.Data {
		errs = append(errs, Problems(field.NewPath("data").Key(k), k, validation.IsConfigMapKey(k))...)
		if _, twice := x.BinaryData[k]; twice {
			errs = append(errs, field.Invalid(field.NewPath("data").Key(k), k, "duplicate of key present in binaryData"))
		}
		size += len(s)
	}
	for k, b := range x.BinaryData {
		errs = append(errs, Problems(field.NewPath("binaryData").Key(k), k, validation.IsConfigMapKey(k))...)
		size += len(b)
	}
	if size > corev1.MaxSecretSize {
		errs = append(errs, field.TooLong(field.NewPath(""), "", corev1.MaxSecretSize))
	}
	return errs
}

func validateConfigMapUpdate(x, old *corev1.ConfigMap) field.ErrorList {
	errs := validateConfigMap(x)
	if old.Immutable == nil || !*old.Immutable {
		return errs
	}
	const text = "field is immutable when `immutable` is set"
	if x.Immutable == nil || !*x.Immutable {
		errs = append(errs, field.Forbidden(field.NewPath("immutable"), text))
	}
	if !equality.Semantic.DeepEqual(x.Data, old.Data) {
		errs = append(errs, field.Forbidden(field.NewPath("data"), text))
	}
	if !equality.Semantic.DeepEqual(x.BinaryData, old.BinaryData) {
		errs = append(errs, field.Forbidden(field.NewPath("binaryData"), text))
	}
	return errs
}
