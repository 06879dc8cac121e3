package audit

import (
	"encoding/json"
	"fmt"
	"mime"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"sigs.k8s.io/yaml"

	apicodec "github.com/skiff-sh/skiff/api/codec"
)

// toJSON is a body as JSON, whatever it was sent as.
func toJSON(contentType string, data []byte, omitManagedFields bool) ([]byte, error) {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		media = "application/json"
	}
	switch {
	case strings.HasSuffix(media, "yaml"):
		data, err = yaml.YAMLToJSON(data)
	case media == "application/vnd.kubernetes.protobuf":
		data, err = fromProtobuf(data)
	default:
		err = nil
	}
	if err != nil {
		return nil, err
	}
	if !json.Valid(data) {
		return nil, fmt.Errorf("%s is no JSON", media)
	}
	if !omitManagedFields {
		return data, nil
	}
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, err
	}
	withoutManagedFields(v)
	return json.Marshal(v)
}

func fromProtobuf(data []byte) ([]byte, error) {
	scheme := apicodec.Scheme()
	obj, gvk, err := protobuf.NewSerializer(scheme, scheme).Decode(data, nil, nil)
	if err != nil {
		return nil, err
	}
	obj.GetObjectKind().SetGroupVersionKind(*gvk)
	return json.Marshal(obj)
}

// withoutManagedFields takes them out of an object, or of the items of a list.
func withoutManagedFields(v any) {
	o, ok := v.(map[string]any)
	if !ok {
		return
	}
	if m, ok := o["metadata"].(map[string]any); ok {
		delete(m, "managedFields")
	}
	items, _ := o["items"].([]any)
	for _, it := range items {
		withoutManagedFields(it)
	}
}
