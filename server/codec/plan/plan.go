// Package plan reads, writes, patches and compares JSON of the API's Go types by plans that are compiled once for each
// type, several times faster than the general way.
//
// Invariant: a plan does exactly what the general way does (encoding/json, sigs.k8s.io/json in its strict form,
// strategicpatch, equality.Semantic), or reports that it cannot. Whatever is unusual (an unknown or repeated field, a
// patch directive, a malformed number) is left to the general way, whose errors clients know. Tests hold each function
// against its general counterpart.
//
// Only server's folders import plan; it imports apimachinery only.
package plan

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// op is how values of a type are treated.
type op uint8

const (
	general op = iota // by the general way; not read at all
	object
	pointer
	list
	dictionary // with string keys
	text
	boolean
	signed
	unsigned
	octets      // []byte
	moment      // metav1.Time
	quantity    // resource.Quantity
	intOrString // intstr.IntOrString
	fieldSet    // metav1.FieldsV1
	marshaled   // has JSON methods of its own
)

// plan is what there is to know about one Go type.
type plan struct {
	op     op
	typ    reflect.Type
	elem   *plan // of pointers, lists and dictionaries
	fields []fieldPlan
	byName map[string]int
	hidden bool // the struct has fields that JSON does not
}

// fieldPlan is one field as JSON has it, also of embedded structs.
type fieldPlan struct {
	name      string
	head      string // `"name":`
	index     []int  // path of field numbers; longer than one below embedded structs
	plan      *plan
	omitEmpty bool
	omitZero  bool
	zeroer    bool // *T has IsZero
	// How a strategic merge patch treats the field.
	merge, replace bool
	key            string // of a merged list
}

func (f *fieldPlan) of(v reflect.Value) reflect.Value {
	for _, i := range f.index {
		v = v.Field(i)
	}
	return v
}

var (
	timeType        = reflect.TypeFor[metav1.Time]()
	quantityType    = reflect.TypeFor[resource.Quantity]()
	intOrStringType = reflect.TypeFor[intstr.IntOrString]()
	fieldsType      = reflect.TypeFor[metav1.FieldsV1]()
	marshalerType   = reflect.TypeFor[json.Marshaler]()
	unmarshalerType = reflect.TypeFor[json.Unmarshaler]()
	textType        = reflect.TypeFor[encoding.TextMarshaler]()
	textReadType    = reflect.TypeFor[encoding.TextUnmarshaler]()
	zeroerType      = reflect.TypeFor[interface{ IsZero() bool }]()
)

var plans sync.Map // reflect.Type to *plan: a cache of what follows from the types alone

// planOf compiles or finds the plan of a type.
func planOf(t reflect.Type) *plan {
	if p, ok := plans.Load(t); ok {
		return p.(*plan)
	}
	c := compiler{}
	p := c.compile(t)
	for typ, made := range c {
		plans.LoadOrStore(typ, made)
	}
	return p
}

// compiler holds the plans under construction, for types that contain themselves.
type compiler map[reflect.Type]*plan

func (c compiler) compile(t reflect.Type) *plan {
	if p, ok := plans.Load(t); ok {
		return p.(*plan)
	}
	if p, ok := c[t]; ok {
		return p
	}
	p := &plan{typ: t}
	c[t] = p
	switch t {
	case timeType:
		p.op = moment
		return p
	case quantityType:
		p.op = quantity
		return p
	case intOrStringType:
		p.op = intOrString
		return p
	case fieldsType:
		p.op = fieldSet
		return p
	}
	ptr := reflect.PointerTo(t)
	switch {
	case t.Kind() == reflect.Pointer:
	case ptr.Implements(unmarshalerType) && ptr.Implements(marshalerType):
		p.op = marshaled
		return p
	case ptr.Implements(marshalerType), ptr.Implements(unmarshalerType), ptr.Implements(textType), ptr.Implements(textReadType):
		return p
	}
	switch t.Kind() {
	case reflect.Struct:
		p.op = object
		if !c.fields(p, t, nil) {
			p.op, p.fields = general, nil
			return p
		}
		p.byName = make(map[string]int, len(p.fields))
		for i := range p.fields {
			if _, twice := p.byName[p.fields[i].name]; twice {
				p.op = general // which of them counts is encoding/json's to say
				return p
			}
			p.byName[p.fields[i].name] = i
		}
		if len(p.fields) > 128 {
			p.op = general // more than seen has bits for
		}
	case reflect.Pointer:
		p.op, p.elem = pointer, c.compile(t.Elem())
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			p.op = octets
			return p
		}
		p.op, p.elem = list, c.compile(t.Elem())
	case reflect.Map:
		if k := t.Key(); k.Kind() == reflect.String && !k.Implements(textType) && !reflect.PointerTo(k).Implements(textReadType) {
			p.op, p.elem = dictionary, c.compile(t.Elem())
		}
	case reflect.String:
		p.op = text
	case reflect.Bool:
		p.op = boolean
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		p.op = signed
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		p.op = unsigned
	}
	return p
}

// fields collects a struct's fields as encoding/json sees them; ok is false where there is something unusual.
func (c compiler) fields(p *plan, t reflect.Type, path []int) (ok bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		if tag == "-" {
			p.hidden = true
			continue
		}
		at := append(path[:len(path):len(path)], i)
		if f.Anonymous && name == "" {
			if f.Type.Kind() != reflect.Struct || !f.IsExported() || c.compile(f.Type).op != object || !c.fields(p, f.Type, at) {
				return false
			}
			continue
		}
		if !f.IsExported() {
			p.hidden = true
			continue
		}
		if name == "" {
			name = f.Name
		}
		if strings.ContainsAny(name, "<>&\"\\") {
			return false
		}
		fp := fieldPlan{name: name, head: `"` + name + `":`, index: at, plan: c.compile(f.Type), key: f.Tag.Get("patchMergeKey")}
		for o := range strings.SplitSeq(options, ",") {
			switch o {
			case "omitempty":
				fp.omitEmpty = true
			case "omitzero":
				fp.omitZero, fp.zeroer = true, reflect.PointerTo(f.Type).Implements(zeroerType)
			case "", "inline":
			default:
				return false
			}
		}
		for s := range strings.SplitSeq(f.Tag.Get("patchStrategy"), ",") {
			switch s {
			case "merge":
				fp.merge = true
			case "replace":
				fp.replace = true
			}
		}
		p.fields = append(p.fields, fp)
	}
	return true
}
