package builtin

import (
	"slices"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/admissionregistration"
	"github.com/skiff-sh/skiff/api/apiextensions"
	"github.com/skiff-sh/skiff/api/apiregistration"
	"github.com/skiff-sh/skiff/api/apps"
	"github.com/skiff-sh/skiff/api/authentication"
	"github.com/skiff-sh/skiff/api/authorization"
	"github.com/skiff-sh/skiff/api/autoscaling"
	"github.com/skiff-sh/skiff/api/batch"
	"github.com/skiff-sh/skiff/api/certificates"
	"github.com/skiff-sh/skiff/api/coordination"
	"github.com/skiff-sh/skiff/api/core"
	"github.com/skiff-sh/skiff/api/discovery"
	"github.com/skiff-sh/skiff/api/events"
	"github.com/skiff-sh/skiff/api/flowcontrol"
	"github.com/skiff-sh/skiff/api/networking"
	"github.com/skiff-sh/skiff/api/node"
	"github.com/skiff-sh/skiff/api/policy"
	"github.com/skiff-sh/skiff/api/rbac"
	"github.com/skiff-sh/skiff/api/resource"
	"github.com/skiff-sh/skiff/api/scheduling"
	"github.com/skiff-sh/skiff/api/storage"
)

// Kinds lists all rows, group by group in upstream's order of discovery. The rows are shared; the slice is new.
func Kinds() []*api.Kind {
	return slices.Concat(
		core.Kinds(),
		apiregistration.Kinds(),
		apps.Kinds(),
		events.Kinds(),
		authentication.Kinds(),
		authorization.Kinds(),
		autoscaling.Kinds(),
		batch.Kinds(),
		certificates.Kinds(),
		networking.Kinds(),
		policy.Kinds(),
		rbac.Kinds(),
		storage.Kinds(),
		admissionregistration.Kinds(),
		apiextensions.Kinds(),
		scheduling.Kinds(),
		coordination.Kinds(),
		node.Kinds(),
		discovery.Kinds(),
		flowcontrol.Kinds(),
		resource.Kinds(),
	)
}
