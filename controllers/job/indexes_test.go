package job

import (
	"maps"
	"testing"
)

func TestIndexes(t *testing.T) {
	for text, want := range map[string]string{"": "", "1,3-5,7": "1,3-5,7", "4,2,3": "2-4", "0,1": "0,1", "x,-1,2-": "", "8-20": "8,9"} {
		if got := parseIndexes(text, 10).String(); got != want {
			t.Errorf("%q reads as %q, want %q", text, got, want)
		}
	}
}

func FuzzIndexes(f *testing.F) {
	f.Add("1,3-5,7")
	f.Add("0-9999999999")
	f.Fuzz(func(t *testing.T, text string) {
		set := parseIndexes(text, 100)
		if again := parseIndexes(set.String(), 100); !maps.Equal(set, again) {
			t.Errorf("%q: %q reads back as %q", text, set, again)
		}
	})
}
