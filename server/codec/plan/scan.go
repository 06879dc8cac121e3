package plan

import (
	"unicode/utf16"
	"unicode/utf8"
)

// scanner walks through JSON. Its methods return false at whatever is malformed, and then it must not be used further.
type scanner struct {
	data []byte
	at   int
}

// maxDepth is how deep values may be nested.
const maxDepth = 500

func (s *scanner) space() {
	for s.at < len(s.data) {
		switch s.data[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// next skips white space and returns the byte there without taking it; 0 at the end.
func (s *scanner) next() byte {
	s.space()
	if s.at < len(s.data) {
		return s.data[s.at]
	}
	return 0
}

// take takes the byte c after white space.
func (s *scanner) take(c byte) bool {
	if s.next() != c {
		return false
	}
	s.at++
	return true
}

func (s *scanner) word(w string) bool {
	if len(s.data)-s.at < len(w) || string(s.data[s.at:s.at+len(w)]) != w {
		return false
	}
	s.at += len(w)
	return true
}

// null takes a null if there is one.
func (s *scanner) null() bool { return s.next() == 'n' && s.word("null") }

// raw takes a string and returns what is between its quotes; clean says that this is the string's value.
func (s *scanner) raw() (b []byte, clean, ok bool) {
	if !s.take('"') {
		return nil, false, false
	}
	start := s.at
	clean = true
	high := byte(0)
	for s.at < len(s.data) {
		switch c := s.data[s.at]; {
		case c == '"':
			b = s.data[start:s.at]
			s.at++
			return b, clean, high < utf8.RuneSelf || utf8.Valid(b)
		case c == '\\':
			clean = false
			s.at++
			if s.at >= len(s.data) {
				return nil, false, false
			}
			switch s.data[s.at] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if s.at+4 >= len(s.data) {
					return nil, false, false
				}
				if _, ok := hex4(s.data[s.at+1:]); !ok {
					return nil, false, false
				}
				s.at += 4
			default:
				return nil, false, false
			}
			s.at++
		case c < ' ':
			return nil, false, false
		default:
			high |= c
			s.at++
		}
	}
	return nil, false, false
}

func hex4(b []byte) (rune, bool) {
	r := rune(0)
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case 'A' <= c && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// text takes a string and returns its value.
func (s *scanner) text() (string, bool) {
	b, clean, ok := s.raw()
	if !ok || clean {
		return string(b), ok
	}
	return unescape(b)
}

// unescape resolves the escapes of a string that raw has found well-formed. Lone surrogates are left to the general way.
func unescape(b []byte) (string, bool) {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			out = append(out, b[i])
			continue
		}
		i++
		switch b[i] {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, _ := hex4(b[i+1:])
			i += 4
			if utf16.IsSurrogate(r) {
				if len(b) < i+7 || b[i+1] != '\\' || b[i+2] != 'u' {
					return "", false
				}
				low, _ := hex4(b[i+3:])
				if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
					return "", false
				}
				i += 6
			}
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, b[i])
		}
	}
	return string(out), true
}

// number takes a number; whole says that it has neither fraction nor exponent.
func (s *scanner) number() (b []byte, whole, ok bool) {
	s.space()
	start := s.at
	digits := func() bool {
		from := s.at
		for s.at < len(s.data) && '0' <= s.data[s.at] && s.data[s.at] <= '9' {
			s.at++
		}
		return s.at > from
	}
	at := func(c byte) bool { return s.at < len(s.data) && s.data[s.at] == c }
	if at('-') {
		s.at++
	}
	if at('0') {
		s.at++
	} else if !digits() {
		return nil, false, false
	}
	whole = true
	if at('.') {
		whole = false
		if s.at++; !digits() {
			return nil, false, false
		}
	}
	if at('e') || at('E') {
		whole = false
		s.at++
		if at('+') || at('-') {
			s.at++
		}
		if !digits() {
			return nil, false, false
		}
	}
	return s.data[start:s.at], whole, true
}

// skip takes any value and returns its bytes.
func (s *scanner) skip(depth int) ([]byte, bool) {
	c := s.next()
	start := s.at
	ok := false
	switch {
	case depth > maxDepth:
	case c == '"':
		_, _, ok = s.raw()
	case c == '{':
		ok = s.skipObject(depth)
	case c == '[':
		ok = s.skipList(depth)
	case c == 't':
		ok = s.word("true")
	case c == 'f':
		ok = s.word("false")
	case c == 'n':
		ok = s.word("null")
	default:
		_, _, ok = s.number()
	}
	return s.data[start:s.at], ok
}

func (s *scanner) skipObject(depth int) bool {
	s.at++
	if s.take('}') {
		return true
	}
	for {
		if s.next() != '"' {
			return false
		}
		if _, _, ok := s.raw(); !ok || !s.take(':') {
			return false
		}
		if _, ok := s.skip(depth + 1); !ok {
			return false
		}
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

func (s *scanner) skipList(depth int) bool {
	s.at++
	if s.take(']') {
		return true
	}
	for {
		if _, ok := s.skip(depth + 1); !ok {
			return false
		}
		if s.take(']') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}
