package main

import (
	"reflect"
	"testing"
)

func TestApply(t *testing.T) {
	obj := map[string]any{"a": map[string]any{"b": []any{map[string]any{"c": "x"}, "y"}}}
	for _, c := range []struct {
		change change
		want   map[string]any
	}{
		{change{path: []any{"a", "b", 0, "c"}, value: "z"}, map[string]any{"a": map[string]any{"b": []any{map[string]any{"c": "z"}, "y"}}}},
		{change{path: []any{"a", "b", 1}, drop: true}, map[string]any{"a": map[string]any{"b": []any{map[string]any{"c": "x"}}}}},
		{change{path: []any{"a"}, drop: true}, map[string]any{}},
		{change{path: []any{"a", "b", 7}, value: 1}, obj},
	} {
		if got := c.change.apply(obj); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.change.id(), got, c.want)
		}
	}
}

func TestDifferences(t *testing.T) {
	status := func(message string, causes ...any) Answer {
		return Answer{Code: 422, Body: map[string]any{"kind": "Status", "message": message, "details": map[string]any{"causes": causes}}}
	}
	cause := func(f, m string) any {
		return map[string]any{"field": f, "reason": "FieldValueInvalid", "message": m}
	}
	same := status("m", cause("a", "x"), cause("a", "x"))
	if d := differences(same, status("m", cause("a", "x"))); len(d) != 0 {
		t.Errorf("equal causes count once: %v", d)
	}
	for name, other := range map[string]Answer{
		"message": status("n", cause("a", "x")), "cause": status("m", cause("a", "y")), "code": {Code: 201},
		"warning": {Code: 422, Warnings: []string{"w"}, Body: same.Body},
	} {
		if len(differences(same, other)) == 0 {
			t.Errorf("another %s is not seen", name)
		}
	}
}

func TestWords(t *testing.T) {
	for line, want := range map[string][]string{
		"get pods -l 'a in (b,c)'":             {"get", "pods", "-l", "a in (b,c)"},
		"get p -o jsonpath='{.a}' -n x":        {"get", "p", "-o", "jsonpath={.a}", "-n", "x"},
		"wait --for=jsonpath='{.p}'=Pending p": {"wait", "--for=jsonpath={.p}=Pending", "p"},
		"create '--schedule=* *' --image=b":    {"create", "--schedule=* *", "--image=b"},
	} {
		got, err := words(line)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %q, %v, want %q", line, got, err, want)
		}
	}
	if _, err := words("it's open"); err == nil {
		t.Error("a quote that is not closed was accepted")
	}
}

func TestScreenLines(t *testing.T) {
	judge := Answer{Body: map[string]any{"out": []any{"a", "b"}, "err": []any{}}}
	if d := differences(judge, Answer{Body: map[string]any{"out": []any{"a", "c", "b"}, "err": []any{}}}); len(d) != 1 || d[0] != "extra line c" {
		t.Errorf("%q", d)
	}
	if d := differences(judge, Answer{Body: map[string]any{"out": []any{"b", "a"}, "err": []any{}}}); len(d) != 1 {
		t.Errorf("another order is not seen: %q", d)
	}
}
