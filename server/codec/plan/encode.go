package plan

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Marshal returns the JSON that encoding/json makes of what obj points to.
func Marshal(obj any) ([]byte, error) {
	v := reflect.ValueOf(obj)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return json.Marshal(obj)
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	e := encoder{b: (*buf)[:0]}
	err := e.value(planOf(v.Type().Elem()), v.Elem())
	if cap(e.b) <= maxBuffer {
		*buf = e.b
	}
	if err != nil {
		return nil, err
	}
	return slices.Clone(e.b), nil // of the right size: it may be kept for long
}

// Append appends the JSON that encoding/json makes of what obj points to.
func Append(b []byte, obj any) ([]byte, error) {
	v := reflect.ValueOf(obj)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		j, err := json.Marshal(obj)
		return append(b, j...), err
	}
	e := encoder{b: b}
	err := e.value(planOf(v.Type().Elem()), v.Elem())
	return e.b, err
}

// AppendText appends a string as encoding/json writes it.
func AppendText(b []byte, s string) []byte {
	e := encoder{b: b}
	e.text(s)
	return e.b
}

// maxBuffer is the size in bytes up to which buffers are kept for the next.
const maxBuffer = 64 << 10

var buffers = sync.Pool{New: func() any { return new([]byte) }}

// encoder appends JSON.
type encoder struct{ b []byte }

func (e *encoder) value(p *plan, v reflect.Value) error {
	switch p.op {
	case object:
		return e.object(p, v)
	case pointer:
		if v.IsNil() {
			e.b = append(e.b, "null"...)
			return nil
		}
		return e.value(p.elem, v.Elem())
	case list:
		return e.list(p, v)
	case dictionary:
		return e.dictionary(p, v)
	case text:
		e.text(v.String())
	case boolean:
		e.b = strconv.AppendBool(e.b, v.Bool())
	case signed:
		e.b = strconv.AppendInt(e.b, v.Int(), 10)
	case unsigned:
		e.b = strconv.AppendUint(e.b, v.Uint(), 10)
	case octets:
		if v.IsNil() {
			e.b = append(e.b, "null"...)
			return nil
		}
		e.b = append(e.b, '"')
		e.b = base64.StdEncoding.AppendEncode(e.b, v.Bytes())
		e.b = append(e.b, '"')
	default:
		return e.special(p, v)
	}
	return nil
}

// special writes the types that have a form of their own.
func (e *encoder) special(p *plan, v reflect.Value) error {
	if !v.CanAddr() { // the value of a dictionary
		c := reflect.New(p.typ).Elem()
		c.Set(v)
		v = c
	}
	switch p.op {
	case moment:
		if t := v.Addr().Interface().(*metav1.Time); t.IsZero() {
			e.b = append(e.b, "null"...)
		} else {
			e.b = append(e.b, '"')
			e.b = t.UTC().AppendFormat(e.b, time.RFC3339)
			e.b = append(e.b, '"')
		}
		return nil
	case quantity:
		b, err := v.Addr().Interface().(*resource.Quantity).MarshalJSON()
		e.b = append(e.b, b...)
		return err
	case intOrString:
		if x := v.Addr().Interface().(*intstr.IntOrString); x.Type == intstr.Int {
			e.b = strconv.AppendInt(e.b, int64(x.IntVal), 10)
			return nil
		} else if x.Type == intstr.String {
			e.text(x.StrVal)
			return nil
		}
	case fieldSet:
		if f := v.Addr().Interface().(*metav1.FieldsV1); compact(f.Raw) {
			e.b = append(e.b, f.Raw...)
			return nil
		}
	}
	b, err := json.Marshal(v.Addr().Interface())
	e.b = append(e.b, b...)
	return err
}

// compact reports that encoding/json would write the raw JSON as it is.
func compact(raw []byte) bool {
	for _, c := range raw {
		switch c {
		case ' ', '\t', '\n', '\r', '<', '>', '&', 0xe2: // 0xe2 begins the two line separators that it escapes
			return false
		}
	}
	s := scanner{data: raw}
	_, ok := s.skip(0)
	return ok && s.at == len(raw)
}

func (e *encoder) object(p *plan, v reflect.Value) error {
	e.b = append(e.b, '{')
	start := len(e.b)
	for i := range p.fields {
		f := &p.fields[i]
		fv := v.Field(f.index[0])
		for _, n := range f.index[1:] {
			fv = fv.Field(n)
		}
		if f.omitEmpty && empty(f.plan, fv) || f.omitZero && zero(f, fv) {
			continue
		}
		if len(e.b) > start {
			e.b = append(e.b, ',')
		}
		e.b = append(e.b, f.head...)
		if err := e.value(f.plan, fv); err != nil {
			return err
		}
	}
	e.b = append(e.b, '}')
	return nil
}

// empty is what omitempty means.
func empty(p *plan, v reflect.Value) bool {
	switch p.op {
	case pointer:
		return v.IsNil()
	case text, list, dictionary, octets:
		return v.Len() == 0
	case boolean:
		return !v.Bool()
	case signed:
		return v.Int() == 0
	case unsigned:
		return v.Uint() == 0
	case object, moment, quantity, intOrString, fieldSet:
		return false
	}
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

// zero is what omitzero means.
func zero(f *fieldPlan, v reflect.Value) bool {
	switch {
	case f.plan.op == moment && v.CanAddr():
		return v.Addr().Interface().(*metav1.Time).IsZero()
	case f.zeroer && v.CanAddr():
		return v.Addr().Interface().(interface{ IsZero() bool }).IsZero()
	case v.Kind() == reflect.Pointer && v.IsNil():
		return true
	}
	if z, ok := v.Interface().(interface{ IsZero() bool }); ok {
		return z.IsZero()
	}
	return v.IsZero()
}

func (e *encoder) list(p *plan, v reflect.Value) error {
	if v.IsNil() {
		e.b = append(e.b, "null"...)
		return nil
	}
	e.b = append(e.b, '[')
	for i := range v.Len() {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		if err := e.value(p.elem, v.Index(i)); err != nil {
			return err
		}
	}
	e.b = append(e.b, ']')
	return nil
}

func (e *encoder) dictionary(p *plan, v reflect.Value) error {
	if v.IsNil() {
		e.b = append(e.b, "null"...)
		return nil
	}
	switch m := v.Interface().(type) {
	case map[string]string:
		e.strings(m)
		return nil
	case corev1.ResourceList:
		return e.resources(m)
	}
	type pair struct {
		key   string
		value reflect.Value
	}
	pairs := make([]pair, 0, v.Len())
	for it := v.MapRange(); it.Next(); {
		pairs = append(pairs, pair{it.Key().String(), it.Value()})
	}
	slices.SortFunc(pairs, func(a, b pair) int { return strings.Compare(a.key, b.key) })
	e.b = append(e.b, '{')
	for i, kv := range pairs {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.text(kv.key)
		e.b = append(e.b, ':')
		if err := e.value(p.elem, kv.value); err != nil {
			return err
		}
	}
	e.b = append(e.b, '}')
	return nil
}

func (e *encoder) strings(m map[string]string) {
	var few [16]string
	keys := few[:0]
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	e.b = append(e.b, '{')
	for i, k := range keys {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.text(k)
		e.b = append(e.b, ':')
		e.text(m[k])
	}
	e.b = append(e.b, '}')
}

// resources writes what nearly every pod has, without copying it to where reflection can read it.
func (e *encoder) resources(m corev1.ResourceList) error {
	var few [8]corev1.ResourceName
	keys := few[:0]
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	e.b = append(e.b, '{')
	for i, k := range keys {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.text(string(k))
		e.b = append(e.b, ':')
		b, err := m[k].MarshalJSON()
		if err != nil {
			return err
		}
		e.b = append(e.b, b...)
	}
	e.b = append(e.b, '}')
	return nil
}

// plainBytes are the bytes that stand for themselves in a string.
var plainBytes = func() (t [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		t[c] = !strings.ContainsRune(`"\<>&`, c)
	}
	return t
}()

func (e *encoder) text(s string) {
	for i := range len(s) {
		if !plainBytes[s[i]] {
			b, err := json.Marshal(s)
			if err == nil { // strings cannot fail
				e.b = append(e.b, b...)
			}
			return
		}
	}
	e.b = append(e.b, '"')
	e.b = append(e.b, s...)
	e.b = append(e.b, '"')
}
