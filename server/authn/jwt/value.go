package jwt

import (
	"encoding/json"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"k8s.io/apiserver/pkg/cel"
)

// value is the claims as expressions see them.
func (c claims) value() (traits.Mapper, error) {
	all := make(map[string]any, len(c))
	for name, raw := range c {
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, err
		}
		all[name] = v
	}
	return mapper(all), nil
}

func mapper(m map[string]any) traits.Mapper {
	return escapedMap{types.NewStringInterfaceMap(types.DefaultTypeAdapter, m)}
}

// escapedMap finds a key by its escaped form too: a claim "example.com/role" is written claims.example__dot__com__slash__role.
type escapedMap struct{ traits.Mapper }

func (m escapedMap) Find(key ref.Val) (ref.Val, bool) {
	if s, ok := key.(types.String); ok {
		if plain, ok := cel.Unescape(string(s)); ok {
			key = types.String(plain)
		}
	}
	v, ok := m.Mapper.Find(key)
	return escaped(v), ok
}

// escapedList has such maps among its elements.
type escapedList struct{ traits.Lister }

func (l escapedList) Get(index ref.Val) ref.Val { return escaped(l.Lister.Get(index)) }

func escaped(v ref.Val) ref.Val {
	switch v := v.(type) {
	case traits.Mapper:
		return escapedMap{v}
	case traits.Lister:
		return escapedList{v}
	}
	return v
}
