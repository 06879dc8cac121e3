package dropin

import (
	"context"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"

	"github.com/skiff-sh/skiff/api/builtin"
)

// encryption reads an EncryptionConfiguration into what the store does to the values of a key. Keys of custom resources
// name their group and resource themselves.
func encryption(file string) (func(key string) value.Transformer, error) {
	cfg, err := encryptionconfig.LoadEncryptionConfig(context.Background(), file, false, "skiff")
	if err != nil {
		return nil, err
	}
	transformers := encryptionconfig.StaticTransformers(cfg.Transformers)
	prefixes := map[string]schema.GroupResource{}
	for _, k := range builtin.Kinds() {
		if k.StoragePath != "" {
			prefixes[k.StoragePath] = k.GroupResource()
		}
	}
	return func(key string) value.Transformer {
		parts := strings.SplitN(key, "/", 5) // "", "registry", "apps", "deployments", ...
		for n := min(len(parts), 4); n > 2; n-- {
			if gr, ok := prefixes[strings.Join(parts[2:n], "/")]; ok {
				return transformers.TransformerForResource(gr)
			}
		}
		if len(parts) == 5 && strings.Contains(parts[2], ".") {
			return transformers.TransformerForResource(schema.GroupResource{Group: parts[2], Resource: parts[3]})
		}
		return nil
	}, nil
}
