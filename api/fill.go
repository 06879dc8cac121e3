package api

// Fill sets an empty field.
func Fill[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// FillPtr sets a nil pointer to a new v.
func FillPtr[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}

// Ptr returns a pointer to a new v.
func Ptr[T any](v T) *T { return &v }

// Int is *p as a table cell shows it, 0 for nil.
func Int(p *int32) int64 {
	if p == nil {
		return 0
	}
	return int64(*p)
}
