package daemon

import (
	"k8s.io/apiserver/pkg/authentication/user"
)

// Who the components are. The names are upstream's, so that its bootstrap roles fit them.

func component(name string) user.Info {
	return &user.DefaultInfo{Name: name, Groups: []string{user.AllAuthenticated}}
}

// controllerAccount is the service account that upstream gives the controller of that name, whose bootstrap role is
// system:controller:NAME.
func controllerAccount(name string) user.Info {
	return &user.DefaultInfo{Name: "system:serviceaccount:kube-system:" + name,
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:kube-system", user.AllAuthenticated}}
}

func nodeUser(name string) user.Info {
	return &user.DefaultInfo{Name: "system:node:" + name, Groups: []string{user.NodesGroup, user.AllAuthenticated}}
}

var (
	controllerManager = component(user.KubeControllerManager)
	schedulerUser     = component(user.KubeScheduler)
	proxyUser         = component(user.KubeProxy)
	dnsUser           = component("system:skiff:dns")
	podnetUser        = component("system:skiff:podnet")
)
