package codec

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The media types that Kubernetes speaks.
const (
	TypeJSON     = "application/json"
	TypeYAML     = "application/yaml"
	TypeProtobuf = "application/vnd.kubernetes.protobuf"
)

// Format is a way to write an object.
type Format int

const (
	FormatJSON Format = iota
	FormatYAML
	FormatProtobuf
)

// View is what of an object is written.
type View int

const (
	ViewObject View = iota
	ViewTable
	ViewMetadata     // PartialObjectMetadata
	ViewMetadataList // PartialObjectMetadataList
)

// Media is the outcome of a negotiation.
type Media struct {
	Format  Format
	View    View
	Version string // of the view in meta.k8s.io: "v1" or "v1beta1"
	Pretty  bool   // JSON with indentation
	Stream  bool   // the client asked for ;stream=watch
}

// Allow says what the resource can answer beyond JSON and YAML.
type Allow struct {
	Protobuf, Table, Metadata, List bool
	// Routed: upstream's router looks at the header before the resource does, and refuses in its own words.
	Routed bool
}

type clause struct {
	typ    string
	params map[string]string
	q      float64
}

// ParseAccept takes an Accept header apart, best first. Clauses that cannot be read are left out.
func ParseAccept(header string) []clause {
	var out []clause
	for part := range strings.SplitSeq(header, ",") {
		c := clause{q: 1}
		typ, rest, _ := strings.Cut(part, ";")
		c.typ = strings.ToLower(strings.TrimSpace(typ))
		if c.typ == "" {
			continue
		}
		for rest != "" {
			var p string
			p, rest, _ = strings.Cut(rest, ";")
			k, v, _ := strings.Cut(p, "=")
			k, v = strings.ToLower(strings.TrimSpace(k)), strings.Trim(strings.TrimSpace(v), `"`)
			if k == "q" {
				if f, err := strconv.ParseFloat(v, 64); err == nil {
					c.q = f
				}
				continue
			}
			if c.params == nil {
				c.params = map[string]string{}
			}
			c.params[k] = v
		}
		i := len(out)
		for i > 0 && out[i-1].q < c.q {
			i--
		}
		out = append(out, clause{})
		copy(out[i+1:], out[i:])
		out[i] = c
	}
	return out
}

// Negotiate chooses how to answer a request, or returns a 406.
func Negotiate(r *http.Request, allow Allow) (Media, error) {
	header := r.Header.Get("Accept")
	m := Media{Version: "v1"}
	switch header {
	case "", "*/*", TypeJSON:
		m.Pretty = pretty(r, false)
		return m, nil
	case TypeProtobuf:
		if allow.Protobuf {
			m.Format = FormatProtobuf
			return m, nil
		}
	}
	for _, c := range ParseAccept(header) {
		if m, ok := c.media(allow); ok {
			if m.Format == FormatJSON {
				m.Pretty = pretty(r, c.params["pretty"] == "1")
			}
			return m, nil
		}
	}
	accepted := TypeJSON + ", " + TypeYAML
	if allow.Protobuf {
		accepted += ", " + TypeProtobuf
	}
	st := metav1.Status{Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: "only the following media types are accepted: " + accepted}
	if allow.Routed && !slices.ContainsFunc(ParseAccept(header), func(c clause) bool { return c.known(allow) }) {
		if allow.List { // whose route also watches
			accepted += ", " + TypeJSON + ";stream=watch, " + TypeProtobuf + ";stream=watch"
		}
		st.Message, st.Details = "406: Not Acceptable\n\nAvailable representations: "+accepted, &metav1.StatusDetails{}
	}
	return m, &apierrors.StatusError{ErrStatus: st}
}

// known reports whether the type is one that is written here, if perhaps not in the form that the parameters ask for.
func (c clause) known(allow Allow) bool {
	switch c.typ {
	case TypeJSON, TypeYAML, "*/*", "application/*":
		return true
	}
	return c.typ == TypeProtobuf && allow.Protobuf
}

func (c clause) media(allow Allow) (Media, bool) {
	m := Media{Version: "v1"}
	switch c.typ {
	case TypeJSON, "*/*", "application/*":
	case TypeYAML:
		m.Format = FormatYAML
	case TypeProtobuf:
		if !allow.Protobuf {
			return m, false
		}
		m.Format = FormatProtobuf
	default:
		return m, false
	}
	for k, v := range c.params {
		switch k {
		case "as":
			switch v {
			case "Table":
				m.View = ViewTable
			case "PartialObjectMetadata":
				m.View = ViewMetadata
			case "PartialObjectMetadataList":
				m.View = ViewMetadataList
			default:
				return m, false
			}
		case "v":
			m.Version = v
		case "stream":
			if v != "watch" {
				return m, false
			}
			m.Stream = true
		}
	}
	if m.View == ViewObject {
		m.Version = "v1"
		return m, true
	}
	ok := c.params["g"] == "meta.k8s.io" && (m.Version == "v1" || m.Version == "v1beta1")
	switch m.View {
	case ViewTable:
		ok = ok && allow.Table && m.Format != FormatProtobuf
	case ViewMetadata:
		ok = ok && allow.Metadata && !allow.List
	case ViewMetadataList:
		ok = ok && allow.Metadata && allow.List
	}
	return m, ok
}

// pretty follows ?pretty, and else indents for people: browsers, curl and wget.
func pretty(r *http.Request, asked bool) bool {
	if strings.Contains(r.URL.RawQuery, "pretty") {
		if q := r.URL.Query(); q.Has("pretty") {
			v, err := strconv.ParseBool(q.Get("pretty"))
			return err != nil && q.Get("pretty") != "" || v || q.Get("pretty") == ""
		}
	}
	if asked {
		return true
	}
	ua := r.UserAgent()
	return strings.HasPrefix(ua, "curl") || strings.HasPrefix(ua, "Wget") || strings.HasPrefix(ua, "Mozilla/5.0")
}

// ContentType is the header of an answer.
func (m Media) ContentType() string {
	t := TypeJSON
	switch m.Format {
	case FormatYAML:
		t = TypeYAML
	case FormatProtobuf:
		t = TypeProtobuf
	}
	if m.Stream && m.Format == FormatProtobuf {
		return t + ";stream=watch"
	}
	return t
}
