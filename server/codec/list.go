package codec

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/codec/plan"
	"github.com/skiff-sh/skiff/store"
)

// YAML turns JSON into YAML.
func YAML(j []byte) ([]byte, error) { return yaml.JSONToYAML(j) }

// AppendItem appends an entry's JSON as lists have it: built-in kinds leave out apiVersion and kind there.
func AppendItem(b []byte, k *api.Kind, e *store.Entry) ([]byte, error) {
	if k.Hub == nil {
		start := len(b)
		b, err := AppendJSON(b, e)
		if err != nil {
			return b, err
		}
		item := b[start:]
		head := len(`{"kind":"","apiVersion":"",`) + len(k.Kind) + len(k.Group) + len(k.Version)
		if k.Group != "" {
			head++ // the slash
		}
		if len(item) > head && bytes.HasPrefix(item, []byte(`{"kind":"`)) && !k.CRD {
			item = append(item[:1], item[head:]...)
		}
		return b[:start+len(item)], nil
	}
	obj, err := Convert(e.Object, k.Hub, k)
	if err != nil {
		return b, err
	}
	if k.CRD { // its items say what they are
		j, err := jsonAs(e, obj)
		return append(b, j...), err
	}
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{}) // a conversion's result is private
	return plan.Append(b, obj)
}

// jsonAs is the JSON of obj, which is an entry's object in some version. What is as stored has its bytes already.
func jsonAs(e *store.Entry, obj api.Object) ([]byte, error) {
	if obj == e.Object {
		return JSON(e)
	}
	return json.Marshal(obj)
}

// ProtobufList is what comes before and after the items of a list in protobuf, whose sizes are given: every Kubernetes
// list has its metadata in field 1 and its items in 2, each behind an ItemHead.
func ProtobufList(list schema.GroupVersionKind, meta metav1.ListMeta, sizes []int) (head, tail []byte, err error) {
	lm, err := meta.Marshal()
	if err != nil {
		return nil, nil, err
	}
	first := appendBytes(nil, 1, lm)
	total := len(first)
	var scratch [16]byte
	for _, n := range sizes {
		total += len(AppendItemHead(scratch[:0], n)) + n
	}
	head, tail = Envelope(list, total)
	return append(head, first...), tail, nil
}

// AppendItemHead appends what stands before an item of so many bytes.
func AppendItemHead(b []byte, size int) []byte { return appendVarint(append(b, 2<<3|2), uint64(size)) }

// columns are a row's printer columns, or the usual two.
func columns(k *api.Kind) []api.Column {
	if k.Columns != nil {
		return k.Columns
	}
	return []api.Column{api.NameColumn(), api.AgeColumn()}
}

// Table writes Tables of one kind, row by row.
type Table struct {
	Kind    *api.Kind
	Version string // of meta.k8s.io
	Include metav1.IncludeObjectPolicy
	Now     time.Time
	columns []api.Column
	scratch []byte
	ages    map[int64]string // by the second: many objects of a table are of one age
}

// Whole is the Table of some entries. Without headers it has no column definitions, as all but a watch's first.
func (t *Table) Whole(entries []*store.Entry, meta metav1.ListMeta, headers bool) ([]byte, error) {
	b, err := t.AppendHead(nil, meta, headers)
	for i, e := range entries {
		if i > 0 {
			b = append(b, ',')
		}
		if err == nil {
			b, err = t.AppendRow(b, e)
		}
	}
	return append(b, TableEnd...), err
}

// TableEnd stands behind the rows, which commas part.
const TableEnd = "]}"

// AppendHead appends what stands before the first row.
func (t *Table) AppendHead(b []byte, meta metav1.ListMeta, headers bool) ([]byte, error) {
	t.columns = columns(t.Kind)
	lm, err := json.Marshal(meta)
	if err != nil {
		return b, err
	}
	definitions := []byte("null")
	if headers {
		defs := make([]metav1.TableColumnDefinition, len(t.columns))
		for i, c := range t.columns {
			defs[i] = metav1.TableColumnDefinition{Name: c.Name, Type: c.Type, Format: c.Format, Description: c.Description, Priority: c.Priority}
		}
		if definitions, err = json.Marshal(defs); err != nil {
			return b, err
		}
	}
	b = append(b, `{"kind":"Table","apiVersion":"meta.k8s.io/`+t.Version+`","metadata":`...)
	b = append(b, lm...)
	b = append(b, `,"columnDefinitions":`...)
	b = append(b, definitions...)
	return append(b, `,"rows":[`...), nil
}

// AppendRow appends one row.
func (t *Table) AppendRow(b []byte, e *store.Entry) ([]byte, error) {
	obj := e.Object
	if t.Kind.Hub != nil {
		var err error
		if obj, err = Convert(obj, t.Kind.Hub, t.Kind); err != nil {
			return b, err
		}
	}
	b = append(b, `{"cells":[`...)
	b, err := t.appendCells(b, e, obj)
	if err != nil {
		return b, err
	}
	b = append(b, `],"object":`...)
	switch t.Include {
	case metav1.IncludeNone:
		b = append(b, "null"...)
	case metav1.IncludeObject:
		var o []byte
		o, err = jsonAs(e, obj)
		b = append(b, o...)
	default:
		if t.Version == "v1" {
			b, err = AppendMetadata(b, e)
			break
		}
		var o []byte
		o, err = Metadata(e)
		b = append(b, bytes.Replace(o, []byte("meta.k8s.io/v1"), []byte("meta.k8s.io/"+t.Version), 1)...)
	}
	return append(b, '}'), err
}

// hole and the number of its column stand in kept cells for one that depends on the time. It cannot be in JSON.
const hole = 0

func (t *Table) appendCells(b []byte, e *store.Entry, obj api.Object) ([]byte, error) {
	if t.Kind.CRD || t.Kind.Hub != nil { // other columns may show the same object
		return t.fill(b, obj, false)
	}
	var err error
	t.scratch, err = e.Append(t.scratch[:0], store.Cells, func(b []byte) ([]byte, error) { return t.fill(b, obj, true) })
	if err != nil {
		return b, err
	}
	for from := t.scratch; ; {
		at := bytes.IndexByte(from, hole)
		if at < 0 {
			return append(b, from...), nil
		}
		b = append(b, from[:at]...)
		if b, err = t.appendCell(b, &t.columns[from[at+1]], obj); err != nil {
			return b, err
		}
		from = from[at+2:]
	}
}

// fill appends the cells, or holes for those that are not to be kept.
func (t *Table) fill(b []byte, obj api.Object, holes bool) ([]byte, error) {
	var err error
	for i := range t.columns {
		if i > 0 {
			b = append(b, ',')
		}
		if c := &t.columns[i]; holes && !c.Fixed(obj) {
			b = append(b, hole, byte(i))
		} else if b, err = t.appendCell(b, c, obj); err != nil {
			return b, err
		}
	}
	return b, nil
}

func (t *Table) appendCell(b []byte, c *api.Column, obj api.Object) ([]byte, error) {
	if !c.Age {
		return appendCell(b, c.Value(obj, t.Now))
	}
	since := obj.GetCreationTimestamp()
	if since.IsZero() {
		return appendCell(b, api.Age(since, t.Now))
	}
	second := int64(t.Now.Sub(since.Time).Seconds())
	text, ok := t.ages[second]
	if !ok {
		if t.ages == nil || len(t.ages) >= maxAges {
			t.ages = map[int64]string{}
		}
		text = api.Age(since, t.Now)
		t.ages[second] = text
	}
	return plan.AppendText(b, text), nil
}

const maxAges = 4096 // that a table remembers

func appendCell(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case string:
		return plan.AppendText(b, v), nil
	case int64:
		return strconv.AppendInt(b, v, 10), nil
	}
	j, err := json.Marshal(v)
	return append(b, j...), err
}
