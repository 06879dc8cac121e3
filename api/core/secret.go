package core

import (
	"crypto/tls"
	"encoding/json"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var secret = &api.Kind{
	Version: "v1", Kind: "Secret",
	Plural: "secrets", Singular: "secret", Namespaced: true,
	StoragePath: "secrets",
	New:         api.New[corev1.Secret], NewList: api.NewList[corev1.SecretList],
	Validate:       api.Check(validateSecret),
	ValidateUpdate: api.CheckUpdate(validateSecretUpdate),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Type", "string", func(x *corev1.Secret) any { return string(x.Type) }),
		api.Col("Data", "string", func(x *corev1.Secret) any { return int64(len(x.Data)) }),
		api.AgeColumn(),
	},
	Warnings: func(obj, _ api.Object) []string {
		x := obj.(*corev1.Secret)
		if x.Type == corev1.SecretTypeTLS {
			if _, err := tls.X509KeyPair(x.Data[corev1.TLSCertKey], x.Data[corev1.TLSPrivateKeyKey]); err != nil {
				return []string{err.Error()}
			}
		}
		return nil
	},
	FieldKeys: []string{"type"},
	Fields: api.Selectable(func(x *corev1.Secret) map[string]string {
		return map[string]string{"type": string(x.Type)}
	}),
	Default:             api.Defaults(defaultSecret),
	UnconditionalUpdate: true,
}

func defaultSecret(x *corev1.Secret) {
	api.Fill(&x.Type, corev1.SecretTypeOpaque)
	// stringData is for writing alone: it is laid over data and never stored or shown.
	if len(x.StringData) > 0 {
		if x.Data == nil {
			x.Data = make(map[string][]byte, len(x.StringData))
		}
		for k, v := range x.StringData {
			x.Data[k] = []byte(v)
		}
	}
	x.StringData = nil
}

func validateSecret(x *corev1.Secret) field.ErrorList {
	var errs field.ErrorList
	data, size := field.NewPath("data"), 0
	for k, b := range x.Data {
		errs = append(errs, Problems(data.Key(k), k, validation.IsConfigMapKey(k))...)
		size += len(b)
	}
	if size > corev1.MaxSecretSize {
		errs = append(errs, field.TooLong(data, "", corev1.MaxSecretSize))
	}
	need := func(key string) {
		if _, ok := x.Data[key]; !ok {
			errs = append(errs, field.Required(data.Key(key), ""))
		}
	}
	switch x.Type {
	case corev1.SecretTypeServiceAccountToken:
		if x.Annotations[corev1.ServiceAccountNameKey] == "" {
			errs = append(errs, field.Required(field.NewPath("metadata", "annotations").Key(corev1.ServiceAccountNameKey), ""))
		}
	case corev1.SecretTypeDockercfg:
		errs = append(errs, jsonKey(x, corev1.DockerConfigKey)...)
	case corev1.SecretTypeDockerConfigJson:
		errs = append(errs, jsonKey(x, corev1.DockerConfigJsonKey)...)
	case corev1.SecretTypeBasicAuth:
		_, user := x.Data[corev1.BasicAuthUsernameKey]
		_, password := x.Data[corev1.BasicAuthPasswordKey]
		if !user && !password {
			need(corev1.BasicAuthUsernameKey)
			need(corev1.BasicAuthPasswordKey)
		}
	case corev1.SecretTypeSSHAuth:
		if len(x.Data[corev1.SSHAuthPrivateKey]) == 0 {
			errs = append(errs, field.Required(data.Key(corev1.SSHAuthPrivateKey), ""))
		}
	case corev1.SecretTypeTLS:
		need(corev1.TLSCertKey)
		need(corev1.TLSPrivateKeyKey)
	}
	return errs
}

func validateSecretUpdate(x, old *corev1.Secret) field.ErrorList {
	errs := validateSecret(x)
	errs = append(errs, Immutable(field.NewPath("type"), x.Type, old.Type)...)
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
	return errs
}

// jsonKey checks that a key is there and holds JSON.
func jsonKey(x *corev1.Secret, key string) field.ErrorList {
	path := field.NewPath("data").Key(key)
	b, ok := x.Data[key]
	switch {
	case !ok:
		return field.ErrorList{field.Required(path, "")}
	case !json.Valid(b):
		return field.ErrorList{field.Invalid(path, "<secret contents redacted>", "invalid JSON")}
	}
	return nil
}
