package plan

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math/bits"
	"reflect"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Decode reads a JSON document into the zero value that into points to. It reports false where the document is not
// beyond any doubt: then into is zero again, and the general way must be asked, which knows what is wrong, if anything is.
func Decode(data []byte, into any) bool {
	v := reflect.ValueOf(into).Elem()
	p := planOf(v.Type())
	if p.op != object {
		return false
	}
	d := decoder{scanner: scanner{data: data}}
	if d.next() == '{' && d.value(p, v, 0) && d.next() == 0 && d.at == len(data) {
		return true
	}
	v.SetZero()
	return false
}

// decoder reads JSON into Go values.
type decoder struct {
	scanner
	noNulls bool // in dictionaries and in values that are opaque here, where a patch means something else by them
}

// seen are the fields that an object has had.
type seen [2]uint64

func (s *seen) twice(i int) bool {
	bit := uint64(1) << (i % 64)
	was := s[i/64]&bit != 0
	s[i/64] |= bit
	return was
}

// value reads a value into v, which is zero.
func (d *decoder) value(p *plan, v reflect.Value, depth int) bool {
	if depth > maxDepth {
		return false
	}
	if d.null() {
		switch p.op {
		case general, marshaled:
			return false
		}
		return true // leaves everything else as it is: zero
	}
	switch p.op {
	case object:
		return d.object(p, v, depth)
	case pointer:
		v.Set(reflect.New(p.elem.typ))
		return d.value(p.elem, v.Elem(), depth)
	case list:
		return d.list(p, v, depth)
	case dictionary:
		return d.dictionary(p, v, depth)
	}
	return d.leaf(p, v)
}

func (d *decoder) object(p *plan, v reflect.Value, depth int) bool {
	if !d.take('{') {
		return false
	}
	if d.take('}') {
		return true
	}
	var had seen
	for {
		f := d.field(p, &had)
		if f == nil || !d.value(f.plan, f.of(v), depth+1) {
			return false
		}
		if d.take('}') {
			return true
		}
		if !d.take(',') {
			return false
		}
	}
}

// field takes the name of a field and the colon behind it; nil if the field is unknown or has been there before.
func (d *decoder) field(p *plan, had *seen) *fieldPlan {
	name, clean, ok := d.raw()
	if !ok || !clean || !d.take(':') {
		return nil
	}
	i, ok := p.byName[string(name)]
	if !ok || had.twice(i) {
		return nil
	}
	return &p.fields[i]
}

func (d *decoder) list(p *plan, v reflect.Value, depth int) bool {
	if !d.take('[') {
		return false
	}
	if d.take(']') {
		v.Set(reflect.MakeSlice(p.typ, 0, 0))
		return true
	}
	for n := 0; ; n++ {
		if n == v.Cap() {
			v.Grow(max(1, n)) // one first: most lists have one element
		}
		v.SetLen(n + 1)
		e := v.Index(n)
		if !d.value(p.elem, e, depth+1) {
			return false
		}
		if d.take(']') {
			return true
		}
		if !d.take(',') {
			return false
		}
	}
}

func (d *decoder) dictionary(p *plan, v reflect.Value, depth int) bool {
	if !d.take('{') {
		return false
	}
	v.Set(reflect.MakeMap(p.typ))
	if d.take('}') {
		return true
	}
	if m, ok := v.Interface().(map[string]string); ok {
		return d.strings(m)
	}
	key := reflect.New(p.typ.Key()).Elem()
	for {
		k, ok := d.text()
		if !ok || !d.take(':') {
			return false
		}
		key.SetString(k)
		if v.MapIndex(key).IsValid() {
			return false
		}
		e := reflect.New(p.elem.typ).Elem()
		if d.noNulls && d.next() == 'n' || !d.value(p.elem, e, depth+1) {
			return false
		}
		v.SetMapIndex(key, e)
		if d.take('}') {
			return true
		}
		if !d.take(',') {
			return false
		}
	}
}

// strings reads the most usual of all dictionaries behind its brace.
func (d *decoder) strings(m map[string]string) bool {
	for {
		k, ok := d.text()
		if !ok || !d.take(':') {
			return false
		}
		if _, twice := m[k]; twice {
			return false
		}
		if d.null() {
			if d.noNulls {
				return false
			}
			m[k] = ""
		} else if m[k], ok = d.text(); !ok {
			return false
		}
		if d.take('}') {
			return true
		}
		if !d.take(',') {
			return false
		}
	}
}

// leaf reads a value that has no others in it, as far as plans know.
func (d *decoder) leaf(p *plan, v reflect.Value) bool {
	switch p.op {
	case text:
		s, ok := d.text()
		v.SetString(s)
		return ok
	case boolean:
		if d.next() == 't' {
			v.SetBool(true)
			return d.word("true")
		}
		v.SetBool(false)
		return d.word("false")
	case signed:
		n, ok := d.integer(p.typ.Bits())
		v.SetInt(n)
		return ok
	case unsigned:
		n, ok := d.integer(64)
		if !ok || n < 0 || bits.Len64(uint64(n)) > p.typ.Bits() {
			return false
		}
		v.SetUint(uint64(n))
		return true
	case octets:
		s, ok := d.text()
		if !ok {
			return false
		}
		b, err := base64.StdEncoding.DecodeString(s)
		v.SetBytes(b)
		return err == nil
	case moment:
		return d.moment(v.Addr().Interface().(*metav1.Time))
	case intOrString:
		return d.intOrString(v.Addr().Interface().(*intstr.IntOrString))
	case quantity, fieldSet, marshaled:
		b, ok := d.skip(0)
		if d.noNulls && bytes.Contains(b, []byte("null")) {
			return false
		}
		return ok && v.Addr().Interface().(json.Unmarshaler).UnmarshalJSON(b) == nil
	}
	return false
}

func (d *decoder) integer(size int) (int64, bool) {
	b, whole, ok := d.number()
	if !ok || !whole {
		return 0, false
	}
	n, err := strconv.ParseInt(string(b), 10, size)
	return n, err == nil
}

func (d *decoder) moment(t *metav1.Time) bool {
	s, ok := d.text()
	if !ok {
		return false
	}
	parsed, err := time.Parse(time.RFC3339, s)
	t.Time = parsed.Local()
	return err == nil
}

func (d *decoder) intOrString(v *intstr.IntOrString) bool {
	if d.next() == '"' {
		s, ok := d.text()
		v.Type, v.StrVal = intstr.String, s
		return ok
	}
	n, ok := d.integer(32)
	v.Type, v.IntVal = intstr.Int, int32(n)
	return ok
}
