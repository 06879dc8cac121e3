package discovery

import (
	"cmp"
	"slices"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"github.com/skiff-sh/skiff/api"
)

// Priority orders groups and their versions: higher ones come first.
type Priority struct{ Group, Version int32 }

// Registration is what one APIService says about a group-version.
type Registration struct {
	GroupVersion                   schema.GroupVersion
	GroupPriority, VersionPriority int32
	// Remote is the group-version's part of the aggregated documents where an extension server serves it; nil where it is
	// served here.
	Remote *apidiscoveryv2.APIVersionDiscovery
}

// Registrations are those of one moment. They never change; another moment has other Registrations.
type Registrations struct{ All []Registration }

// priorities are those of the groups that the server is born with, as upstream has them.
var priorities = map[string]Priority{
	"":                             {18000, 1},
	"apps":                         {17800, 15},
	"events.k8s.io":                {17750, 15},
	"authentication.k8s.io":        {17700, 15},
	"authorization.k8s.io":         {17600, 15},
	"autoscaling":                  {17500, 15},
	"batch":                        {17400, 15},
	"certificates.k8s.io":          {17300, 15},
	"networking.k8s.io":            {17200, 15},
	"policy":                       {17100, 15},
	"rbac.authorization.k8s.io":    {17000, 15},
	"storage.k8s.io":               {16800, 15},
	"apiextensions.k8s.io":         {16700, 15},
	"admissionregistration.k8s.io": {16700, 15},
	"scheduling.k8s.io":            {16600, 15},
	"coordination.k8s.io":          {16500, 15},
	"node.k8s.io":                  {16300, 15},
	"discovery.k8s.io":             {16200, 15},
	"resource.k8s.io":              {16200, 21},
	"flowcontrol.apiserver.k8s.io": {16100, 21},
	// The group of the APIServices themselves is always the first.
	"apiregistration.k8s.io": {20001, 15},
}

// BuiltinPriority is the priority of a group-version that the server is born with.
func BuiltinPriority(gv schema.GroupVersion) Priority {
	p, ok := priorities[gv.Group]
	if !ok {
		return Priority{Group: 1000, Version: 15}
	}
	if gv.Group == "autoscaling" && gv.Version == "v2" {
		p.Version = 30
	}
	return p
}

// group is a group with its versions, best first.
type group struct {
	name     string
	versions []*groupVersion
	priority int32
	first    string // the name of the APIService that gives the group its place
}

type groupVersion struct {
	gv       schema.GroupVersion
	priority Priority
	kinds    []*api.Kind                         // by name; of those served here
	remote   *apidiscoveryv2.APIVersionDiscovery // of an extension server
}

func (v *groupVersion) path() string {
	if v.gv.Group == "" {
		return "/api/" + v.gv.Version
	}
	return "/apis/" + v.gv.String()
}

// arrange sorts what there is into groups: by the highest priority of their versions, then by name.
func arrange(kinds []*api.Kind, regs *Registrations) []*group {
	versions := map[schema.GroupVersion]*groupVersion{}
	at := func(gv schema.GroupVersion) *groupVersion {
		if versions[gv] == nil {
			versions[gv] = &groupVersion{gv: gv, priority: BuiltinPriority(gv)}
		}
		return versions[gv]
	}
	for _, k := range kinds {
		v := at(k.GroupVersion())
		v.kinds = append(v.kinds, k)
	}
	for i := range regs.All {
		r := &regs.All[i]
		if r.Remote == nil && versions[r.GroupVersion] == nil {
			continue // registered, but not served (yet, or any more)
		}
		v := at(r.GroupVersion)
		v.priority, v.remote = Priority{r.GroupPriority, r.VersionPriority}, r.Remote
	}
	byName := map[string]*group{}
	var groups []*group
	for gv, v := range versions {
		slices.SortFunc(v.kinds, func(a, b *api.Kind) int { return strings.Compare(a.Plural, b.Plural) })
		g := byName[gv.Group]
		if g == nil {
			g = &group{name: gv.Group}
			byName[gv.Group] = g
			groups = append(groups, g)
		}
		g.versions = append(g.versions, v)
		name := gv.Version + "." + gv.Group
		if g.first == "" || v.priority.Group > g.priority || v.priority.Group == g.priority && name < g.first {
			g.priority, g.first = v.priority.Group, name
		}
	}
	for _, g := range groups {
		slices.SortFunc(g.versions, func(a, b *groupVersion) int {
			return cmp.Or(cmp.Compare(b.priority.Version, a.priority.Version), version.CompareKubeAwareVersionStrings(b.gv.Version, a.gv.Version))
		})
	}
	slices.SortFunc(groups, func(a, b *group) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), strings.Compare(a.name, b.name))
	})
	return groups
}
