package api

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// metaDocs describes the fields of metadata; read-only.
var metaDocs = metav1.ObjectMeta{}.SwaggerDoc()

// NameColumn is every table's first column.
func NameColumn() Column {
	return Column{Name: "Name", Type: "string", Format: "name",
		Description: metaDocs["name"], Cell: func(o Object) any { return o.GetName() }}
}

// AgeColumn shows the time since the object was created.
func AgeColumn() Column {
	return Column{Name: "Age", Type: "string", Age: true, Description: metaDocs["creationTimestamp"]}
}

// CreatedColumn shows the time of creation itself, for kinds that upstream prints so.
func CreatedColumn() Column {
	return Column{Name: "Created At", Type: "date", Description: metaDocs["creationTimestamp"],
		Cell: func(o Object) any { return o.GetCreationTimestamp().UTC().Format(time.RFC3339) }}
}

// Col is a column with a cell of one kind.
func Col[T Object](name, typ string, cell func(T) any) Column {
	return Column{Name: name, Type: typ, Description: name, Cell: func(o Object) any { return cell(o.(T)) }}
}

// ColAt is a column whose text has an age inside.
func ColAt[T Object](name string, cell func(T, time.Time) any) Column {
	return Column{Name: name, Type: "string", Description: name,
		CellAt: func(o Object, now time.Time) any { return cell(o.(T), now) }}
}

// Described is the column with a longer description than its name.
func (c Column) Described(text string) Column { c.Description = text; return c }

// SteadyWhen is the column of ColAt whose text may be kept when the function says that it has no age inside.
func (c Column) SteadyWhen(steady func(Object) bool) Column { c.Steady = steady; return c }

// Formatted is the column with a format.
func (c Column) Formatted(format string) Column { c.Format = format; return c }

// Wide is the column shown with -o wide only.
func (c Column) Wide() Column { c.Priority = 1; return c }

// ThroughHub makes columns of the hub's type work on another version of the kind.
func ThroughHub(columns []Column, toHub func(Object) (Object, error)) []Column {
	out := make([]Column, len(columns))
	for i, c := range columns {
		out[i] = c
		out[i].Steady = nil
		if cell := c.Cell; cell != nil {
			out[i].Cell = func(o Object) any { return overHub(o, toHub, cell) }
		}
		if cell := c.CellAt; cell != nil {
			out[i].CellAt = func(o Object, now time.Time) any {
				return overHub(o, toHub, func(h Object) any { return cell(h, now) })
			}
		}
	}
	return out
}

func overHub(o Object, toHub func(Object) (Object, error), cell func(Object) any) any {
	h, err := toHub(o)
	if err != nil {
		return ""
	}
	return cell(h)
}
