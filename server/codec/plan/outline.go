package plan

// Outline appends the names of a JSON object's fields, at all depths, without their values. ok is false where it has
// lists or nulls in it, or is no object.
func Outline(b, data []byte) (outline []byte, ok bool) {
	s := scanner{data: data}
	if b, ok = s.outline(b, 0); !ok || s.next() != 0 || s.at != len(data) {
		return b, false
	}
	return b, true
}

func (s *scanner) outline(b []byte, depth int) ([]byte, bool) {
	if depth > maxDepth || !s.take('{') {
		return b, false
	}
	b = append(b, '{')
	if s.take('}') {
		return append(b, '}'), true
	}
	for {
		s.space()
		from := s.at
		if _, _, ok := s.raw(); !ok {
			return b, false
		}
		b = append(b, s.data[from:s.at]...)
		if !s.take(':') {
			return b, false
		}
		ok := false
		switch s.next() {
		case '{':
			b, ok = s.outline(b, depth+1)
		case '[', 'n':
		default:
			_, ok = s.skip(depth)
		}
		if !ok {
			return b, false
		}
		if s.take('}') {
			return append(b, '}'), true
		}
		if !s.take(',') {
			return b, false
		}
	}
}
