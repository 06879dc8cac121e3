package rest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/skiff-sh/skiff/api"
)

// This file saves most of the work on managed fields. Who owns what after a write follows from which fields are there
// and which of them differ, not from what is in them, but for the elements of lists, some of which are named by their
// content. That is a write's shape. The pods of one deployment, the events of one component, the leases of all nodes
// are written in few shapes, and what the field manager made of the first of a shape holds for the others.

// Bounds of what is remembered for one resource or subresource.
const (
	maxShapes = 128     // all are forgotten when there are more
	maxShape  = 4 << 10 // bytes
)

// shapes are the outcomes of writes by their shape.
type shapes struct {
	mu    sync.Mutex
	known map[string]outcome
}

// outcome is the managed fields after a write.
type outcome struct {
	odd     bool                        // the shape does not tell enough
	entries []metav1.ManagedFieldsEntry // without times
	fresh   []bool                      // whether the write has set the entry's time
}

// remembered returns the managed fields after a write of a known shape, or what must be told what they turn out to be; that
// is nil if the shape cannot be remembered. The same members need not be looked at. after gets the managed fields of before.
func (s *shapes) remembered(before, after api.Object, same members, manager string) (entries []metav1.ManagedFieldsEntry, ok bool, learn func([]metav1.ManagedFieldsEntry)) {
	managed := before.GetManagedFields()
	if m := after.GetManagedFields(); m != nil && !reflect.DeepEqual(m, managed) || len(managed) > 8 {
		return nil, false, nil // the client changes them itself, or there are so many that the oldest are merged
	}
	after.SetManagedFields(managed) // the very same, so that learn knows the times by their pointers
	sh := shapeOf(before, after, same, managed, manager)
	defer sketches.Put(sh)
	if sh.odd || len(sh.b) > maxShape {
		return nil, false, nil
	}
	s.mu.Lock()
	o, ok := s.known[string(sh.b)]
	s.mu.Unlock()
	if ok {
		return o.at(time.Now().UTC(), managed), true, nil
	}
	key := string(sh.b)
	return nil, false, func(result []metav1.ManagedFieldsEntry) { s.learn(key, managed, result) }
}

// recall is the outcome of a write of a shape, if one is known.
func (s *shapes) recall(key string) (outcome, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.known[key]
	return o, ok
}

// refuse remembers that nothing follows from a shape.
func (s *shapes) refuse(key string) { s.put(key, outcome{odd: true}) }

func (s *shapes) put(key string, o outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil || len(s.known) >= maxShapes {
		s.known = map[string]outcome{}
	}
	s.known[key] = o
}

func (s *shapes) learn(key string, managed, result []metav1.ManagedFieldsEntry) {
	o := outcome{entries: make([]metav1.ManagedFieldsEntry, len(result)), fresh: make([]bool, len(result))}
	for i, e := range result {
		was, had := entryOf(managed, &e)
		// The field manager hands the old pointer on; an apply that changes nothing sets none.
		o.fresh[i] = e.Time != nil && (!had || was.Time != e.Time)
		e.Time = nil
		o.entries[i] = e
	}
	s.put(key, o)
}

func entryOf(managed []metav1.ManagedFieldsEntry, e *metav1.ManagedFieldsEntry) (metav1.ManagedFieldsEntry, bool) {
	for _, m := range managed {
		if m.Manager == e.Manager && m.Operation == e.Operation && m.Subresource == e.Subresource {
			return m, true
		}
	}
	return metav1.ManagedFieldsEntry{}, false
}

// at is the outcome of a write now, in the order that upstream gives it.
func (o outcome) at(now time.Time, managed []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
	if len(o.entries) == 0 {
		return nil
	}
	out := slices.Clone(o.entries)
	for i := range out {
		if o.fresh[i] {
			out[i].Time = &metav1.Time{Time: now}
		} else if was, ok := entryOf(managed, &out[i]); ok {
			out[i].Time = was.Time
		}
	}
	slices.SortStableFunc(out, func(a, b metav1.ManagedFieldsEntry) int {
		for _, c := range []int{strings.Compare(string(a.Operation), string(b.Operation)), int(seconds(a.Time) - seconds(b.Time)),
			strings.Compare(a.Manager, b.Manager), strings.Compare(a.APIVersion, b.APIVersion)} {
			if c != 0 {
				return c
			}
		}
		return strings.Compare(a.Subresource, b.Subresource)
	})
	return out
}

func seconds(t *metav1.Time) int64 {
	if t == nil {
		return 0
	}
	return t.Unix()
}

// sketch writes a shape down. What it writes can be read in one way only, given the type.
type sketch struct {
	b     []byte
	odd   bool            // there is something in it whose shape is not known to be enough
	times map[int64]int64 // in lists times are told apart, but are not told
}

var sketches = sync.Pool{New: func() any { return &sketch{} }}

func shapeOf(before, after api.Object, same members, managed []metav1.ManagedFieldsEntry, manager string) *sketch {
	s := sketches.Get().(*sketch)
	s.b, s.odd = s.b[:0], false
	clear(s.times)
	s.text(manager)
	s.number(int64(len(managed)))
	for i := range managed {
		m := &managed[i]
		if _, twice := entryOf(managed[:i], m); twice {
			s.odd = true
		}
		for _, t := range []string{m.Manager, string(m.Operation), m.Subresource, m.FieldsType} {
			s.text(t)
		}
		if m.FieldsV1 != nil {
			s.bytes(m.FieldsV1.Raw)
		} else {
			s.odd = true
		}
	}
	a, b := reflect.ValueOf(before).Elem(), reflect.ValueOf(after).Elem()
	s.odd = s.odd || formOf(a.Type()).odd
	for i := range a.NumField() {
		if s.bits(same.has(i)); !same.has(i) {
			s.pair(a.Field(i), b.Field(i))
		}
	}
	return s
}

func (s *sketch) number(n int64) { s.b = binary.AppendVarint(s.b, n) }
func (s *sketch) text(t string)  { s.number(int64(len(t))); s.b = append(s.b, t...) }
func (s *sketch) bytes(t []byte) { s.number(int64(len(t))); s.b = append(s.b, t...) }

func (s *sketch) bits(bits ...bool) {
	b := byte(0)
	for i, set := range bits {
		if set {
			b |= 1 << i
		}
	}
	s.b = append(s.b, b)
}

// Leaves: structs that are one value to the field manager.
var (
	timeType        = reflect.TypeFor[metav1.Time]()
	microTimeType   = reflect.TypeFor[metav1.MicroTime]()
	quantityType    = reflect.TypeFor[resource.Quantity]()
	intOrStringType = reflect.TypeFor[intstr.IntOrString]()
	marshalerType   = reflect.TypeFor[json.Marshaler]()
)

// form is what there is to know about a struct type.
type form struct {
	odd     bool // not written field by field
	managed int  // the field of the managed fields; -1 for none
}

var forms sync.Map // reflect.Type to form

func formOf(t reflect.Type) form {
	if f, ok := forms.Load(t); ok {
		return f.(form)
	}
	f := form{odd: t.Implements(marshalerType) || reflect.PointerTo(t).Implements(marshalerType), managed: -1}
	for i := range t.NumField() {
		switch x := t.Field(i); {
		case !x.IsExported():
			f.odd = true
		case x.Name == "ManagedFields":
			f.managed = i
		}
	}
	forms.Store(t, f)
	return f
}

// pair writes how b differs from a, outside of lists.
func (s *sketch) pair(a, b reflect.Value) {
	if s.odd || len(s.b) > maxShape {
		return
	}
	switch a.Kind() {
	case reflect.Struct:
		s.pairStruct(a, b)
	case reflect.Pointer:
		s.bits(a.IsNil(), b.IsNil())
		zero := func(v reflect.Value) reflect.Value {
			if v.IsNil() {
				return reflect.Zero(v.Type().Elem())
			}
			return v.Elem()
		}
		if !a.IsNil() || !b.IsNil() {
			s.pair(zero(a), zero(b))
		}
	case reflect.Map:
		s.pairMap(a, b)
	case reflect.Slice:
		s.bits(a.IsNil(), b.IsNil(), a.Len() == 0, b.Len() == 0)
		switch {
		case a.Len() == 0 && b.Len() == 0:
		case a.Type().Elem().Kind() == reflect.Uint8:
			s.bits(bytes.Equal(a.Bytes(), b.Bytes()))
		default:
			same := reflect.DeepEqual(a.Interface(), b.Interface())
			if s.bits(same); !same {
				s.whole(a)
				s.whole(b)
			}
		}
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int32, reflect.Int64, reflect.Int8, reflect.Int16,
		reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float64:
		s.bits(a.IsZero(), b.IsZero(), a.Equal(b))
	default:
		s.odd = true
	}
}

func (s *sketch) pairStruct(a, b reflect.Value) {
	switch t := a.Type(); t {
	case timeType:
		x, y := a.Interface().(metav1.Time), b.Interface().(metav1.Time)
		s.bits(x.IsZero(), y.IsZero(), x.Unix() == y.Unix())
	case microTimeType:
		x, y := a.Interface().(metav1.MicroTime), b.Interface().(metav1.MicroTime)
		s.bits(x.IsZero(), y.IsZero(), x.UnixMicro() == y.UnixMicro())
	case quantityType:
		x, y := a.Interface().(resource.Quantity), b.Interface().(resource.Quantity)
		s.bits(x.IsZero(), y.IsZero(), x.String() == y.String())
	case intOrStringType:
		x, y := a.Interface().(intstr.IntOrString), b.Interface().(intstr.IntOrString)
		s.bits(a.IsZero(), b.IsZero(), x.Type == y.Type && x.String() == y.String())
	default:
		if a.IsZero() && b.IsZero() {
			s.bits(true)
			return
		}
		s.bits(false)
		f := formOf(t)
		if s.odd = s.odd || f.odd; s.odd {
			return
		}
		for i := range a.NumField() {
			if i != f.managed {
				s.pair(a.Field(i), b.Field(i))
			}
		}
	}
}

func (s *sketch) pairMap(a, b reflect.Value) {
	s.bits(a.IsNil(), b.IsNil())
	keys := s.keys(a)
	for _, k := range s.keys(b) {
		if !a.MapIndex(k).IsValid() {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(x, y reflect.Value) int { return strings.Compare(x.String(), y.String()) })
	s.number(int64(len(keys)))
	for _, k := range keys {
		s.text(k.String())
		x, y := a.MapIndex(k), b.MapIndex(k)
		s.bits(x.IsValid(), y.IsValid())
		if !x.IsValid() {
			x = reflect.Zero(a.Type().Elem())
		}
		if !y.IsValid() {
			y = reflect.Zero(a.Type().Elem())
		}
		s.pair(x, y)
	}
}

func (s *sketch) keys(m reflect.Value) []reflect.Value {
	if m.Type().Key().Kind() != reflect.String {
		s.odd = true
		return nil
	}
	return m.MapKeys()
}

// whole writes all that is in a list's element but times.
func (s *sketch) whole(v reflect.Value) {
	if s.odd || len(s.b) > maxShape {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		s.wholeStruct(v)
	case reflect.Pointer:
		if s.bits(v.IsNil()); !v.IsNil() {
			s.whole(v.Elem())
		}
	case reflect.Map:
		s.bits(v.IsNil())
		keys := s.keys(v)
		slices.SortFunc(keys, func(x, y reflect.Value) int { return strings.Compare(x.String(), y.String()) })
		s.number(int64(len(keys)))
		for _, k := range keys {
			s.text(k.String())
			s.whole(v.MapIndex(k))
		}
	case reflect.Slice:
		s.bits(v.IsNil())
		s.number(int64(v.Len()))
		for i := range v.Len() {
			s.whole(v.Index(i))
		}
	case reflect.String:
		s.text(v.String())
	case reflect.Bool:
		s.bits(v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		s.number(v.Int())
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		s.number(int64(v.Uint()))
	default:
		s.odd = true
	}
}

func (s *sketch) wholeStruct(v reflect.Value) {
	switch t := v.Type(); t {
	case timeType:
		x := v.Interface().(metav1.Time)
		s.moment(x.IsZero(), 2*x.Unix())
	case microTimeType:
		x := v.Interface().(metav1.MicroTime)
		s.moment(x.IsZero(), 2*x.UnixMicro()+1)
	case quantityType:
		x := v.Interface().(resource.Quantity)
		s.text(x.String())
	case intOrStringType:
		x := v.Interface().(intstr.IntOrString)
		s.number(int64(x.Type))
		s.text(x.String())
	default:
		if v.IsZero() {
			s.bits(true)
			return
		}
		s.bits(false)
		if s.odd = s.odd || formOf(t).odd; s.odd {
			return
		}
		for i := range v.NumField() {
			s.whole(v.Field(i))
		}
	}
}

// moment writes which of the times seen so far this is.
func (s *sketch) moment(zero bool, t int64) {
	if zero {
		s.number(-1)
		return
	}
	n, ok := s.times[t]
	if !ok {
		if s.times == nil {
			s.times = map[int64]int64{}
		}
		n = int64(len(s.times))
		s.times[t] = n
	}
	s.number(n)
}
