package plan

import (
	"maps"
	"reflect"
)

// Merge sets out, a pointer to a zero value, to old with a JSON merge patch (RFC 7386) or a strategic merge patch applied.
// old is not changed, but out shares with it what the patch leaves alone. It reports false, and leaves out zero, where
// the general way must be asked: at directives ("$patch"), at lists whose elements have no key, and at all that Decode
// would refuse.
func Merge(old, out any, patch []byte, strategic bool) bool {
	from, to := reflect.ValueOf(old).Elem(), reflect.ValueOf(out).Elem()
	p := planOf(to.Type())
	if p.op != object || p.hidden || from.Type() != to.Type() {
		return false
	}
	to.Set(from)
	m := merger{decoder{scanner: scanner{data: patch}, noNulls: true}, strategic}
	if m.next() == '{' && m.object(p, to, 0) && m.next() == 0 && m.at == len(patch) {
		return true
	}
	to.SetZero()
	return false
}

// merger reads a patch into values of its own, which may share all that is behind pointers with the old ones.
type merger struct {
	decoder
	strategic bool
}

func (m *merger) object(p *plan, v reflect.Value, depth int) bool {
	if depth > maxDepth || !m.take('{') {
		return false
	}
	if m.take('}') {
		return true
	}
	var had seen
	for {
		f := m.field(p, &had)
		if f == nil || !m.member(f, f.of(v), depth+1) {
			return false
		}
		if m.take('}') {
			return true
		}
		if !m.take(',') {
			return false
		}
	}
}

// member patches one field.
func (m *merger) member(f *fieldPlan, v reflect.Value, depth int) bool {
	switch {
	case m.next() == 'n':
		v.SetZero()
		return m.null()
	case m.strategic && f.replace:
		if f.merge {
			return false
		}
		v.SetZero()
		return m.value(f.plan, v, depth)
	case m.strategic && f.merge && f.plan.op == list:
		return m.mergeList(f, v, depth)
	}
	return m.inner(f.plan, v, depth)
}

// inner patches a value that is there, or takes the new one.
func (m *merger) inner(p *plan, v reflect.Value, depth int) bool {
	switch p.op {
	case object:
		return m.object(p, v, depth)
	case pointer:
		if p.elem.op == general || p.elem.op == marshaled {
			return false
		}
		own := reflect.New(p.elem.typ)
		if !v.IsNil() {
			own.Elem().Set(v.Elem())
		}
		v.Set(own)
		return m.inner(p.elem, own.Elem(), depth)
	case dictionary:
		return m.dictionary(p, v, depth)
	case general, marshaled:
		return false
	}
	v.SetZero()
	return m.value(p, v, depth)
}

func (m *merger) dictionary(p *plan, v reflect.Value, depth int) bool {
	if depth > maxDepth || !m.take('{') {
		return false
	}
	if old, ok := v.Interface().(map[string]string); ok {
		own := make(map[string]string, len(old)+1)
		maps.Copy(own, old)
		v.Set(reflect.ValueOf(own))
	} else {
		own := reflect.MakeMapWithSize(p.typ, v.Len()+1)
		for it := v.MapRange(); it.Next(); {
			own.SetMapIndex(it.Key(), it.Value())
		}
		v.Set(own)
	}
	if m.take('}') {
		return true
	}
	had := map[string]bool{}
	key := reflect.New(p.typ.Key()).Elem()
	for {
		k, ok := m.text()
		if !ok || had[k] || m.strategic && len(k) > 0 && k[0] == '$' || !m.take(':') {
			return false
		}
		had[k] = true
		key.SetString(k)
		e := reflect.New(p.elem.typ).Elem()
		was := v.MapIndex(key)
		if m.null() {
			if m.strategic && !was.IsValid() {
				return false // perhaps all around it is new, and then the null stays
			}
			v.SetMapIndex(key, reflect.Value{})
		} else {
			if was.IsValid() {
				e.Set(was)
			}
			if !m.inner(p.elem, e, depth+1) {
				return false
			}
			v.SetMapIndex(key, e)
		}
		if m.take('}') {
			return true
		}
		if !m.take(',') {
			return false
		}
	}
}

// mergeList patches a list whose elements are found by a key. Elements of the patch keep its order; an element that only
// the old list has goes before one of the patch's that followed it there, and else behind all of them.
func (m *merger) mergeList(f *fieldPlan, v reflect.Value, depth int) bool {
	elem := f.plan.elem
	at, ok := elem.byName[f.key]
	if elem.op != object || !ok {
		return false
	}
	key := &elem.fields[at]
	if key.plan.op != text && key.plan.op != signed {
		return false
	}
	old := v
	byKey := make(map[any]int, old.Len())
	for i := range old.Len() {
		kv := key.of(old.Index(i))
		k := kv.Interface()
		if _, twice := byKey[k]; twice || kv.IsZero() && key.omitEmpty {
			return false
		}
		byKey[k] = i
	}
	patched, from, ok := m.patchItems(elem, key, old, byKey, depth)
	if !ok {
		return false
	}
	inPatch := make([]bool, old.Len())
	for _, i := range from {
		if i >= 0 {
			inPatch[i] = true
		}
	}
	out := reflect.MakeSlice(f.plan.typ, 0, old.Len()+patched.Len())
	left := 0
	for n, i := range from {
		for ; left < old.Len() && (inPatch[left] || left < i); left++ {
			if !inPatch[left] {
				out = reflect.Append(out, old.Index(left))
			}
		}
		out = reflect.Append(out, patched.Index(n))
	}
	for ; left < old.Len(); left++ {
		if !inPatch[left] {
			out = reflect.Append(out, old.Index(left))
		}
	}
	v.Set(out)
	return true
}

// patchItems reads the elements of a patch of a list, merged with the old ones of their keys; from are the old ones'
// places, -1 for what is new.
func (m *merger) patchItems(elem *plan, key *fieldPlan, old reflect.Value, byKey map[any]int, depth int) (items reflect.Value, from []int, ok bool) {
	items = reflect.MakeSlice(reflect.SliceOf(elem.typ), 0, 4)
	if !m.take('[') || m.next() == ']' {
		return items, nil, false
	}
	had := map[any]bool{}
	for {
		k, ok := m.keyOf(key)
		if !ok || had[k] {
			return items, nil, false
		}
		had[k] = true
		e := reflect.New(elem.typ).Elem()
		i, there := byKey[k]
		if there {
			e.Set(old.Index(i))
		} else {
			i = -1
		}
		// A new element is taken as it is, but there is nothing in it either that merging would do differently.
		if !m.object(elem, e, depth+1) {
			return items, nil, false
		}
		items, from = reflect.Append(items, e), append(from, i)
		if m.take(']') {
			return items, from, true
		}
		if !m.take(',') {
			return items, nil, false
		}
	}
}

// keyOf looks ahead for the key of the element that comes.
func (m *merger) keyOf(key *fieldPlan) (any, bool) {
	ahead := decoder{scanner: m.scanner}
	if !ahead.take('{') {
		return nil, false
	}
	for {
		name, ok := ahead.text()
		if !ok || !ahead.take(':') {
			return nil, false
		}
		if name == key.name {
			k := reflect.New(key.plan.typ).Elem()
			ok := ahead.next() != 'n' && ahead.value(key.plan, k, 0)
			return k.Interface(), ok
		}
		if _, ok := ahead.skip(0); !ok || !ahead.take(',') {
			return nil, false
		}
	}
}
