package admission

import (
	"reflect"

	"k8s.io/apimachinery/pkg/runtime"
)

// Rounds is how a mutator that asks many others (webhooks, policies) keeps track of who must be asked again, because
// the object was changed after they had seen it. It implements reinvocationPolicy IfNeeded.
type Rounds struct {
	asked  []string        // who may be asked again and has seen the object as it is now
	again  map[string]bool // who has seen an older one
	output runtime.Object  // as the last round left it
}

// BeginRound continues the plugin's account of a request.
func BeginRound(r *Request, plugin string) *Rounds {
	s, ok := r.Memo[plugin].(*Rounds)
	if !ok {
		if r.Memo == nil {
			r.Memo = map[string]any{}
		}
		s = &Rounds{again: map[string]bool{}}
		r.Memo[plugin] = s
	}
	if r.Round > 0 && !reflect.DeepEqual(s.output, r.Object) { // other plugins changed it in their second round
		s.outdate()
	}
	return s
}

func (s *Rounds) outdate() {
	for _, id := range s.asked {
		s.again[id] = true
	}
	s.asked = nil
}

// Wants reports whether somebody is to be asked in this round.
func (s *Rounds) Wants(r *Request, id string) bool { return r.Round == 0 || s.again[id] }

// Changed says that the object was changed just now.
func (s *Rounds) Changed(r *Request) {
	s.outdate()
	r.Again = true
}

// Asked says that somebody who may be asked again has seen the object.
func (s *Rounds) Asked(id string) { s.asked = append(s.asked, id) }

// End remembers what the round made. Objects that mutators have changed in place would look unchanged: a copy is kept.
func (s *Rounds) End(r *Request) {
	if r.Round == 0 && r.Again && r.Object != nil {
		s.output = r.Object.DeepCopyObject()
	}
}
