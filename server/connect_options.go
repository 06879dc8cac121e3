package server

import (
	"net/url"
	"reflect"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
)

// fillOptions reads a connect request's query into its options (PodExecOptions), whose fields are strings, booleans and
// lists of strings and numbers. What does not parse is left as it is: the stream itself looks at the query again.
func fillOptions(options runtime.Object, query url.Values) {
	v := reflect.ValueOf(options).Elem()
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		values, ok := query[name]
		if !ok || name == "" || len(values) == 0 {
			continue
		}
		switch f := v.Field(i); {
		case f.Kind() == reflect.String:
			f.SetString(values[0])
		case f.Kind() == reflect.Bool:
			f.SetBool(!strings.EqualFold(values[0], "false") && values[0] != "0")
		case f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.String:
			f.Set(reflect.ValueOf(values).Convert(f.Type()))
		case f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.Int32:
			for _, s := range strings.Split(strings.Join(values, ","), ",") {
				if n, err := strconv.ParseInt(s, 10, 32); err == nil {
					f.Set(reflect.Append(f, reflect.ValueOf(int32(n))))
				}
			}
		}
	}
}
